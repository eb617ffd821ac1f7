"""How content comes: the ways, ranges, links, what answers promise."""

from typing import Any

import httpx
import pytest
import trio

from phonofs.errors import Archived, Changed, Gone, Malformed, Refused, ServiceError, Unavailable
from tests.support.service_world import (
    API,
    STORE,
    Connected,
    Service,
    cancelled_at,
    connected,
    ramp,
    record,
)

WAYS = ("range", "presign", "redirect", "stream")


@pytest.mark.parametrize("way", WAYS)
async def test_every_way_gives_the_right_bytes_and_is_found_out(way: str) -> None:
    """Whatever the way, a part is the part, and the way is known afterwards."""
    service = Service(way)
    async with connected(service) as it:
        assert it.client.delivery_method("uk") == ""
        assert it.client.seekable("uk") is None
        assert await it.read(100, 200) == (
            ramp(1000)[100:] if way == "stream" else ramp(1000)[100:200]
        )
        assert it.client.delivery_method("uk") == way
        assert it.client.seekable("uk") is (way != "stream")
        assert await it.read(0, None) == ramp(1000)


@pytest.mark.parametrize("way", ["presign", "redirect"])
async def test_the_token_goes_to_no_other_origin(way: str) -> None:
    """A presigned URL and a redirect are asked for without the token."""
    service = Service(way)
    async with connected(service) as it:
        await it.read(0, 10)
        await it.read(10, 20)
    for request in service.requests:
        assert ("authorization" in request.headers) == str(request.url).startswith(API)


async def test_the_whole_in_one_go_says_nothing_about_ranges() -> None:
    """A 200 for a range that covers a small object is taken, and the way stays open."""
    service = Service("stream")
    async with connected(service) as it:
        assert await it.read(0, 1000) == ramp(1000)
        assert await it.read(0, 5000) == ramp(1000)
        assert await it.read(0, None) == ramp(1000)
        assert it.client.delivery_method("uk") == ""
        assert len(service.paths("/content")) == 3, "no whole body is thrown away"


async def test_a_range_that_is_ignored_leads_to_presigned_urls() -> None:
    """One 200 for a part, then a URL, then ranges from the store: three requests, once."""
    service = Service("presign")
    async with connected(service) as it:
        assert await it.read(100, 200) == ramp(1000)[100:200]
        assert len(service.requests) == 1 + 3
        assert await it.read(300, 400) == ramp(1000)[300:400]
        assert len(service.requests) == 1 + 4, "the URL is used again"


@pytest.mark.parametrize("way", ["presign", "redirect"])
async def test_one_asks_for_the_url_and_the_others_wait(way: str) -> None:
    """Sixteen parts of one object need one URL."""
    service = Service(way)
    async with (
        connected(service, delivery_methods={"uk": way}) as it,
        trio.open_nursery() as nursery,
    ):
        for part in range(16):
            nursery.start_soon(it.read, part * 10, part * 10 + 10)
    assert service.urls == 1


@pytest.mark.expected_log("by way of presign failed")
@pytest.mark.parametrize("way", ["presign", "redirect"])
async def test_a_url_that_is_refused_is_renewed_once(way: str) -> None:
    """Expired before its time: a new one; the new one refused too: the other ways, then that is
    the answer.
    """
    service = Service(way)
    async with connected(service) as it:
        await it.read(0, 10)
        service.refused_urls = {f"{STORE}/o?X-Amz-Expires=1800&n=1"}
        assert await it.read(10, 20) == ramp(1000)[10:20]
        assert service.urls == 2
        service.refused_urls = {f"{STORE}/o?X-Amz-Expires=1800&n={n}" for n in range(9)}
        if way == "presign":  # ``/content`` itself streams
            assert (await it.read(20, 30))[:10] == ramp(1000)[20:30]
            assert service.urls == 3
            return
        with pytest.raises(Refused):
            await it.read(20, 30)
        assert service.urls <= 6, "two redirects, two links instead of them, and no more after that"


def _unreachable(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("no route", request=request)


@pytest.mark.parametrize("way", ["presign", "redirect"])
@pytest.mark.parametrize(
    "dead",
    [_unreachable, httpx.Response(302, headers={"Location": "ftp://x"})],
)
async def test_a_url_that_leads_nowhere_is_not_used_again(way: str, dead: object) -> None:
    """Its half hour of life would be as long an outage; the next try asks for another one."""
    service = Service(way)
    async with connected(service) as it:
        await it.read(0, 10)
        service.answers = [dead]
        with pytest.raises(ServiceError):
            await it.read(10, 20)
        assert service.urls == 1
        assert await it.read(10, 20) == ramp(1000)[10:20]
        assert service.urls == 2


async def test_a_url_is_not_used_to_its_very_end() -> None:
    """Shortly before it expires a new one is asked for."""
    service = Service("presign")
    async with connected(service) as it:
        await it.read(10, 20)
        await trio.sleep(1700)
        await it.read(10, 20)
        assert service.urls == 1
        await trio.sleep(50)
        await it.read(10, 20)
        assert service.urls == 2


async def test_ways_are_remembered_and_found_anew_when_they_fail() -> None:
    """A way from an earlier run is believed until the service gives nothing that way."""
    service = Service("range")
    async with connected(service, delivery_methods={"uk": "presign", "ca": "nonsense"}) as it:
        assert it.client.delivery_method("uk") == "presign"
        assert it.client.delivery_method("ca") == ""
        assert it.client.seekable("uk") is True
        assert await it.read(10, 20) == ramp(1000)[10:20]
        assert it.client.delivery_methods == {"uk": "range"}
    service = Service("range")
    async with connected(service, delivery_methods={"uk": "redirect"}) as it:
        assert await it.read(10, 20) == ramp(1000)[10:20]
        assert it.client.delivery_methods == {"uk": "range"}


async def test_one_ignored_range_does_not_change_the_way() -> None:
    """A single 200 in a region with ranges is used; three in a row are a change."""
    service = Service("range")
    async with connected(service) as it:
        await it.read(10, 20)
        for _ in range(2):
            service.answers = [httpx.Response(200, content=service.data)]
            assert await it.read(10, 20) == ramp(1000)[10:]
        assert it.client.delivery_method("uk") == "range"
        await it.read(10, 20)
        service.way = "presign"
        for _ in range(3):
            assert (await it.read(10, 20))[:10] == ramp(1000)[10:20]
        assert it.client.delivery_method("uk") == "presign"


async def test_other_content_is_changed() -> None:
    """A body goes on only with the same ETag, whether ranges are conditional or not."""
    service = Service("range")
    async with connected(service) as it:
        async with it.client.content(record(), 0, 10) as body:
            etag = body.etag
            assert body.total == 1000
        assert await it.read(10, 20, etag=etag) == ramp(1000)[10:20]
        service.etag = '"v2"'
        with pytest.raises(Changed):
            await it.read(20, 30, etag=etag)
        assert it.client.delivery_method("uk") == "range"


def partial(start: int, stop: int, total: int | str, data: bytes, **headers: str) -> httpx.Response:
    return httpx.Response(
        206, headers={"Content-Range": f"bytes {start}-{stop - 1}/{total}"} | headers, content=data
    )


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (partial(20, 30, 1000, b"x" * 10), Malformed),
        (partial(10, 30, 1000, b"x" * 20), Malformed),
        (partial(10, 20, 1000, b"x" * 5), Malformed),
        (partial(10, 20, 1000, b"x" * 10, **{"Content-Encoding": "x-other"}), Malformed),
        (httpx.Response(200, text="<html>", headers={"Content-Type": "text/html"}), Malformed),
        (httpx.Response(404), Gone),
        (httpx.Response(410), Gone),
        (httpx.Response(403), Refused),
        (httpx.Response(403, text="<Code>InvalidObjectState</Code>"), Archived),
        (httpx.Response(400), Malformed),
        (httpx.Response(500), Unavailable),
        (httpx.Response(503, headers={"Retry-After": "0"}), Unavailable),
        (httpx.Response(302), Malformed),
        (httpx.Response(302, headers={"Location": "http://store.example.net/x"}), Malformed),
        (httpx.Response(302, headers={"Location": "https://169.254.169.254/x"}), Malformed),
        (httpx.Response(302, headers={"Location": "https://localhost/x"}), Malformed),
    ],
)
async def test_answers_that_give_nothing(answer: httpx.Response, kind: type[Exception]) -> None:
    """One try, one error, no way learned, no slot kept."""
    service = Service("range")
    async with connected(service) as it:
        await it.keeper.token()
        service.answers = [answer]
        with pytest.raises(kind) as caught:
            await it.read(10, 20)
        assert "\n" not in str(caught.value)
        assert it.client.delivery_methods == {}


class Trickle(httpx.AsyncByteStream):
    """A body of chunks, each after a pause; the last pause may be for ever."""

    def __init__(self, *chunks: bytes, pause_s: float = 0, stalls: bool = False) -> None:
        self.chunks = chunks
        self.pause_s = pause_s
        self.stalls = stalls

    async def __aiter__(self) -> Any:
        for chunk in self.chunks:
            await trio.sleep(self.pause_s)
            yield chunk
        if self.stalls:
            await trio.sleep_forever()


async def drain(it: Connected, start: int, stop: int, got: list[bytes]) -> None:
    async with it.client.content(record(), start, stop) as body:
        async for chunk in body:
            got.append(bytes(chunk))


async def test_a_body_that_ends_early_is_unavailable_after_its_bytes() -> None:
    """The caller keeps what came and goes on from there."""
    service = Service("range")
    got: list[bytes] = []
    async with connected(service) as it:
        await it.keeper.token()
        headers = {"Content-Range": "bytes 10-19/1000"}
        service.answers = [httpx.Response(206, headers=headers, stream=Trickle(b"abc", b"", b"d"))]
        with pytest.raises(Unavailable, match="ended early"):
            await drain(it, 10, 20, got)
    assert got == [b"abc", b"d"]


async def test_a_body_that_is_too_long_is_malformed() -> None:
    """Nothing beyond the promise reaches the caller."""
    service = Service("range")
    got: list[bytes] = []
    async with connected(service) as it:
        await it.keeper.token()
        headers = {"Content-Range": "bytes 10-19/1000"}
        body = Trickle(b"123456", b"123456", b"7")
        service.answers = [httpx.Response(206, headers=headers, stream=body)]
        with pytest.raises(Malformed, match="longer"):
            await drain(it, 10, 20, got)
    assert got == [b"123456"]


async def test_a_shorter_object_than_its_record_says() -> None:
    """What is there comes, with the real total; beyond its end there is nothing."""
    service = Service("range", size=1000)
    async with connected(service) as it:
        async with it.client.content(record(size=5000), 900, 5000) as body:
            assert (body.start, body.stop, body.total) == (900, 1000, 1000)
            assert b"".join([bytes(chunk) async for chunk in body]) == ramp(1000)[900:]
        async with it.client.content(record(size=5000), 2000, 5000) as body:
            assert (body.start, body.stop, body.total) == (2000, 2000, 1000)
            assert [chunk async for chunk in body] == []


async def test_an_empty_object() -> None:
    """A range of nothing is a 416, and an empty body."""
    service = Service("range", size=0)
    async with connected(service) as it, it.client.content(record(size=0), 0, None) as body:
        assert (body.start, body.stop, body.total) == (0, 0, 0)
        assert [chunk async for chunk in body] == []


@pytest.mark.parametrize("hops", [5, 6])
async def test_redirects_are_counted(hops: int) -> None:
    """Five are followed, all without the token; then it is a loop."""
    service = Service("range")
    async with connected(service) as it:
        await it.keeper.token()
        service.answers = [
            httpx.Response(307, headers={"Location": f"{STORE}/hop{n}"}) for n in range(hops)
        ]
        if hops == 5:
            assert await it.read(10, 20) == ramp(1000)[10:20]
        else:
            with pytest.raises(Malformed, match="too often"):
                await it.read(10, 20)
    for request in service.requests[2:]:
        assert "authorization" not in request.headers
        assert request.headers["range"] == "bytes=10-19"


async def test_a_redirect_back_to_the_service_does_not_carry_the_token() -> None:
    """Not even then: what an answer names never gets it."""
    service = Service("range")
    async with connected(service) as it:
        await it.keeper.token()
        service.answers = [httpx.Response(302, headers={"Location": "/elsewhere"})]
        with pytest.raises(Unavailable, match="link"):
            await it.read(10, 20)
    elsewhere = [r for r in service.requests if r.url.path == "/elsewhere"]
    assert ["authorization" in request.headers for request in elsewhere] == [False]


@pytest.mark.parametrize("answer", ['"{}"', "{}", '{{"url": "{}"}}', '{{"presignedUrl": "{}"}}'])
async def test_every_shape_of_a_presigned_answer(answer: str) -> None:
    """An object, a JSON text, bare text."""
    service = Service("presign")
    async with connected(service, delivery_methods={"uk": "presign"}) as it:
        await it.keeper.token()
        text = answer.replace("{}", f"{STORE}/o?n=1").replace("{{", "{").replace("}}", "}")
        service.answers = [httpx.Response(200, text=text)]
        assert await it.read(10, 20) == ramp(1000)[10:20]
        assert await it.read(20, 30) == ramp(1000)[20:30]
        assert len(service.paths("presignUrl")) == 1


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(200, content=ramp(200_000)),
        httpx.Response(200, content=b"not a url"),
        httpx.Response(403),
        httpx.Response(405),
    ],
)
async def test_no_presigned_url_means_the_whole_is_streamed(answer: httpx.Response) -> None:
    """The parameter ignored, or refused: then ``/content`` once, from the first byte."""
    service = Service("stream")
    async with connected(service) as it:
        await it.keeper.token()
        service.answers = [lambda request: service.bytes(request, ranges=False), answer]
        async with it.client.content(record(), 100, 200) as body:
            assert (body.start, body.stop, body.total) == (0, 1000, 1000)
        assert it.client.delivery_method("uk") == "stream"
        assert "range" not in service.requests[-1].headers


async def test_an_outage_while_finding_out_teaches_nothing() -> None:
    """A 503 for the presigned URL is not a refusal of it."""
    service = Service("presign")
    async with connected(service) as it:
        await it.keeper.token()
        service.answers = [
            lambda request: service.bytes(request, ranges=False),
            httpx.Response(503),
        ]
        with pytest.raises(Unavailable):
            await it.read(100, 200)
        assert it.client.delivery_methods == {}
        assert await it.read(100, 200) == ramp(1000)[100:200]
        assert it.client.delivery_method("uk") == "presign"


async def test_a_stalled_body_is_given_up() -> None:
    """``timeout`` without a byte."""
    service = Service("range")

    async with connected(service, timeout_s=30) as it:
        await it.keeper.token()
        headers = {"Content-Range": "bytes 10-19/1000"}
        service.answers = [
            httpx.Response(206, headers=headers, stream=Trickle(b"abc", stalls=True))
        ]
        start = trio.current_time()
        with pytest.raises(Unavailable, match="30 s"):
            await it.read(10, 20)
        assert trio.current_time() - start == pytest.approx(30, abs=1)


async def test_a_dripping_body_is_given_up() -> None:
    """A byte every 5 s meets no timeout between bytes, and does not count as progress."""
    service = Service("range")

    async with connected(service, timeout_s=30) as it:
        await it.keeper.token()
        headers = {"Content-Range": "bytes 10-999/1000"}
        service.answers = [
            httpx.Response(206, headers=headers, stream=Trickle(*[b"a"] * 100, pause_s=5))
        ]
        start = trio.current_time()
        with pytest.raises(Unavailable, match="too slowly"):
            await it.read(10, None)
        assert trio.current_time() - start == pytest.approx(30, abs=1)


async def test_a_reader_that_pauses_is_not_a_slow_service() -> None:
    """Only the time spent waiting counts."""
    service = Service("range")

    async with connected(service, timeout_s=30) as it:
        await it.keeper.token()
        headers = {"Content-Range": "bytes 10-29/1000"}
        service.answers = [httpx.Response(206, headers=headers, stream=Trickle(*[b"a"] * 20))]
        async with it.client.content(record(), 10, 30) as body:
            async for _ in body:
                await trio.sleep(20)


async def test_cancelled_at_any_moment_nothing_stays_held() -> None:
    """Reads in all ways, cancelled after random times: all slots are free, no lock is kept."""
    for way in WAYS:
        service = Service(way)

        async def slow(request: httpx.Request, service: Service = service) -> httpx.Response:
            await trio.sleep(0.05)
            return await service(request)

        async def read(it: Connected, patience_s: float) -> None:
            with trio.move_on_after(patience_s):
                await it.read(10, 20)

        async with connected(slow, max_connections=3) as it:
            async with trio.open_nursery() as nursery:
                for n in range(200):
                    nursery.start_soon(read, it, n * 0.007)
            assert it.transport.slots.statistics()["in_use"] == 0
            assert it.client._contents._links._locks == {}
            assert (await it.read(10, 20))[:10] == ramp(1000)[10:20]


async def test_read_ahead_leaves_slots_to_readers() -> None:
    """With all of read-ahead's slots stalled, a reader still gets its bytes."""
    service = Service("range")
    release = trio.Event()

    async def handler(request: httpx.Request) -> httpx.Response:
        if request.headers.get("range") == "bytes=500-599":
            await release.wait()
        return await service(request)

    async with (
        connected(handler, max_connections=4, delivery_methods={"uk": "range"}) as it,
        trio.open_nursery() as nursery,
    ):
        for _ in range(10):
            nursery.start_soon(lambda: it.read(500, 600, urgent=False))
        await trio.sleep(1)
        start = trio.current_time()
        assert await it.read(0, 10) == ramp(1000)[:10]
        assert trio.current_time() == start
        release.set()


async def test_an_empty_part_is_a_fault_of_ours() -> None:
    """Nobody may ask for nothing."""
    async with connected(Service()) as it:
        for start, stop in ((5, 5), (-1, 5), (5, 4)):
            with pytest.raises(ValueError, match="empty part"):
                await it.read(start, stop)


async def test_something_else_than_the_object_teaches_nothing() -> None:
    """A 200 that is not as long as the object is given to the caller, who checks; no more."""
    service = Service("range")
    async with connected(service) as it:
        await it.keeper.token()
        service.answers = [httpx.Response(200, text="a gateway's page")]
        assert await it.read(10, 20) == b"a gateway's page"[10:]
        assert it.client.delivery_methods == {}
        assert it.client.seekable("uk") is None


async def test_stream_is_not_believed_from_an_earlier_run() -> None:
    """It is the worst way, so it is found out anew."""
    service = Service("range")
    async with connected(service, delivery_methods={"uk": "stream"}) as it:
        assert await it.read(10, 20) == ramp(1000)[10:20]
        assert it.client.delivery_method("uk") == "range"


@pytest.mark.parametrize("way", WAYS)
async def test_cancelled_at_every_checkpoint(way: str) -> None:
    """From the first to the last, in every way: no slot and no lock is kept."""
    step = 0
    more = True
    while more:
        step += 1
        service = Service(way)

        async def slow(request: httpx.Request, service: Service = service) -> httpx.Response:
            await trio.sleep(0.05)
            return await service(request)

        async with connected(slow, max_connections=2) as it:
            await it.keeper.token()
            more = await cancelled_at(step, lambda it=it: it.read(10, 20))
            assert it.transport.slots.statistics() == {
                "total": 2,
                "in_use": 0,
                "ahead_in_use": 0,
                "waiting": 0,
            }
            assert it.client._contents._links._locks == {}
            assert (await it.read(10, 20))[:10] == ramp(1000)[10:20]
    assert step > 2
