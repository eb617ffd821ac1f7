"""Both transports over real sockets: the same answers, the same errors, connections reused.

A scripted server on loopback says what is sent; the clock is real, and nothing takes long.
"""

import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
import trio.lowlevel
import trio.testing

from phonofs.errors import Malformed, ServiceError, Unavailable, Untrusted
from phonofs.service import connection as connections
from phonofs.service.http11 import Http11Transport
from phonofs.service.session import Transport, new_request
from phonofs.service.streaming_response import stream_of
from tests.support.service_world import cancelled_at, plain_httpx, ramp

pytestmark = pytest.mark.real_clock

# httpcore leaves the generators of a body that was not read to its end to the collector.
httpcore_litter = pytest.mark.filterwarnings(
    "ignore:.*async_generator:pytest.PytestUnraisableExceptionWarning"
)

both = pytest.mark.parametrize("fast", [True, False], ids=["wire", "httpx"])

OK = b"HTTP/1.1 200 OK\r\n"


class Server:
    """Answers each request with what ``answer(request number)`` gives.

    Bytes are sent as they are; None closes the connection without a word; a tuple of bytes is
    sent, and then the connection is closed; ``stall`` in place of an answer waits for the end.
    """

    def __init__(self, answer: Callable[[int], Any], context: ssl.SSLContext | None = None) -> None:
        self.answer = answer
        self.context = context
        self.connections = 0
        self.open = 0
        self.requests: list[bytes] = []
        self.port = 0

    @property
    def url(self) -> str:
        return f"http{'s' if self.context else ''}://localhost:{self.port}"

    async def left(self) -> None:
        """Wait until all connections are closed; TooSlowError if one stays open."""
        with trio.fail_after(20):
            while self.open:  # noqa: ASYNC110 - connections are counted only
                await trio.sleep(0.01)

    async def serve(self, raw: trio.SocketStream) -> None:
        self.connections += 1
        self.open += 1
        stream: Any = raw
        try:
            if self.context is not None:
                stream = trio.SSLStream(raw, self.context, server_side=True, https_compatible=True)
            while await self._exchange(stream):
                pass
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            self.open -= 1
            await trio.aclose_forcefully(stream)

    async def _exchange(self, stream: Any) -> bool:
        head = b""
        while not head.endswith(b"body" if head.startswith(b"POST") else b"\r\n\r\n"):
            data = await stream.receive_some(65536)
            if not data:
                return False
            head += data
        self.requests.append(head)
        answer = self.answer(len(self.requests))
        if answer is None:
            return False
        if answer == "stall":
            return bool(await stream.receive_some(1))
        for part in answer if isinstance(answer, tuple) else (answer,):
            await stream.send_all(part)
        return not isinstance(answer, tuple)


@asynccontextmanager
async def serving(
    answer: Callable[[int], Any], context: ssl.SSLContext | None = None
) -> AsyncIterator[Server]:
    server = Server(answer, context)
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        server.port = listeners[0].socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, server.serve, listeners)
        with trio.fail_after(20):
            yield server
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def asking(server: Server, fast: bool, **options: Any) -> AsyncIterator[Transport]:
    context = options.pop("context", None) or ssl.create_default_context()
    options = {"timeout_s": 5.0, "proxies": {}} | options
    http = None if fast else plain_httpx(context, options.get("max_connections", 16))
    async with Transport(server.url, http=http, context=context, **options) as way:
        yield way
        assert way.slots.in_use == 0


async def get(way: Transport, server: Server, **ask: Any) -> tuple[int, bytes]:
    response, body = await way.request(
        new_request("test", f"{server.url}/x?q=1", **ask), limit_bytes=1 << 26
    )
    return response.status_code, body


def sized(body: bytes, headers: bytes = b"", status: bytes = OK) -> bytes:
    return status + headers + b"Content-Length: %d\r\n\r\n" % len(body) + body


def chunked(*chunks: bytes) -> bytes:
    parts = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in (*chunks, b""))
    return OK + b"Transfer-Encoding: chunked\r\n\r\n" + parts


BIG = ramp(3_000_001)


@both
@pytest.mark.parametrize("size", [0, 1, 16_000, 16_384, 16_385, 3_000_001])
async def test_bodies_of_known_length(fast: bool, size: int) -> None:
    """Every size comes whole, over one connection that is kept."""
    async with serving(lambda n: sized(BIG[:size])) as server, asking(server, fast) as way:
        for _ in range(3):
            assert await get(way, server) == (200, BIG[:size])
        assert server.connections == 1


@both
async def test_other_bodies(fast: bool) -> None:
    """Chunked, without a body, after an interim answer; all keep the connection."""
    answers = [
        chunked(BIG[:100_000], b"x", BIG[:70_000]),
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" + sized(b"after"),
        chunked(),
        sized(b"denied", status=b"HTTP/1.1 403 Forbidden\r\n"),
    ]
    async with serving(lambda n: answers[n - 1]) as server, asking(server, fast) as way:
        assert await get(way, server) == (200, BIG[:100_000] + b"x" + BIG[:70_000])
        assert await get(way, server) == (204, b"")
        assert await get(way, server) == (200, b"after")
        assert await get(way, server) == (200, b"")
        assert await get(way, server) == (403, b"denied")
        assert server.connections == 1


@both
async def test_a_body_until_the_end_of_the_connection(fast: bool) -> None:
    """Without a length the end of the connection is the end; the next request has a new one."""
    answers: list[Any] = [(OK + b"\r\n" + BIG,), sized(b"x", b"Connection: close\r\n"), sized(b"y")]
    async with serving(lambda n: answers[n - 1]) as server, asking(server, fast) as way:
        assert await get(way, server) == (200, BIG)
        assert await get(way, server) == (200, b"x")
        assert await get(way, server) == (200, b"y")
        assert server.connections == 3


@both
async def test_a_request_is_sent_as_it_is(fast: bool) -> None:
    """Method, target with its query, headers, body; nothing compressed is asked for."""
    async with serving(lambda n: sized(b"")) as server, asking(server, fast) as way:
        await get(way, server, method="POST", headers={"X-Y": "z"}, content=b"the body")
    head = server.requests[0].lower()
    assert head.startswith(b"post /x?q=1 http/1.1\r\n")
    assert b"\r\naccept-encoding: identity\r\n" in head
    assert b"\r\nx-y: z\r\n" in head
    assert b"\r\ncontent-length: 8\r\n" in head
    assert b"\r\nhost: localhost:%d\r\n" % server.port in head
    assert head.endswith(b"\r\n\r\nthe body")


@both
@pytest.mark.parametrize(
    "answer",
    [
        (OK + b"Content-Length: 100\r\n\r\nshort",),
        (OK + b"Content-Length: 100000\r\n\r\n" + BIG[:60_000],),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nab",),
        (OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nab",),
        (OK + b"Content-Le",),
        (b"SSH-2.0-OpenSSH\r\n\r\n",),
        (OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",),
        (OK + b"Content-Length: -5\r\n\r\nab",),
        (OK + b"X: " + b"y" * 200_000 + b"\r\n\r\n",),
        None,
    ],
)
async def test_what_breaks_is_unavailable(fast: bool, answer: Any) -> None:
    """Cut bodies, cut heads, no HTTP: an error, never a shorter body; nothing stays open."""
    async with serving(lambda n: answer) as server:
        async with asking(server, fast) as way:
            with pytest.raises(Unavailable):
                await get(way, server)
        await server.left()


@both
async def test_a_reset_is_unavailable(fast: bool) -> None:
    """Nobody listens at all."""
    async with serving(lambda n: None) as server:
        pass
    async with asking(server, fast) as way:
        with pytest.raises(
            Unavailable, match=r"localhost cannot be reached \(Connection refused\)"
        ):
            await get(way, server)


@both
@httpcore_litter
async def test_a_body_not_read_to_its_end_closes_its_connection(fast: bool) -> None:
    """What is left of it never gets into the next answer."""
    async with serving(lambda n: sized(BIG)) as server, asking(server, fast) as way:
        for chunks in (0, 1, 2):
            async with aclosing(await way.open(new_request("test", server.url))) as stream:
                for _ in range(chunks):
                    assert await anext(stream_of(stream))
        assert await get(way, server) == (200, BIG)
        assert server.connections == 4


@both
@httpcore_litter
async def test_cancelled_at_any_moment_connections_are_closed_or_whole(fast: bool) -> None:
    """Hundreds of cancelled reads; then every answer is still the right one."""

    async def read(way: Transport, server: Server, patience_s: float) -> None:
        with trio.move_on_after(patience_s):
            assert (await get(way, server))[1] in (BIG[:300_000], BIG[1:200_001])

    def answer(n: int) -> bytes:
        return sized(BIG[:300_000]) if n % 2 else chunked(BIG[1:100_001], BIG[100_001:200_001])

    async with serving(answer) as server:
        async with asking(server, fast, max_connections=4) as way:
            async with trio.open_nursery() as nursery:
                for n in range(200):
                    nursery.start_soon(read, way, server, n * 0.0005)
            for _ in range(8):
                await read(way, server, 5)
            assert way.slots.statistics()["waiting"] == 0
        await server.left()  # leaving the transport closes every connection


@both
@httpcore_litter
async def test_a_stalled_answer_ends_with_the_timeout(fast: bool) -> None:
    """Before the head, and within the body."""
    answers = ["stall", OK + b"Content-Length: 100\r\n\r\nabc"]
    async with (
        serving(lambda n: answers[n - 1]) as server,
        asking(server, fast, timeout_s=0.2) as way,
    ):
        for _ in answers:
            with pytest.raises(Unavailable, match=r"0\.2 s|too slowly"):
                await get(way, server)


@both
async def test_connections_are_shared_out(fast: bool) -> None:
    """Sixteen at a time use four slots, four connections, again and again."""
    async with serving(lambda n: sized(b"x" * 1000)) as server:
        async with asking(server, fast, max_connections=4) as way, trio.open_nursery() as nursery:
            for _ in range(40):
                nursery.start_soon(get, way, server)
        assert server.connections <= 4


@both
async def test_a_body_left_at_its_last_byte_keeps_its_connection(fast: bool) -> None:
    """Who knows the length does not ask for the end: it is there all the same."""
    async with serving(lambda n: sized(BIG)) as server, asking(server, fast) as way:
        for _ in range(3):
            async with aclosing(await way.open(new_request("test", f"{server.url}/x"))) as body:
                left = len(BIG)
                while left:
                    left -= len(await anext(stream_of(body)))
        assert server.connections == 1


async def test_kept_connections_count_whomever_they_lead_to() -> None:
    """A new one to another server takes the place of the one that was idle longest."""
    async with (
        serving(lambda n: sized(b"x")) as one,
        serving(lambda n: sized(b"y")) as other,
        asking(one, True, max_connections=2) as way,
    ):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(get, way, one)
            nursery.start_soon(get, way, one)
        assert one.open == 2
        assert await get(way, other) == (200, b"y")
        with trio.fail_after(20):
            while one.open + other.open > 2:
                await trio.lowlevel.checkpoint()
        assert await get(way, one) == (200, b"x")
        assert one.connections + other.connections == 3


async def test_a_kept_connection_that_was_closed_is_noticed() -> None:
    """By looking before, or by one more try on a new connection: nobody sees an error."""
    answers = iter([sized(b"one"), None, sized(b"two"), (sized(b"three"),), sized(b"four")])
    async with serving(lambda n: next(answers)) as server, asking(server, True) as way:
        assert await get(way, server) == (200, b"one")
        assert await get(way, server) == (200, b"two"), "the server closed without a word"
        assert await get(way, server) == (200, b"three")
        await trio.sleep(0.02)
        assert await get(way, server) == (200, b"four"), "it was closed while idle"
        assert server.connections == 3
        assert len(server.requests) == 5


async def test_what_must_not_go_twice_has_a_new_connection() -> None:
    """A POST never meets a connection that may be dead."""
    async with serving(lambda n: sized(b"x")) as server, asking(server, True) as way:
        await get(way, server)
        await get(way, server, method="POST", content=b"body")
        assert server.connections == 2


async def test_a_new_connection_that_fails_is_not_tried_again() -> None:
    """One more try is for kept ones only."""
    async with serving(lambda n: None) as server, asking(server, True) as way:
        with pytest.raises(Unavailable):
            await get(way, server)
        assert len(server.requests) == 1


async def test_bytes_after_the_end_spoil_a_connection() -> None:
    """An answer that nobody asked for is never taken for the next one's."""
    answers = [sized(b"one") + sized(b"false"), sized(b"two"), chunked(b"x") + b"junk", sized(b"3")]
    async with serving(lambda n: answers[n - 1]) as server, asking(server, True) as way:
        assert await get(way, server) == (200, b"one")
        assert await get(way, server) == (200, b"two")
        assert await get(way, server) == (200, b"x")
        assert await get(way, server) == (200, b"3")
        assert server.connections == 3


async def test_idle_connections_expire() -> None:
    """And no more are kept than there are slots."""
    async with serving(lambda n: sized(b"x")) as server:
        wire = Http11Transport(ssl.create_default_context(), most=2, keep_alive_s=0.5)

        async def one() -> None:
            response = await wire.handle_async_request(httpx.Request("GET", server.url))
            async for _ in response.stream:  # type: ignore[union-attr]
                pass

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(one)
        assert wire.idle() == 2
        await trio.sleep(0.6)
        await one()
        assert wire.idle() == 1
        assert server.connections == 6
        await wire.aclose()
        assert wire.idle() == 0


async def test_the_body_is_views_of_one_buffer() -> None:
    """Nothing is copied on the way: the views share their memory."""
    async with serving(lambda n: sized(BIG)) as server, asking(server, True) as way:
        async with aclosing(await way.open(new_request("test", server.url))) as stream:
            chunks = [
                (id(chunk.obj), len(chunk), chunk)
                async for chunk in stream_of(stream)
                if isinstance(chunk, memoryview)
            ]
        assert len({memory for memory, _, _ in chunks}) == 1
        assert max(size for _, size, _ in chunks) <= connections.BUFFER_BYTES
        for _, _, kept in chunks[:-1]:
            with pytest.raises(
                ValueError, match="released"
            ):  # never the bytes of what came after it
                bytes(kept)


@pytest.mark.parametrize("kind", ["length", "chunked", "close"])
async def test_bodies_received_by_turns_do_not_mix(kind: str) -> None:
    """All connections receive into one buffer; what was passed on is as it came."""
    contents = [BIG, BIG[::-1], bytes(len(BIG))]

    def answer(number: int) -> Any:
        body = contents[number - 1]
        if kind == "close":
            return (OK + b"\r\n" + body,)
        pieces = [body[at : at + 300_000] for at in range(0, len(body), 300_000)]
        return sized(body) if kind == "length" else chunked(*pieces)

    async with serving(answer) as server, asking(server, True) as way:
        opened = [await way.open(new_request("test", server.url)) for _ in contents]
        got = [bytearray() for _ in contents]
        while any(len(body) < len(BIG) for body in got):
            for response, body in zip(opened, got, strict=True):
                if len(body) < len(BIG):
                    body += await anext(stream_of(response))
        assert got == contents
        for response in opened:
            await response.aclose()


async def test_another_server_is_looked_at_before_anything_is_sent() -> None:
    """A public name that turns out to be an address in here is refused."""
    async with serving(lambda n: sized(b"internal")) as server, asking(server, True) as way:
        way.targets._local = False
        with pytest.raises(Malformed, match="private address"):
            await way.request(
                new_request("test", f"http://127.0.0.1:{server.port}/"), limit_bytes=10
            )
        assert server.requests == []


@pytest.mark.parametrize("others", [True, False])
async def test_an_address_of_a_family_that_the_system_lacks(
    monkeypatch: pytest.MonkeyPatch, others: bool
) -> None:
    """As where IPv6 is switched off: the next address is tried, and without one it is away."""
    x25 = (9, socket.SOCK_STREAM, 0, "", ("0", 0))  # AF_X25, which hardly any system has
    async with serving(lambda n: sized(b"here")) as server, asking(server, True) as way:
        real = (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", server.port))
        found = [x25, real] if others else [x25]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **options: found)
        if others:
            assert await get(way, server) == (200, b"here")
        else:
            with pytest.raises(Unavailable, match="cannot be reached"):
                await get(way, server)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a key and a certificate for localhost that nobody trusts."""
    folder = tmp_path_factory.mktemp("tls")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    command += " -keyout key.pem -out cert.pem -subj /CN=localhost"
    command += " -addext subjectAltName=DNS:localhost"
    try:
        subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl is missing (package openssl)")
    return folder


def server_side(folder: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context


@both
async def test_over_tls(fast: bool, certificate: Path) -> None:
    """Known length, chunked, reuse; the certificate is verified."""
    trusting = ssl.create_default_context(cafile=str(certificate / "cert.pem"))
    answers = [sized(BIG), chunked(BIG[:99_999]), sized(BIG[:5])]
    async with (
        serving(lambda n: answers[n - 1], server_side(certificate)) as server,
        asking(server, fast, context=trusting) as way,
    ):
        assert await get(way, server) == (200, BIG)
        assert await get(way, server) == (200, BIG[:99_999])
        assert await get(way, server) == (200, BIG[:5])
        assert server.connections == 1


@both
async def test_a_certificate_nobody_trusts(fast: bool, certificate: Path) -> None:
    """It is said so, with the remedy; nothing is sent."""
    async with serving(lambda n: sized(b"x"), server_side(certificate)) as server:
        async with asking(server, fast) as way:
            with pytest.raises(Untrusted, match="trust store"):
                await get(way, server)
        assert server.requests == []


@both
async def test_a_server_without_tls(fast: bool) -> None:
    """The reason is in the sentence."""

    http = None if fast else plain_httpx()

    async def answer(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some(1)
            await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with (
        trio.open_nursery() as nursery,
        Transport("https://localhost", http=http, timeout_s=5, proxies={}) as way,
    ):
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, answer, listeners)
        url = f"https://localhost:{listeners[0].socket.getsockname()[1]}/x"
        with pytest.raises(Unavailable, match=r"cannot be reached \(TLS: "):
            await way.request(new_request("test", url), limit_bytes=10)
        nursery.cancel_scope.cancel()


@both
async def test_a_server_that_stalls_in_the_handshake(fast: bool) -> None:
    """It is given up, and its connection closed.

    By httpcore's own timeout, a twentieth ahead of ours: cancelled, it would leave it open. That
    one begins with the handshake, so no name is looked up before, which may take longer.
    """
    timeout_s = 0.2 if fast else 1.0
    http = None if fast else plain_httpx()
    async with serving(lambda n: sized(b"x")) as server:
        url = f"https://127.0.0.1:{server.port}"
        async with Transport(url, http=http, timeout_s=timeout_s, proxies={}) as way:
            with pytest.raises(Unavailable, match="did not answer"):
                await way.request(new_request("test", f"{url}/x"), limit_bytes=10)
        await server.left()


@both
async def test_a_certificate_of_another_name(fast: bool, certificate: Path) -> None:
    """Trusted, but not for this host."""
    trusting = ssl.create_default_context(cafile=str(certificate / "cert.pem"))
    async with serving(lambda n: sized(b"x"), server_side(certificate)) as server:
        http = None if fast else plain_httpx(trusting)
        async with Transport("https://127.0.0.1", http=http, context=trusting, proxies={}) as way:
            url = f"https://127.0.0.1:{server.port}/x"
            with pytest.raises(Untrusted):
                await way.request(new_request("test", url), limit_bytes=10)
        assert server.requests == []


async def test_a_cut_over_tls_is_no_end(certificate: Path) -> None:
    """A body without a length needs TLS's own farewell; without it, it may have been cut."""
    trusting = ssl.create_default_context(cafile=str(certificate / "cert.pem"))
    async with (
        serving(lambda n: (OK + b"\r\n" + BIG[:50_000],), server_side(certificate)) as server,
        asking(server, True, context=trusting) as way,
    ):
        with pytest.raises(ServiceError):
            await get(way, server)


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("kept", [False, True], ids=["new", "kept"])
async def test_cancelled_at_every_checkpoint(secure: bool, kept: bool, certificate: Path) -> None:
    """While connecting, in the handshake, the head, the body: nothing is left half read."""
    trusting = ssl.create_default_context(cafile=str(certificate / "cert.pem"))
    context = server_side(certificate) if secure else None
    async with serving(lambda n: sized(BIG[:400_000]), context) as server:
        step, more = 0, True
        while more:
            step += 1
            async with asking(server, True, context=trusting) as way:
                if kept:
                    await get(way, server)
                more = await cancelled_at(step, lambda way=way: get(way, server))
                assert way.slots.in_use == 0
                assert await get(way, server) == (200, BIG[:400_000])
        await server.left()
        assert step > 2


async def test_a_slot_is_free_when_the_last_byte_has_come() -> None:
    """Whoever took the body in has the bytes still, though another uses the connection by now."""
    bodies = [ramp(50_000), b"x" * 50_000]
    async with (
        serving(lambda n: sized(bodies[n - 1])) as server,
        asking(server, True, max_connections=1) as way,
    ):
        stream = await way.open(new_request("test", server.url))
        chunks = []
        while sum(map(len, chunks)) < len(bodies[0]):
            assert way.slots.in_use == 1
            chunks.append(await anext(stream_of(stream)))
        assert way.slots.in_use == 0
        assert await get(way, server) == (200, bodies[1])
        assert bytes(chunks[-1]) == bodies[0][-len(chunks[-1]) :]
        with pytest.raises(StopAsyncIteration):
            await anext(stream_of(stream))
        await stream.aclose()
        assert server.connections == 1


@pytest.mark.parametrize("cut", range(0, 120, 7))
async def test_a_head_in_two_pieces(cut: int) -> None:
    """Wherever it is cut, what h11 reads of it then is the same answer."""
    answer = sized(b"the body", b"Content-Type: text/plain\r\nETag: x\r\n")
    async with (
        serving(lambda n: (answer[:cut], answer[cut:])) as server,
        asking(server, True) as way,
    ):
        assert await get(way, server) == (200, b"the body")
