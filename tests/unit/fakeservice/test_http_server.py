"""The stand-in on real sockets: connections, and how they end."""

from contextlib import asynccontextmanager

import pytest
import trio
import trio.lowlevel
import trio.testing

from phonofs.errors import UsageError
from phonofs.fakeservice.faults import Faults, load
from phonofs.fakeservice.options import Options, options_from
from phonofs.fakeservice.routes import BUCKET
from phonofs.fakeservice.server import listen, serve
from tests.support.counted_service import Service
from tests.support.fakeservice_caller import few

pytestmark = pytest.mark.real_clock


@asynccontextmanager
async def connected(faults: str = "", **options):
    """A stand-in and a raw connection to its api origin."""
    plan = Faults(load(faults)) if faults else None
    async with (
        serve(Service(few(), Options(**options), plan)) as service,
        await trio.open_tcp_stream("127.0.0.1", port_of(service.url)) as stream,
    ):
        yield service, stream


def get(service: Service) -> bytes:
    """A request that needs no token: for a presigned URL of the api's origin."""
    path = f"/storage/us-east/{BUCKET}/content/EPS/customer/user/o0"
    url = service.presigned(path).removeprefix(service.url)
    return f"GET {url} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


async def receive(stream: trio.SocketStream) -> tuple[bytes, bytes]:
    """Head and body of one answer, the body as long as it says (or until the end)."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = await stream.receive_some()
        if not piece:
            return data, b""
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    while len(body) < length and (piece := await stream.receive_some()):
        body += piece
    return head, body


async def test_a_connection_serves_one_request_after_another():
    """Kept alive, also when two requests come in one packet."""
    async with connected() as (service, stream):
        await stream.send_all(get(service) * 2)
        first = await receive(stream)
        second = await receive(stream)
        assert first == second
        assert first[0].startswith(b"HTTP/1.1 200 OK")
        assert service.counters.requests["store"] == 2


async def test_head_has_no_body():
    """So that the next answer on the connection begins where it should."""
    async with connected() as (service, stream):
        await stream.send_all(get(service).replace(b"GET", b"HEAD") + get(service))
        data = b""
        while b"200 OK" not in data:
            data += await stream.receive_some()
        assert data.partition(b"\r\n\r\n")[2].startswith(b"HTTP/1.1 200 OK")


async def test_a_body_can_wait_for_a_word():
    """``Expect: 100-continue`` is answered, and the body read."""
    async with connected() as (_, stream):
        await stream.send_all(
            b"POST /-/faults HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n"
            b"Expect: 100-continue\r\n\r\n"
        )
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 100 ")
        await stream.send_all(b"{}")
        head, _ = await receive(stream)
        assert head.startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize("data", [b"nonsense\r\n\r\n", b"\x16\x03\x01", b"GET / HTTP/9\r\n\r\n"])
async def test_nonsense_is_answered_with_400_and_the_end(data):
    """Whatever is not HTTP."""
    async with connected() as (_, stream):
        await stream.send_all(data)
        await stream.send_eof()
        head, _ = await receive(stream)
        assert not head or head.startswith(b"HTTP/1.1 400 ")


async def test_a_body_that_is_too_long_is_answered_with_413_and_the_end():
    """It ends no other connection."""
    async with connected() as (service, stream):
        await stream.send_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999\r\n\r\n")
        assert (await receive(stream))[0].startswith(b"HTTP/1.1 413 ")
        async with await trio.open_tcp_stream("127.0.0.1", port_of(service.url)) as other:
            await other.send_all(get(service))
            assert (await receive(other))[0].startswith(b"HTTP/1.1 200 ")


async def test_a_cut_ends_the_connection_short():
    """Fewer bytes than the Content-Length, then the end."""
    async with connected('[[rule]]\nfail = "cut"\nafter = 10') as (service, stream):
        await stream.send_all(get(service))
        head, body = await receive(stream)
        assert head.startswith(b"HTTP/1.1 200 OK")
        assert len(body) == 10
        assert await stream.receive_some() == b""


async def test_a_reset_is_a_reset():
    """RST, not an orderly end."""
    async with connected('[[rule]]\nfail = "reset"') as (service, stream):
        await stream.send_all(get(service))
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()


async def test_an_overrun_sends_more_than_was_said():
    """More bytes than the Content-Length, then the end."""
    async with connected('[[rule]]\nfail = "overrun"\nby = 5') as (service, stream):
        await stream.send_all(get(service))
        head, body = await receive(stream)
        said = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        while piece := await stream.receive_some():
            body += piece
        assert len(body) == said + 5


@pytest.mark.parametrize(("after", "sent"), [(-1, None), (10, 10)])
async def test_a_body_that_ends_with_the_connection(after, sent):
    """No length is stated; it may end early, and nothing tells."""
    plan = f'[[rule]]\nfail = "unframed"\nafter = {after}\ncount = 1'
    async with connected(plan) as (service, stream):
        await stream.send_all(get(service))
        data = b""
        while piece := await stream.receive_some():
            data += piece
        head, _, body = data.partition(b"\r\n\r\n")
        assert b"content-length" not in head.lower()
        assert b"Connection: close" in head
        async with await trio.open_tcp_stream("127.0.0.1", port_of(service.url)) as other:
            await other.send_all(get(service))
            _, whole = await receive(other)
        assert body == whole[:sent]


async def test_a_stalled_answer_ends_when_its_client_goes():
    """No task stays behind."""
    async with serve(Service(few(), None, Faults(load('[[rule]]\nfail = "stall"')))) as service:
        await trio.testing.wait_all_tasks_blocked()
        idle = trio.lowlevel.current_statistics().tasks_living
        stream = await trio.open_tcp_stream("127.0.0.1", port_of(service.url))
        await stream.send_all(get(service))
        while not service.faults.fired["1:stall"]:
            await trio.lowlevel.checkpoint()
        assert trio.lowlevel.current_statistics().tasks_living > idle
        await stream.aclose()
        with trio.fail_after(20):
            while trio.lowlevel.current_statistics().tasks_living > idle:
                await trio.lowlevel.checkpoint()


async def test_an_error_in_the_block_comes_out_as_it_is():
    """Not within a group, so that a test sees its own failure."""
    with pytest.raises(KeyError):
        async with serve(Service(few())):
            raise KeyError


async def test_a_port_that_is_taken_is_named():
    """One sentence, no traceback."""
    async with serve(Service(few())) as service:
        port = port_of(service.url)
        with pytest.raises(UsageError, match=str(port)):
            listen(Service(few()), port)
    with pytest.raises(UsageError):
        listen(Service(few()), 80_000)


@pytest.mark.parametrize(
    "setting", ["content=x", "nothing=1", "content", "page_limit=x", "total=2", "latency_s=-1",
                "total=true", "latency_s=nan"],
)  # fmt: skip
def test_a_wrong_option_is_named(setting):
    """The name, the value, or what it may be."""
    with pytest.raises(UsageError, match=setting.partition("=")[0]):
        options_from([setting])


def test_options_from_texts():
    """Each kind of value."""
    made = options_from(["content=stream", "total=absent", "page_limit=7", "latency_s=0.5"])
    assert made == Options(content="stream", total="absent", page_limit=7, latency_s=0.5)
