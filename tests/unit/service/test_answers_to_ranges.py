"""What an answer says of its range and its length, and what becomes of links that are refused."""

from typing import Any

import httpx
import pytest
import trio

from phonofs.errors import Malformed, Refused, ServiceError
from tests.support.service_world import STORE, Connected, Service, connected, ramp, record


@pytest.mark.parametrize("unit", ["Bytes", "BYTES", "bytes"])
async def test_range_units_are_case_insensitive(unit: str) -> None:
    """RFC 9110, 14.1: also in the 416 that says how long the object is."""
    service = Service("range")
    async with connected(service) as it:
        await it.keeper.token()
        part = {"Content-Range": f"{unit} 10-19/1000"}
        nothing = {"Content-Range": f"{unit} */1000"}
        service.answers = [
            httpx.Response(206, headers=part, content=ramp(1000)[10:20]),
            httpx.Response(416, headers=nothing),
        ]
        assert await it.read(10, 20) == ramp(1000)[10:20]
        async with it.client.content(record(size=5000), 2000, 3000) as body:
            assert (body.start, body.stop, body.total) == (2000, 2000, 1000)


async def test_a_200_with_a_content_range_is_what_it_says() -> None:
    """Some servers answer a range so; its length is that of the part and not of the object."""
    service = Service("range")
    async with connected(service) as it:
        await it.keeper.token()
        headers = {"Content-Range": "bytes 0-99/1000"}
        service.answers = [httpx.Response(200, headers=headers, content=ramp(100))]
        async with it.client.content(record(), 0, 100) as body:
            assert (body.start, body.stop, body.total) == (0, 100, 1000)
            assert b"".join([bytes(chunk) async for chunk in body]) == ramp(100)
        headers = {"Content-Range": "bytes 10-19/1000"}
        service.answers = [httpx.Response(200, headers=headers, content=ramp(1000)[10:20])]
        async with it.client.content(record(), 10, 20) as body:
            assert (body.start, body.stop, body.total) == (10, 20, 1000)
        assert it.client.seekable("uk") is True
        assert service.paths("presignUrl") == [], "the range was honoured"


@pytest.mark.parametrize("said", ["bytes 20-29/1000", "bytes 0-9/1000", "pages 1-2/3", "nonsense"])
async def test_a_200_with_another_content_range_is_not_used(said: str) -> None:
    """Neither another part nor the whole: nobody knows what it is."""
    service = Service("range")
    async with connected(service) as it:
        await it.keeper.token()
        service.answers = [httpx.Response(200, headers={"Content-Range": said}, content=b"x" * 10)]
        with pytest.raises(Malformed):
            await it.read(10, 20)


async def whole(it: Connected) -> tuple[Any, bytes]:
    """A body asked for without a range, and its bytes."""
    async with it.client.whole_content(record()) as body:
        return body, b"".join([bytes(chunk) async for chunk in body])


@pytest.mark.parametrize("way", ["range", "presign", "redirect", "stream"])
async def test_the_whole_is_asked_for_without_a_range(way: str) -> None:
    """Whatever is known of the region's way: from the first byte, with a length."""
    service = Service(way)
    async with connected(service) as it:
        await it.read(10, 20)
        service.requests.clear()
        body, data = await whole(it)
        assert data == ramp(1000)
        assert (body.start, body.total, body.framed) == (0, 1000, True)
        assert all("range" not in request.headers for request in service.requests)
        assert it.client.delivery_method("uk") == way, "nothing is learned of it"


class Unending(httpx.AsyncByteStream):
    """A body without a length: only the end of the connection ends it."""

    async def __aiter__(self) -> Any:
        yield ramp(500)


@pytest.mark.parametrize(
    ("headers", "framed"), [({}, False), ({"Transfer-Encoding": "chunked"}, True)]
)
async def test_a_body_that_only_a_close_ends_is_not_framed(
    headers: dict[str, str], framed: bool
) -> None:
    """RFC 9112, 8: it may have been cut. The last chunk of a chunked one says that it is all."""
    service = Service("range")
    async with connected(service) as it:
        await it.keeper.token()
        service.answers = [httpx.Response(200, headers=headers, stream=Unending())]
        body, data = await whole(it)
        assert data == ramp(500)
        assert (body.total, body.framed) == (None, framed)


def _refused(status: int) -> httpx.Response:
    return httpx.Response(status, text="no")


def _unreachable(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("no route", request=request)


class Barred(Service):
    """A service whose links lead nowhere; ``/content`` streams."""

    def __init__(self, barrier: Any, way: str = "presign") -> None:
        super().__init__(way)
        self.barrier = barrier

    def _store(self, request: httpx.Request) -> httpx.Response:
        return self.barrier(request) if callable(self.barrier) else _refused(self.barrier)


async def read_patiently(it: Connected, start: int, stop: int) -> bytes:
    """As a reader does: an outage is tried again a few times."""
    for _ in range(3):
        try:
            return await it.read(start, stop)
        except ServiceError as error:
            failed = error
    raise failed


@pytest.mark.expected_log("by way of presign failed")
@pytest.mark.parametrize("barrier", [401, 403, _unreachable])
@pytest.mark.parametrize("known", [True, False])
async def test_content_streams_where_links_are_refused(barrier: Any, known: bool) -> None:
    """A fresh link is no good, ``/content`` is: the file is read all the same, and it is said."""
    service = Barred(barrier)
    async with connected(service, delivery_methods={"uk": "presign"} if known else {}) as it:
        assert (await read_patiently(it, 10, 20))[:10] == ramp(1000)[10:20]
        assert it.client.delivery_method("uk") == "stream"
        assert it.client.seekable("uk") is False
        failed = it.client.statistics()["failed_ways"]
        assert set(failed) == {"uk"}
        assert set(failed["uk"]) == {"presign"}
        assert failed["uk"]["presign"]
        assert "X-Amz" not in failed["uk"]["presign"]
        urls = service.urls
        for _ in range(5):
            await it.read(10, 20)
        assert service.urls == urls, "a way that failed is not tried for each part"


@pytest.mark.expected_log("by way of presign failed")
async def test_a_link_on_the_host_of_the_service_that_is_refused() -> None:
    """The only published presigned URL lies there; it is asked for without the token."""
    service = Barred(403)
    service._url = lambda: "https://api.example.com/storage/uk/store/content/x?X-Amz-Expires=1800"
    service._api = _with_refusal(service, service._api)
    async with connected(service) as it:
        assert (await read_patiently(it, 10, 20))[:10] == ramp(1000)[10:20]
        assert it.client.delivery_method("uk") == "stream"


def _with_refusal(service: Service, plain: Any) -> Any:
    def answer(request: httpx.Request) -> httpx.Response:
        return _refused(403) if "/store/" in request.url.path else plain(request)

    return answer


async def test_where_nothing_works_the_links_refusal_is_said() -> None:
    """A redirect is all there is: the error is the one of the link, and the way stays known."""
    service = Barred(403, "redirect")
    async with connected(service) as it:
        with pytest.raises(Refused):
            await it.read(10, 20)


async def test_a_link_that_failed_once_is_not_given_up() -> None:
    """One request that does not get through is an outage like others, and ranges stay."""
    service = Barred(_unreachable)
    async with connected(service, delivery_methods={"uk": "presign"}) as it:
        await it.keeper.token()
        with pytest.raises(ServiceError):
            await it.read(10, 20)
        service.barrier = lambda request: service.bytes(request, ranges=True)
        assert await it.read(10, 20) == ramp(1000)[10:20]
        assert it.client.delivery_method("uk") == "presign"
        assert it.client.statistics()["failed_ways"] == {}


async def test_another_content_gets_another_link() -> None:
    """The link of the content before a replacement may lead to that, or nowhere."""
    service = Service("presign")
    async with connected(service) as it:
        await it.read(10, 20)
        async with it.client.content(record(checksum="0" * 32), 10, 20) as body:
            assert body.start == 10
        assert service.urls == 2


@pytest.mark.parametrize("status", [404, 410])
async def test_an_old_link_that_leads_nowhere_is_renewed_at_once(status: int) -> None:
    """The object lies elsewhere by now; only a fresh link says that it is gone."""
    service = Service("presign")
    async with connected(service) as it:
        await it.read(10, 20)
        service.answers = [httpx.Response(status)]
        assert await it.read(10, 20) == ramp(1000)[10:20]
        assert service.urls == 2
        assert STORE in str(service.requests[-1].url)


async def test_a_way_has_not_failed_before_another_one_worked() -> None:
    """Whoever gave up while another way was tried leaves no way behind that nobody takes."""
    service = Barred(403)
    stalled = True

    async def handler(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/content") and not request.url.query and stalled:
            await trio.sleep_forever()
        return await service(request)

    async with connected(handler, delivery_methods={"uk": "presign"}) as it:
        with trio.move_on_after(5):
            await it.read(10, 20)
        stalled = False
        service.barrier = lambda request: service.bytes(request, ranges=True)
        assert await it.read(10, 20) == ramp(1000)[10:20]
        assert it.client.statistics()["failed_ways"] == {}


@pytest.mark.expected_log("by way of redirect failed")
@pytest.mark.parametrize("presigned", ["none", "refused"])
async def test_a_way_that_failed_is_tried_where_no_other_is_left(presigned: str) -> None:
    """Redirects led nowhere, presigned URLs did; then it is the other way round."""
    service = Service("redirect")
    dead = "redirect"

    def url(way: str) -> str:
        service.urls += 1
        return f"{STORE}/{way}?X-Amz-Expires=1800&n={service.urls}"

    def content(request: httpx.Request) -> httpx.Response:
        if "presignUrl" not in str(request.url):
            return httpx.Response(302, headers={"Location": url("redirect")})
        if dead == "presign" and presigned == "none":
            return httpx.Response(400)
        return httpx.Response(200, json={"url": url("presign")})

    def store(request: httpx.Request) -> httpx.Response:
        way = request.url.path[1:]
        return _refused(403) if way == dead else service.bytes(request, ranges=True)

    service._content, service._store = content, store
    async with connected(service) as it:
        assert await read_patiently(it, 10, 20) == ramp(1000)[10:20]
        assert it.client.delivery_method("uk") == "presign"
        dead = "presign"
        await trio.sleep(60)
        for _ in range(2):
            assert await read_patiently(it, 10, 20) == ramp(1000)[10:20]
        assert it.client.delivery_method("uk") == "redirect"
