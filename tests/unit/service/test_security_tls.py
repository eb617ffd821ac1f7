"""The way to the service is encrypted, to whom it should be, and nothing switches that off."""

import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

import phonofs
from phonofs.config import OPTIONS
from phonofs.config.options import BY_NAME
from phonofs.errors import Unavailable, Untrusted
from phonofs.service.session import Transport, new_request
from phonofs.service.tls import trusting
from tests.support.authority import Authority

pytestmark = pytest.mark.real_clock

SECRET = {"Authorization": "Basic canary"}


class Server:
    """Keeps every byte that arrived within TLS."""

    def __init__(self) -> None:
        self.heard = b""
        self.port = 0

    async def serve(self, stream: trio.SSLStream[trio.SocketStream]) -> None:
        try:
            self.heard += await stream.receive_some(65536)
            await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        except (trio.BrokenResourceError, ssl.SSLError):
            pass


@asynccontextmanager
async def serving(context: ssl.SSLContext) -> AsyncIterator[Server]:
    server = Server()
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_ssl_over_tcp_listeners(0, context, host="127.0.0.1")
        server.port = listeners[0].transport_listener.socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, server.serve, listeners)
        yield server
        nursery.cancel_scope.cancel()


async def ask(server: Server, host: str = "localhost") -> bytes:
    url = f"https://{host}:{server.port}"
    async with Transport(url, timeout_s=5.0, proxies={}) as way:
        _, body = await way.request(
            new_request("token", f"{url}/oauth/v2/token", headers=SECRET), limit_bytes=1000
        )
        return body


@pytest.mark.parametrize(
    ("names", "days", "trusted", "host"),
    [
        (("localhost",), 1, False, "localhost"),
        (("somewhere.else",), 1, True, "localhost"),
        (("localhost",), -1, True, "localhost"),
        (("localhost",), 1, True, "127.0.0.1"),
    ],
    ids=["unknown authority", "another name", "expired", "an address it does not name"],
)
async def test_a_certificate_that_cannot_be_verified(
    tmp_path, monkeypatch, names, days, trusted, host
):
    """Refused at once with a sentence that names the remedy, and not a byte was sent to it."""
    authority = Authority(tmp_path)
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    async with serving(authority.server(*names, days=days)) as server:
        with pytest.raises(Untrusted, match="certificate") as caught:
            await ask(server, host)
    assert server.heard == b""
    assert "canary" not in str(caught.value)


async def test_an_authority_of_the_system_is_trusted(tmp_path, monkeypatch):
    """A company's own CA works as it does with curl: by the system's store or SSL_CERT_FILE."""
    authority = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    async with serving(authority.server("localhost")) as server:
        assert await ask(server) == b"ok"
    assert b"Basic canary" in server.heard


async def test_a_server_without_tls_gets_nothing():
    """A plain answer on an https port is an error, and no request was sent in the clear."""
    heard = b""

    async def plain(stream: trio.SocketStream) -> None:
        nonlocal heard
        heard += await stream.receive_some(65536)
        await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        server = Server()
        server.port = listeners[0].socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, plain, listeners)
        with pytest.raises(Unavailable):
            await ask(server)
        nursery.cancel_scope.cancel()
    assert b"canary" not in heard


def test_the_one_context_verifies_everything():
    """TLS 1.2 and up, the chain and the name."""
    context = trusting()
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


def test_there_is_no_way_to_switch_it_off():
    """No option, and nothing in the source that could.

    ``verify`` is about the checksums of contents, and about nothing else.
    """
    named = [each.name for each in OPTIONS if re.search("tls|ssl|verif|insecure", each.name)]
    assert named == ["verify"]
    assert BY_NAME["verify"].choices == ("checksum", "length")
    for path in Path(phonofs.__file__).parent.rglob("*.py"):
        text = path.read_text()
        assert not re.search(r"CERT_NONE|verify\s*=\s*False|_create_unverified", text), path
        assert not re.search(r"check_hostname\s*=\s*False", text), path
