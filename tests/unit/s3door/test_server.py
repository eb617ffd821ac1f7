"""Whatever comes over a connection is answered or hung up on, and is nobody else's trouble."""

import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from unittest.mock import Mock

import pytest
import trio

from phonofs.s3door import connection, server
from phonofs.s3door.answers import Restoring
from phonofs.s3door.listener import Listener
from phonofs.s3door.request import Request
from phonofs.s3door.server import Opened, S3Door
from tests.support.authority import Authority
from tests.unit.s3door import signers
from tests.unit.s3door.signers import KEYS, signed
from tests.unit.s3door.tree import Tree

pytestmark = pytest.mark.real_clock

KEY = "us/2024/2024-01/2024-01-02/a"
TABLE = f"""
[[key]]
name = "batch"
access_key = "{signers.KEY.access_key}"
secret_key = "{signers.SECRET}"
"""
STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
CODE = re.compile(rb"<Code>(\w+)</Code>")


async def no_restore(region: str, id: str, days: int) -> None:
    raise AssertionError("nothing is archived")


@asynccontextmanager
async def opened(
    certificate: Path | None = None, keys: Path = Path("/nowhere")
) -> AsyncIterator[tuple[S3Door, int]]:
    """A door over a tree with one object, on a port of loopback."""
    sockets = await trio.open_tcp_listeners(0, host="127.0.0.1")
    listener = Listener("127.0.0.1", 0, keys, certificate)
    restoring = Restoring(no_restore, lambda region, id: False)
    made = Opened(listener, KEYS, listener.tls(), tuple(sockets))
    door = S3Door(made, "work", Tree([KEY]), restoring)
    async with trio.open_nursery() as nursery:
        await nursery.start(door.run)
        yield door, sockets[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


def wire(request: Request, *fields: bytes, body: bytes = b"", version: bytes = b"1.1") -> bytes:
    """Return a request as it is sent."""
    target = f"{request.path}?{request.query}" if request.query else request.path
    lines = [
        f"{request.method} {target} HTTP/".encode() + version,
        *(f"{name}: {value}".encode("latin-1") for name, value in request.headers),
        *fields,
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def buckets() -> bytes:
    """Return a request that is fine."""
    return wire(signed(path="/", at=datetime.now(UTC)))


async def said(port: int, sent: bytes, *, statuses: int = 1) -> tuple[list[int], bytes]:
    """Send this, then a good request; return the statuses, and what was received.

    Reads until as many answers came, or the door hung up.
    """
    received = b""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_send, stream, sent)
                while len(STATUS.findall(received)) < statuses:
                    data = await stream.receive_some()
                    if not data:
                        break
                    received += data
                nursery.cancel_scope.cancel()
    return [int(each) for each in STATUS.findall(received)], received


async def _send(stream: trio.SocketStream, data: bytes) -> None:
    try:
        await stream.send_all(data)
    except trio.BrokenResourceError:
        return


async def _for_ever(stream: trio.SocketStream) -> None:
    while True:
        await stream.send_all(b"x" * 100_000)


async def connected(door: S3Door, number: int) -> None:
    """Wait until so many clients are connected."""
    with trio.fail_after(20):
        while door.statistics()["connections"] != number:  # noqa: ASYNC110 (the door tells nobody)
            await trio.sleep(0.01)


async def test_requests_follow_each_other() -> None:
    async with opened() as (door, port):
        assert (await said(port, buckets() * 3, statuses=3))[0] == [200, 200, 200]
        assert door.statistics()["requests"] == 3


class Spawned(trio.abc.Instrument):
    """Counts the tasks that are started."""

    def __init__(self) -> None:
        self.count = 0

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        self.count += 1


async def test_an_answer_that_is_there_starts_no_task() -> None:
    """A client is watched only while its answer has to wait."""
    unsigned = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    spawned = Spawned()
    async with opened() as (_, port), await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(buckets())
        assert STATUS.match(await stream.receive_some())
        trio.lowlevel.add_instrument(spawned)
        for sent in (buckets(), unsigned, buckets(), unsigned):
            await stream.send_all(sent)
            with trio.fail_after(20):
                assert STATUS.match(await stream.receive_some())
        trio.lowlevel.remove_instrument(spawned)
    assert spawned.count == 0


SMUGGLED = b"0\r\n\r\n"


@pytest.mark.parametrize(
    "fields",
    [
        (b"Content-Length: 5", b"Transfer-Encoding: chunked"),
        (b"Transfer-Encoding: chunked", b"Content-Length: 5"),
        (b"Content-Length: 0", b"Content-Length: 5"),
        (b"Content-Length: +5",),
        (b"Content-Length: -5",),
        (b"Content-Length: 5, 6",),
        (b"Content-Length: " + b"9" * 30,),
        (b"Transfer-Encoding: chunked, identity",),
        (b"Transfer-Encoding : chunked",),
        (b"Transfer-Encoding: xchunked",),
        (b"Host: other",),
        (b"X: a\x00b",),
    ],
)
async def test_a_request_with_two_readings_is_refused_and_nothing_follows(
    fields: tuple[bytes, ...],
) -> None:
    """A proxy in front may have taken the other one, and the rest for another client's."""
    async with opened() as (_, port):
        sent = wire(signed(path="/", at=datetime.now(UTC)), *fields, body=SMUGGLED)
        statuses, received = await said(port, sent + buckets(), statuses=2)
        assert len(statuses) == 1
        assert statuses[0] >= 400
        assert b"\r\nConnection: close\r\n" in received


@pytest.mark.parametrize(
    ("method", "code"), [("PUT", b"MethodNotAllowed"), ("POST", b"EntityTooLarge")]
)
async def test_who_sends_a_long_body_is_told_why_it_is_refused(method: str, code: bytes) -> None:
    """A client sends the whole body before it reads; a reset would hide the answer from it."""
    async with opened() as (_, port):
        body = b"x" * 3_000_000
        request = signed(method, "/work/a", at=datetime.now(UTC))
        plain = wire(request, b"Content-Length: %d" % len(body), body=body)
        chunked = wire(
            request,
            b"Transfer-Encoding: chunked",
            body=b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body),
        )
        for sent in (plain, chunked):
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                await stream.send_all(sent)
                received = b""
                with trio.fail_after(20):
                    while data := await stream.receive_some():
                        received += data
            assert CODE.findall(received) == [code]


async def test_who_never_stops_sending_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "LINGER_S", 0.2)
    async with opened() as (door, port):
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        await stream.send_all(b"garbage\r\n\r\n")
        with trio.fail_after(20), pytest.raises(trio.BrokenResourceError):
            await _for_ever(stream)
        await stream.aclose()
        assert door.statistics()["errors"] == {"InvalidRequest": 1}


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01" + b"\x00" * 100,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 200_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /?a=%ff HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Basic YTpi\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n" + b"x: y\r\n" * 101 + b"\r\n",
        b"POST /work/a?restore HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999999\r\n\r\n",
    ],
    ids=lambda sent: sent[:30].decode("latin-1"),
)
async def test_garbage_is_an_error_of_the_client(sent: bytes) -> None:
    async with opened() as (door, port):
        statuses, _ = await said(port, sent)  # the first words of HTTP/2 are two requests
        assert statuses
        assert all(400 <= status < 500 for status in statuses)
        assert (await said(port, buckets()))[0] == [200]
        assert "InternalError" not in door.statistics()["errors"]


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /work/a?X-Amz-Signature=c0ffee\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization : AWS4-HMAC-SHA256 c0ffee\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: AWS4-HMAC-SHA256 c0ffee\r\n\r\n",
    ],
)
async def test_what_is_not_understood_is_not_repeated(
    sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """It may have a signature, which a log is not for."""
    async with opened() as (_, port):
        [status], received = await said(port, sent)
        assert status == 400
        assert b"c0ffee" not in received
        assert "c0ffee" not in caplog.text


async def test_a_wait_for_100_continue_comes_after_the_answers_before_it() -> None:
    """Also with some of them waiting: the words must not stand within another answer."""
    restore = signed("POST", "/work/a", {"restore": ""}, body=b"x", at=datetime.now(UTC))
    waiting = wire(restore, b"Expect: 100-continue", b"Content-Length: 1")
    async with opened() as (door, port):
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(buckets() * 5 + waiting)
            received = b""
            with trio.fail_after(20):
                while len(STATUS.findall(received)) < 6:
                    received += await stream.receive_some()
                assert [int(each) for each in STATUS.findall(received)] == [200] * 5 + [100]
                await stream.send_all(b"x")
                assert STATUS.findall(await stream.receive_some()) == [b"400"]
        assert door.statistics()["requests"] == 6


async def test_clients_that_vanish_anywhere_are_no_fault() -> None:
    """The log is checked for warnings by all tests."""
    sent = buckets() + wire(signed(path=f"/work/{KEY}", at=datetime.now(UTC)))
    async with opened() as (door, port):
        for cut in range(0, len(sent), 37):
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            await stream.send_all(sent[:cut])
            await trio.aclose_forcefully(stream)
        await connected(door, 0)


async def test_whoever_asks_for_nothing_keeps_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client that has been idle longest goes, not one that has just been answered."""
    monkeypatch.setattr(server, "CONNECTIONS_MAX", 4)
    async with opened() as (door, port):
        used = await trio.open_tcp_stream("127.0.0.1", port)
        others = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(3)]
        await connected(door, 4)
        with trio.fail_after(20):
            await used.send_all(buckets())
            assert STATUS.findall(await used.receive_some()) == [b"200"]
            for _ in range(3):
                assert (await said(port, buckets()))[0] == [200]
                await connected(door, 3)
                others.append(await trio.open_tcp_stream("127.0.0.1", port))
                await connected(door, 4)
            assert await others[0].receive_some() == b""
            await used.send_all(buckets())
            assert STATUS.findall(await used.receive_some()) == [b"200"]
        for each in (used, *others):
            await trio.aclose_forcefully(each)
        assert door.statistics()["turned_away"] == 0


@pytest.mark.expected_log("could not be served")
async def test_a_client_that_cannot_be_served_does_not_end_the_listener(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with opened() as (door, port):
        with monkeypatch.context() as short:
            short.setattr(server, "Connection", Mock(side_effect=MemoryError))
            assert await said(port, b"") == ([], b"")
        assert (await said(port, buckets()))[0] == [200]
        await connected(door, 0)


# TLS


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def certificate(authority: Authority, tmp_path: Path) -> Path:
    """The certificate of 127.0.0.1, with its private key."""
    authority.server("127.0.0.1")
    return tmp_path / "127.0.0.11.pem"


async def test_requests_come_over_tls(authority: Authority, certificate: Path) -> None:
    trusting = ssl.create_default_context(cafile=str(authority.file))
    async with opened(certificate) as (_, port):
        stream = await trio.open_ssl_over_tcp_stream(
            "127.0.0.1", port, https_compatible=True, ssl_context=trusting
        )
        with trio.fail_after(20):
            async with stream:
                await stream.send_all(buckets())
                assert STATUS.findall(await stream.receive_some()) == [b"200"]


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00"])
async def test_who_begins_no_tls_keeps_nobody_out(
    authority: Authority, certificate: Path, sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unfinished handshake has a descriptor, so it counts; it is given up for another one."""
    monkeypatch.setattr(server, "CONNECTIONS_MAX", 3)
    trusting = ssl.create_default_context(cafile=str(authority.file))
    async with opened(certificate) as (door, port):
        idle = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(12)]
        for each in idle:
            with suppress(trio.BrokenResourceError):
                await each.send_all(sent)
        with trio.fail_after(20):
            stream = await trio.open_ssl_over_tcp_stream(
                "127.0.0.1", port, https_compatible=True, ssl_context=trusting
            )
            await stream.send_all(buckets())
            assert STATUS.findall(await stream.receive_some()) == [b"200"]
        assert 1 <= door.statistics()["connections"] <= 3
        assert door.statistics()["turned_away"] == 0
        for each in (*idle, stream):
            await trio.aclose_forcefully(each)
        await connected(door, 0)


@pytest.mark.expected_log("stay as they were")
async def test_a_certificate_that_is_wrong_leaves_the_one_in_use(
    authority: Authority, certificate: Path, tmp_path: Path
) -> None:
    """So does a wrong file of keys; and both are used once they are right again."""
    trusting = ssl.create_default_context(cafile=str(authority.file))
    keys = tmp_path / "keys.toml"
    keys.touch(mode=0o600)
    right = certificate.read_bytes()
    authority.server("other")
    another = (tmp_path / "other1.pem").read_bytes()
    begin = b"-----BEGIN CERTIFICATE"
    not_its_key = another.partition(begin)[0] + begin + right.partition(begin)[2]

    async def answers(port: int) -> bool:
        stream = await trio.open_ssl_over_tcp_stream(
            "127.0.0.1", port, https_compatible=True, ssl_context=trusting
        )
        async with stream:
            await stream.send_all(buckets())
            return STATUS.findall(await stream.receive_some()) == [b"200"]

    with trio.fail_after(30):
        async with opened(certificate, keys) as (door, port):
            await door.reload()
            assert "no key in it" in str(door.statistics()["keys_error"])
            keys.write_text(TABLE)
            for wrong in (b"", right[: len(right) // 2], not_its_key):
                certificate.write_bytes(wrong)
                await door.reload()
                assert "--tls-cert" in str(door.statistics()["keys_error"])
                assert await answers(port)
            certificate.write_bytes(right)
            await door.reload()
            assert door.statistics()["keys_error"] == ""
            assert await answers(port)
