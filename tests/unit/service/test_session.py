"""The transport: deadlines, slots, what goes where, and its errors, by way of MockTransport."""

import ssl
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from phonofs.errors import Malformed, Unavailable, Untrusted, UsageError
from phonofs.service.session import Transport, new_request
from tests.support.service_world import API, STORE

SECRET_URL = f"{STORE}/o?X-Amz-Signature=canary"


class Fixed(httpx.Auth):
    """Sends the same token always."""

    async def async_auth_flow(
        self, request: httpx.Request
    ) -> AsyncGenerator[httpx.Request, httpx.Response]:
        request.headers["Authorization"] = "Bearer canary-token"
        yield request


def transport(handler: Any, **options: Any) -> Transport:
    return Transport(API, http=httpx.MockTransport(handler), **options)


def certificate_error() -> httpx.ConnectError:
    cause = ssl.SSLCertVerificationError("no")
    cause.verify_message = "self-signed certificate"
    error = httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED]")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (httpx.ConnectError("refused"), Unavailable, "cannot be reached"),
        (httpx.ProxyError("403"), Unavailable, "cannot be reached"),
        (certificate_error(), Untrusted, "self-signed certificate"),
        (httpx.ReadError("x"), Unavailable, "broke"),
        (httpx.RemoteProtocolError("x"), Unavailable, "broke"),
        (httpx.ReadTimeout("x"), Unavailable, "did not answer"),
        (httpx.LocalProtocolError("bad header canary"), Malformed, "cannot be sent"),
        (OSError(24, "too many open files"), Unavailable, "broke"),
        (trio.BrokenResourceError(), Unavailable, "broke"),
    ],
)
async def test_errors_are_ours(error: Exception, kind: type[Exception], words: str) -> None:
    """One sentence with the host, no query, no header; the slot is free, the error counted."""

    def handler(request: httpx.Request) -> httpx.Response:
        raise error

    async with transport(handler) as way:
        with pytest.raises(kind, match=words) as caught:
            await way.open(new_request("test", SECRET_URL))
        assert type(caught.value) is kind
        assert "canary" not in str(caught.value)
        assert "store.example.net" in str(caught.value)
        assert way.statistics()["slots"]["in_use"] == 0
        assert way.statistics()["errors"] == {kind.__name__: 1}


async def test_a_fault_of_ours_stays_one() -> None:
    """It is no outage, and keeps no slot."""

    def handler(request: httpx.Request) -> httpx.Response:
        raise KeyError("a bug")

    async with transport(handler) as way:
        with pytest.raises(KeyError):
            await way.open(new_request("test", API))
        assert way.slots.in_use == 0


async def test_the_head_has_a_deadline() -> None:
    """Whatever it waits for: the connection, TLS, the answer."""

    async def handler(request: httpx.Request) -> httpx.Response:
        await trio.sleep_forever()
        raise AssertionError

    async with transport(handler, timeout_s=30) as way:
        start = trio.current_time()
        with pytest.raises(Unavailable, match="within 30 s"):
            await way.open(new_request("test", API))
        assert trio.current_time() - start == 30
        assert way.slots.in_use == 0


async def test_the_token_goes_to_the_service_only() -> None:
    """Asking another origin with it is a fault of ours, found before anything is sent."""
    asked = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200)

    async with transport(handler) as way:
        await way.request(new_request("a", f"{API}/x"), limit_bytes=10, auth=Fixed())
        await way.request(new_request("b", SECRET_URL), limit_bytes=10)
        for url in (SECRET_URL, "https://api.example.com:444/x", "http://api.example.com/x"):
            with pytest.raises(RuntimeError, match="stays with the service"):
                await way.open(new_request("c", url), auth=Fixed())
    assert ["authorization" in request.headers for request in asked] == [True, False]
    assert ["check_address" in request.extensions for request in asked] == [False, True]


OPTIMIZED = """
import httpx, trio
from tests.unit.service.test_session import new_request, Fixed, SECRET_URL, transport

async def main():
    asked = []
    async with transport(lambda request: asked.append(request) or httpx.Response(200)) as way:
        try:
            await way.open(new_request("c", SECRET_URL), auth=Fixed())
        except RuntimeError as error:
            print(error)
    print([request.headers.get("authorization") for request in asked])

trio.run(main)
"""


def test_the_token_goes_to_the_service_only_however_python_is_run() -> None:
    """Without assertions too."""
    command = [sys.executable, "-O", "-c", OPTIMIZED]
    folder = Path(__file__).parents[3]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    assert done.stdout == "the token stays with the service\n[]\n"


async def test_a_whole_answer_has_a_deadline_and_a_limit() -> None:
    """One that drips on for ever ends after ``timeout``; one that is too long at its limit."""

    class Endless(httpx.AsyncByteStream):
        def __init__(self, chunk: bytes, pause_s: float) -> None:
            self.chunk, self.pause_s = chunk, pause_s

        async def __aiter__(self) -> Any:
            while True:
                await trio.sleep(self.pause_s)
                yield self.chunk

    answers = [Endless(b"x" * 10_000, 1), Endless(b"x" * 1000, 0)]

    def handler(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, stream=answers.pop(0))

    async with transport(handler, timeout_s=30) as way:
        start = trio.current_time()
        with pytest.raises(Unavailable, match="too slowly"):
            await way.request(new_request("test", API), limit_bytes=10**9)
        assert trio.current_time() - start == 30
        with pytest.raises(Malformed, match="too long"):
            await way.request(new_request("test", API), limit_bytes=10_000)
        assert way.slots.in_use == 0


async def test_closing_has_a_deadline_and_is_shielded() -> None:
    """A TLS stream may wait on the other side for ever; the slot is free after 2 s."""

    class Stuck(httpx.AsyncByteStream):
        async def __aiter__(self) -> Any:
            yield b"x"

        async def aclose(self) -> None:
            await trio.sleep_forever()

    async with transport(lambda request: httpx.Response(200, stream=Stuck())) as way:
        start = trio.current_time()
        with trio.CancelScope() as scope:
            async with aclosing(await way.open(new_request("test", API))):
                scope.cancel()
        assert trio.current_time() - start == pytest.approx(2, abs=0.1)
        assert way.slots.in_use == 0


async def test_a_slot_is_held_until_the_body_is_closed() -> None:
    """And closing twice gives it back once."""
    async with transport(
        lambda request: httpx.Response(200, content=b"x"), max_connections=1
    ) as way:
        stream = await way.open(new_request("test", API))
        with trio.move_on_after(5) as scope:
            await way.open(new_request("test", API))
        assert scope.cancelled_caught
        assert way.slots.in_use == 1
        await stream.aclose()
        await stream.aclose()
        assert way.slots.in_use == 0


@pytest.mark.parametrize("url", ["http://api.example.com", "api.example.com", ""])
def test_the_service_is_https(url: str) -> None:
    """There is no switch to turn it off."""
    with pytest.raises(UsageError):
        Transport(url)


def test_certificates_are_always_verified() -> None:
    """The one context demands a certificate and its name, TLS 1.2 at least."""
    context = Transport(API)._context
    assert context is not None
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


async def test_a_proxy_of_the_environment_is_used_with_httpx(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By way of httpx's own transport, once for each proxy; this machine is reached directly."""
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "store.example.net")
    async with Transport(API) as way:
        first = way._transport("http://127.0.0.1:9")
        assert isinstance(first, httpx.AsyncHTTPTransport)
        assert way._transport("http://127.0.0.1:9") is first
        assert not isinstance(way._transport(None), httpx.AsyncHTTPTransport)
    async with Transport(API, proxies={"https": "ftp://x"}) as way:
        with pytest.raises(UsageError, match="proxy"):
            await way.open(new_request("test", API))
        assert way.slots.in_use == 0
