"""Answers that end, go on or fall apart in ways that only a broken or hostile service sends."""

import ipaddress
import itertools
import json
import socket
import ssl
import threading
from pathlib import Path
from typing import Any

import pytest
import trio

from phonofs.config import Secret
from phonofs.errors import Malformed, ServiceError, Unavailable
from phonofs.model import Query
from phonofs.service.auth import TokenProvider
from phonofs.service.client import Client
from phonofs.service.session import Transport, new_request
from phonofs.service.streaming_response import stream_of
from tests.fault.hostile import OK, HostileServer, hostile, sent_with_its_end
from tests.support.authority import Authority
from tests.support.service_world import Service, connected, plain_httpx, ramp, record, record_json
from tests.support.timing import stretches, timely

pytestmark = pytest.mark.real_clock

BODY = ramp(200_001)
LONGEST_STRETCH_S = 0.05


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def secured(authority: Authority) -> ssl.SSLContext:
    return authority.server("localhost")


def trusting(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(authority.file))


def way_to(server: HostileServer, context: ssl.SSLContext | None, **options: Any) -> Transport:
    options = {"timeout_s": 10.0, "proxies": {}} | options
    context = context or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return Transport(server.url, context=context, **options)


async def get(way: Transport, server: HostileServer, path: str = "/x") -> tuple[int, bytes]:
    response, body = await way.request(new_request("test", server.url + path), limit_bytes=1 << 24)
    return response.status_code, body


def sized(body: bytes, *headers: bytes) -> bytes:
    lines = [OK.strip(), b"Content-Length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def chunked(body: bytes, size: int = 50_000) -> bytes:
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)
    return OK + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"


@pytest.mark.parametrize(
    "answer",
    [sized(b"ok", b"Connection: close"), sized(BODY), chunked(b"ok"), chunked(BODY), sized(b"")],
    ids=["short", "long", "chunked", "long chunked", "empty"],
)
async def test_a_complete_answer_before_a_bare_end(
    authority: Authority, secured: ssl.SSLContext, answer: bytes
) -> None:
    """The server closes without TLS's farewell, as many do: the answer was complete, and counts."""
    body = BODY if len(answer) > 1000 else b"ok" if b"ok" in answer else b""
    with hostile(lambda sock, _, n: sent_with_its_end(sock, answer), secured) as server:
        async with way_to(server, trusting(authority)) as way:
            for _ in range(5):
                assert await get(way, server) == (200, body)
        assert server.connections == 5


@pytest.mark.parametrize(
    "answer",
    [sized(BODY)[:-1], chunked(BODY)[:-2], chunked(BODY)[:-5], OK + b"\r\n" + BODY, OK + b"X"],
    ids=["length", "last line", "last chunk", "until the end", "head"],
)
async def test_an_incomplete_answer_before_a_bare_end(
    authority: Authority, secured: ssl.SSLContext, answer: bytes
) -> None:
    """Whatever is not known to be complete may have been cut: an error."""
    with hostile(lambda sock, _, n: sent_with_its_end(sock, answer), secured) as server:
        async with way_to(server, trusting(authority)) as way:
            with pytest.raises(ServiceError):
                await get(way, server)


async def test_a_service_that_always_ends_barely(
    authority: Authority, secured: ssl.SSLContext
) -> None:
    """Token, regions, a search and content by way of the client, each with such an end."""

    def answer(sock: Any, request: bytes, number: int) -> bool:
        path = request.split(b" ")[1]
        if b"/token" in path:
            body = sized(b'{"access_token": "t", "expires_in": "1799"}', b"Connection: close")
        elif path.endswith(b"/regions"):
            body = chunked(b'["uk"]')
        elif path.endswith(b"/content"):
            headers = b"Content-Range: bytes 0-999/1000"
            body = sized(BODY[:1000], headers).replace(b"200 OK", b"206 Partial Content")
        else:
            page = {"lastPage": True, "pageKey": 1, "content": [record_json("one")]}
            body = sized(json.dumps(page).encode())
        return sent_with_its_end(sock, body)

    async def credentials() -> tuple[str, Secret]:
        return "key", Secret("secret")

    with hostile(answer, secured) as server:
        async with way_to(server, trusting(authority)) as way, trio.open_nursery() as nursery:
            keeper = TokenProvider(way, credentials)
            await nursery.start(keeper.run)
            client = Client(way, keeper, read_deadline_s=10)
            with trio.fail_after(20):
                assert await client.regions() == ["uk"]
                found = await client.search("uk", Query())
                assert [each.id for each in found.records] == ["one"]
                async with client.content(record(), 0, 1000) as body:
                    assert b"".join([bytes(chunk) async for chunk in body]) == BODY[:1000]
            nursery.cancel_scope.cancel()
        assert len(server.requests) == 4


async def test_bytes_behind_a_body_within_its_tls_record(
    authority: Authority, secured: ssl.SSLContext
) -> None:
    """They wait inside TLS, where the descriptor shows nothing: never the next answer."""
    right = BODY * 10

    def answer(sock: Any, request: bytes, number: int) -> bool:
        sock.sendall(sized(right) + sized(b"EVIL"))
        return True

    with hostile(answer, secured) as server:
        async with way_to(server, trusting(authority)) as way:
            for _ in range(3):
                assert await get(way, server) == (200, right)
        assert server.connections == 3


@pytest.mark.parametrize(
    "behind",
    [b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n", b"\0", b"\r\n"],
    ids=["an answer", "a byte", "an empty line"],
)
@pytest.mark.parametrize(
    "answer",
    [
        sized(b"right"),
        sized(b"right", b"X: " + b"y" * 9000),
        sized(b""),
        b"HTTP/1.1 100 Continue\r\n\r\n" + sized(b"right"),
        chunked(b"right"),
        b"HTTP/1.1 204 No Content\r\n\r\n",
    ],
    ids=["sized", "long head", "empty", "interim", "chunked", "204"],
)
async def test_bytes_behind_any_body(answer: bytes, behind: bytes) -> None:
    """However the head was read and the body ended, such a connection is not used again."""

    def both(sock: Any, request: bytes, number: int) -> bool:
        sock.sendall(answer + behind)
        return True

    with hostile(both) as server:
        async with way_to(server, None) as way:
            for _ in range(2):
                _, body = await get(way, server)
                assert body == (b"right" if b"right" in answer else b"")
        assert server.connections == 2


async def test_two_lengths_end_the_connection() -> None:
    """Chunks count, and then nothing that comes is trusted (RFC 9112, 6.3)."""
    answer = chunked(b"right").replace(b"Transfer", b"Content-Length: 3\r\nTransfer")

    def both(sock: Any, request: bytes, number: int) -> bool:
        sock.sendall(answer)
        return True

    with hostile(both) as server:
        async with way_to(server, None) as way:
            for _ in range(2):
                assert await get(way, server) == (200, b"right")
        assert server.connections == 2


@pytest.mark.parametrize("method", ["HEAD", "CONNECT"])
async def test_methods_whose_answers_end_elsewhere_are_refused(method: str) -> None:
    """Rather than waiting for a body that does not come."""
    with hostile(
        lambda sock, _, n: bool(sock.sendall(OK + b"Content-Length: 5\r\n\r\n"))
    ) as server:
        async with way_to(server, None) as way:
            with trio.fail_after(20), pytest.raises(ServiceError, match="cannot be sent"):
                await way.request(new_request("test", server.url, method), limit_bytes=10)
        assert server.requests == []


CHUNKS = OK + b"Transfer-Encoding: chunked\r\n\r\n"
BULK = 1 << 18
CRUMBS = {
    "chunks of a byte": (CHUNKS, b"1\r\nx\r\n"),
    "chunks of a byte, extended": (CHUNKS, b"1;a=b\r\nx\r\n"),
    "an extension without end": (CHUNKS + b"1;", b"a=b;"),
    "a size without end": (CHUNKS, b"0"),
    "a trailer without end": (CHUNKS + b"0\r\n", b"a:\r\n"),
    "100 without end": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "103 without end": (b"", b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"),
    "interim heads of many lines": (b"", b"HTTP/1.1 103 x\r\n" + b"a:\r\n" * 1000 + b"\r\n"),
    "header lines without end": (OK, b"a:\r\n"),
    "a header without end": (OK + b"a: ", b"bbbb"),
    "a header folded without end": (OK + b"a: b\r\n", b" c\r\n"),
    "an empty line without end": (b"", b"\r\n"),
}


@pytest.mark.promise("nobody-waits-for-others")
@pytest.mark.parametrize(("begin", "crumb"), CRUMBS.values(), ids=CRUMBS)
async def test_crumbs_do_not_hold_the_loop_up(begin: bytes, crumb: bytes) -> None:
    """Given up soon, at a bounded cost, with the loop free for others all the time."""
    bulk = crumb * (BULK // len(crumb) + 1)

    def send(sock: Any, request: bytes, number: int) -> bool:
        sock.sendall(begin)
        while True:
            sock.sendall(bulk)

    with hostile(send) as server, stretches() as loop:
        async with way_to(server, None) as way:
            with trio.fail_after(8), pytest.raises(ServiceError):
                await get(way, server)
    assert timely(loop.longest_s, LONGEST_STRETCH_S)
    assert timely(loop.spent_s, 2)


@pytest.mark.filterwarnings(  # httpcore leaves such a generator to the collector
    "ignore:.*async_generator:pytest.PytestUnraisableExceptionWarning"
)
async def test_crumbs_by_way_of_httpx() -> None:
    """As behind a proxy: what httpx gives in crumbs is bounded too, and others get their turn."""

    def send(sock: Any, request: bytes, number: int) -> bool:
        sock.sendall(CHUNKS)
        while True:
            sock.sendall(b"1\r\nx\r\n" * 10_000)

    with hostile(send) as server, stretches() as loop:
        async with way_to(server, None, http=plain_httpx()) as way:
            with trio.fail_after(20), pytest.raises(ServiceError, match="small pieces"):
                await get(way, server)
    assert timely(loop.longest_s, LONGEST_STRETCH_S)


HEADS = {
    "a head of many lines": OK + b"a:\r\n" * 16_000 + b"Content-Length: 2\r\n\r\nok",
    "interim answers": b"HTTP/1.1 100 x\r\n\r\n" * 3000 + sized(b"ok"),
}


@pytest.mark.parametrize("answer", HEADS.values(), ids=HEADS)
async def test_a_costly_head_that_ends(answer: bytes) -> None:
    """Within the bytes that a head may have, yet too many lines: given up, nobody is held up."""

    def send(sock: Any, request: bytes, number: int) -> bool:
        sock.sendall(answer)
        return True

    with hostile(send) as server, stretches() as loop:
        async with way_to(server, None) as way:
            with pytest.raises(ServiceError):
                await get(way, server)
    assert timely(loop.longest_s, LONGEST_STRETCH_S)


async def test_chunks_of_a_byte_that_end() -> None:
    """A page of 150 kB in as many chunks is odd, but right; others get their turn meanwhile."""
    answer = chunked(BODY[:150_000], 1)

    def send(sock: Any, request: bytes, number: int) -> bool:
        sock.sendall(answer)
        return True

    with hostile(send) as server, stretches() as loop:
        async with way_to(server, None) as way:
            assert await get(way, server) == (200, BODY[:150_000])
    assert timely(loop.longest_s, LONGEST_STRETCH_S)
    assert timely(loop.spent_s, 2)


@pytest.mark.parametrize("length", [True, False], ids=["length", "until the end"])
async def test_tls_records_of_a_byte(
    authority: Authority, secured: ssl.SSLContext, length: bool
) -> None:
    """The system may have hundreds of thousands of them at hand: read a few at a time."""
    begin = OK + (b"Content-Length: 1000000\r\n\r\n" if length else b"\r\n")

    def send(sock: Any, request: bytes, number: int) -> bool:
        sock.sendall(begin)
        for _ in itertools.repeat(None):
            sock.sendall(b"x")
        return False

    with hostile(send, secured) as server:
        async with way_to(server, trusting(authority)) as way:
            with stretches() as loop:  # without the reading of certificates at the start
                stream = await way.open(new_request("test", server.url))
                received = 0
                with trio.move_on_after(1):
                    async for chunk in stream_of(stream):
                        received += len(chunk)
                await stream.aclose()
    assert received > 1000
    assert timely(loop.longest_s, LONGEST_STRETCH_S)


@pytest.mark.parametrize("crumb", [b"1\r\nx\r\n", b"400\r\n" + b"x" * 1024 + b"\r\n"])
async def test_a_stop_amid_crumbs_is_quick(crumb: bytes) -> None:
    """Cancelled while they come, it ends within a turn of the loop."""
    bulk = crumb * 10_000

    def send(sock: Any, request: bytes, number: int) -> bool:
        sock.sendall(CHUNKS)
        while True:
            sock.sendall(bulk)

    with hostile(send) as server, stretches() as loop:
        async with way_to(server, None) as way, trio.open_nursery() as nursery:
            stream = await way.open(new_request("test", server.url))

            async def drop() -> None:
                async for _ in stream_of(stream):
                    pass

            assert await anext(stream_of(stream))
            nursery.start_soon(drop)
            await trio.sleep(0.05)
            loop.spent_s = 0
            nursery.cancel_scope.cancel()
        await stream.aclose()
    assert timely(loop.spent_s, LONGEST_STRETCH_S)


async def test_alpn_names_http_1_1(
    tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gateways that also speak HTTP/2 are told which of the two is spoken here."""
    chosen: list[str | None] = []
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    context = authority.server("localhost")
    context.set_alpn_protocols(["h2", "http/1.1"])

    def answer(sock: Any, request: bytes, number: int) -> bool:
        chosen.append(sock.selected_alpn_protocol())
        sock.sendall(sized(b"ok"))
        return True

    with hostile(answer, context) as server:
        async with Transport(server.url, proxies={}) as way:
            assert await get(way, server) == (200, b"ok")
    assert chosen == ["http/1.1"]


GETADDRINFO = socket.getaddrinfo


def resolve(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """Have every name lead to these addresses."""

    def getaddrinfo(
        host: Any, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
    ) -> Any:
        if flags & socket.AI_NUMERICHOST:
            return GETADDRINFO(host, port, family, type, proto, flags)
        return [each for address in addresses for each in GETADDRINFO(address, port, family, type)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("by_name", [True, False], ids=["a name", "an address"])
async def test_nobody_inside_hears_of_a_redirect(
    address: str, by_name: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused before a connection is begun, not only before a byte is sent: no port scan."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        listener = socket.create_server((address, 0), family=family)
    except OSError:
        pytest.skip("there is no IPv6 here")
    with listener:
        listener.setblocking(False)
        resolve(monkeypatch, address, address)
        host = "inner.example.net" if by_name else f"[{address}]" if ":" in address else address
        url = f"https://{host}:{listener.getsockname()[1]}/x"
        async with Transport("https://api.example.com", proxies={}, timeout_s=5) as way:
            with pytest.raises(Malformed, match="private address"):
                await way.open(new_request("link", url))
        with pytest.raises(BlockingIOError):
            listener.accept()


async def test_of_several_addresses_any_that_answers_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The next one is tried when one refuses, and those of both families."""
    with hostile(lambda sock, _, n: bool(sock.sendall(sized(b"ok")) or True)) as server:
        resolve(monkeypatch, "::1", "127.0.0.2", "127.0.0.1")
        async with way_to(server, None) as way:
            assert await get(way, server) == (200, b"ok")
        resolve(monkeypatch, "127.0.0.2", "127.0.0.3")
        async with way_to(server, None) as way:
            with pytest.raises(Unavailable, match="Connection refused"):
                await get(way, server)


def own_address() -> str:
    """A private address of this machine, beside loopback; '' if there is none. Sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(("10.255.255.255", 9))
        except OSError:
            return ""
        address = ipaddress.ip_address(sock.getsockname()[0])
        return str(address) if address.is_private and not address.is_loopback else ""


async def test_of_several_addresses_only_permitted_ones_are_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A service in a private network may lead to others there, but not to this very machine."""
    if not (own := own_address()):
        pytest.skip("this machine has no private address beside loopback")
    with socket.create_server((own, 0)) as permitted:
        port = permitted.getsockname()[1]
        with socket.create_server(("127.0.0.1", port)) as refused:
            refused.setblocking(False)
            resolve(monkeypatch, "127.0.0.1", own)
            async with Transport("https://10.0.0.5", proxies={}, timeout_s=0.3) as way:
                with pytest.raises(Unavailable):
                    await way.open(new_request("link", f"https://mixed.example.net:{port}/x"))
            permitted.settimeout(5)
            permitted.accept()[0].close()
            with pytest.raises(BlockingIOError):
                refused.accept()


async def test_a_resolver_that_hangs_takes_no_thread_from_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Links to a name whose servers do not answer: other work in threads goes on."""
    answered = threading.Event()

    def getaddrinfo(
        host: Any, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0
    ) -> Any:
        if not flags & socket.AI_NUMERICHOST:
            answered.wait(30)
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    try:
        async with Transport(
            "https://api.example.com", proxies={}, timeout_s=0.1, max_connections=64
        ) as way:

            async def ask() -> None:
                with pytest.raises(Unavailable):
                    await way.open(new_request("link", "https://stalls.example.net/x"))

            async with trio.open_nursery() as nursery:
                for _ in range(64):
                    nursery.start_soon(ask)
            with trio.fail_after(20):
                assert await trio.to_thread.run_sync(lambda: 1) == 1
    finally:
        answered.set()


@pytest.mark.parametrize(
    "host", ["a" * 64 + ".example.net", "xn--", "xn--a.example.net", "xn--99999999999.net"]
)
async def test_a_redirect_to_what_is_no_name(host: str) -> None:
    """An error of the service's, in one sentence, and no fault of ours."""
    for url in (f"https://{host}/x", f"https://{host}/x?X-Amz-Expires=1800"):
        service = Service("redirect")
        service._url = lambda url=url: url  # type: ignore[method-assign]
        async with connected(service) as it:
            for _ in range(2):
                with pytest.raises(Malformed):
                    await it.read(0, 10)
            assert len(service.paths("/content")) == 2, "such a link is not kept"
