"""The client: regions, searches, single records, restore; how long it keeps trying."""

from typing import Any

import httpx
import pytest
import trio

from phonofs.errors import Gone, Malformed, Refused, Unavailable
from phonofs.model import Query
from tests.support.service_world import Service, connected, record, record_json


async def test_a_search_asks_for_what_the_query_says() -> None:
    """Filter, order, offset and limit, each where it belongs."""
    service = Service()
    service.records = [record_json("a")]
    async with connected(service) as it:
        page = await it.client.search("uk", Query(created_from_ms=5, types=("a", "b")), 200, 50)
    assert [record.id for record in page.records] == ["a"]
    request = service.requests[-1]
    assert request.url.path == "/storage/uk/v3/objects"
    assert dict(request.url.params) == {
        "filter": "createdTime=ge=5;(type==a,type==b)",
        "sortField": "createdTime",
        "sortDirection": "ASC",
        "pageKey": "200",
        "limit": "50",
    }
    assert request.headers["accept-encoding"] == "identity"


async def test_a_400_on_a_larger_page_is_remembered() -> None:
    """1000 is tried once, then 100 is what the region gets."""
    service = Service()
    limits: list[int] = []

    async def handler(request: httpx.Request) -> httpx.Response:
        if "limit" in request.url.params:
            limits.append(int(request.url.params["limit"]))
            if limits[-1] > 100:
                return httpx.Response(400)
        return await service(request)

    async with connected(handler) as it:
        for _ in range(3):
            await it.client.search("uk", Query(), limit=1000)
        await it.client.search("uk", Query(), limit=5)
        await it.client.search("ca", Query(), limit=1000)
    assert limits == [1000, 100, 100, 100, 5, 1000, 100]


async def test_a_400_that_is_not_about_the_limit_is_malformed_and_not_remembered() -> None:
    """Smaller pages are tried; where they do not help, the next search begins as before."""
    service = Service()
    limits: list[int] = []

    async def handler(request: httpx.Request) -> httpx.Response:
        if "limit" in request.url.params:
            limits.append(int(request.url.params["limit"]))
            return httpx.Response(400)
        return await service(request)

    async with connected(handler) as it:
        for _ in range(2):
            with pytest.raises(Malformed):
                await it.client.search("uk", Query(), limit=100)
    assert limits == [100, 50, 25, 10] * 2


@pytest.mark.expected_log("object odd was set aside")
async def test_a_record_set_aside_is_said_once(expected_log: Any) -> None:
    """However often the same page is read."""
    service = Service()
    service.records = [record_json("a"), record_json("odd", storedBytes=-1)]
    async with connected(service) as it:
        for _ in range(3):
            page = await it.client.search("uk", Query())
            assert page.count == 2
    assert len(expected_log.seen) == 1


async def test_an_outage_is_waited_out_within_the_deadline() -> None:
    """Three failures of different kinds, then the answer."""
    service = Service()

    def broken(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadError("x")

    async with connected(service) as it:
        await it.keeper.token()
        service.answers = [httpx.Response(503), broken, httpx.Response(502, text="<html>")]
        assert await it.client.regions() == ["uk"]
    assert it.transport.statistics()["requests"]["regions"] == 4


async def test_the_deadline_ends_it() -> None:
    """With the last failure's sentence, and not before the time is nearly up."""
    service = Service()

    async def handler(request: httpx.Request) -> httpx.Response:
        return httpx.Response(503) if "objects" in request.url.path else await service(request)

    async with connected(handler, read_deadline_s=60) as it:
        start = trio.current_time()
        with pytest.raises(Unavailable, match="503"):
            await it.client.search("uk", Query())
        assert 50 < trio.current_time() - start <= 60
        assert it.transport.statistics()["requests"]["search"] < 20


async def test_a_stalled_service_is_given_up_at_the_deadline() -> None:
    """Also where the request that stalls began just before it."""
    service = Service()

    async def handler(request: httpx.Request) -> httpx.Response:
        if "objects" in request.url.path:
            await trio.sleep_forever()
        return await service(request)

    async with connected(handler, read_deadline_s=50, timeout_s=30) as it:
        start = trio.current_time()
        with pytest.raises(Unavailable, match="30 s"):
            await it.client.search("uk", Query())
        assert trio.current_time() - start == pytest.approx(50, abs=1)


async def test_retry_after_is_obeyed_by_everything_at_once() -> None:
    """One 429: nobody asks anything for 20 s, then all who waited get their answers."""
    service = Service()
    service.records = [record_json("a")]
    times: list[float] = []

    async def handler(request: httpx.Request) -> httpx.Response:
        if "token" not in request.url.path:
            times.append(trio.current_time())
        return await service(request)

    async with connected(handler) as it:
        await it.keeper.token()
        service.answers = [httpx.Response(429, headers={"Retry-After": "20"})]
        start = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(it.client.search, "uk", Query())
            await trio.sleep(1)
            for _ in range(10):
                nursery.start_soon(it.read, 0, 10)
                nursery.start_soon(it.client.regions)
    assert len(times) == 22
    assert all(time - start >= 20 for time in times[1:])
    assert it.transport.statistics()["paused_s"] == 0


@pytest.mark.promise("nobody-waits-for-others")
async def test_a_pause_of_one_object_is_no_other_request_s() -> None:
    """503 with ``Retry-After`` says nothing about other objects, nor about searches."""
    service = Service()
    service.records = [record_json("a")]
    async with connected(service, read_deadline_s=60) as it:
        await it.read(0, 10)
        service.answers = [httpx.Response(503, headers={"Retry-After": "86400"})]
        start = trio.current_time()
        with pytest.raises(Unavailable) as caught:
            await it.read(0, 10)
        assert caught.value.retry_after_s == 600
        assert await it.read(0, 10)
        assert (await it.client.search("uk", Query())).count == 1
        assert trio.current_time() == start


@pytest.mark.promise("nobody-waits-for-others")
@pytest.mark.parametrize("status", [429, 503])
async def test_a_pause_of_the_token_endpoint_stops_nothing_else(status: int) -> None:
    """Renewal is told to wait: what the valid token is good for goes on; then it is said."""
    service = Service()
    service.life_s = "1000"
    times: list[float] = []

    async def handler(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/token"):
            times.append(trio.current_time())
            if len(times) == 2:
                return httpx.Response(status, headers={"Retry-After": "400"})
        return await service(request)

    async with connected(handler, read_deadline_s=60) as it:
        start = trio.current_time()
        await it.keeper.token()
        while trio.current_time() < start + 990:
            before = trio.current_time()
            assert await it.read(0, 10)
            assert await it.client.regions() == ["uk"]
            assert trio.current_time() == before
            await trio.sleep(10)
        assert len(times) == 2
        await trio.sleep(20)
        it.keeper.retry_now()
        before = trio.current_time()
        for _ in range(3):
            with pytest.raises(Unavailable, match=str(status)):
                await it.read(0, 10)
        assert trio.current_time() == before, "nobody waits for a pause of which the end is known"
        await trio.sleep(400)
        assert await it.read(0, 10)
    assert times[2] - times[1] > 399, "and it is kept to, whoever would like to try"
    assert len(times) == 3


@pytest.mark.promise("nobody-waits-for-others")
@pytest.mark.parametrize("way", ["presign", "redirect"])
async def test_a_pause_of_the_service_does_not_stop_the_store(way: str) -> None:
    """A poll meets 429: reads by a link that lives, at another host, go on."""
    service = Service(way)
    async with connected(service, read_deadline_s=60) as it:
        assert await it.read(0, 10)
        service.answers = [httpx.Response(429, headers={"Retry-After": "86400"})]
        with pytest.raises(Unavailable):
            await it.client.search("uk", Query(), urgent=False)
        start = trio.current_time()
        for at in range(10, 100, 10):
            assert await it.read(at, at + 10) == service.data[at : at + 10]
        assert trio.current_time() == start
        service.answers = [httpx.Response(429, headers={"Retry-After": "30"})]
        with pytest.raises(Unavailable):
            await it.read(0, 10)
        with trio.move_on_after(29) as waited:
            await it.read(0, 10)
        assert waited.cancelled_caught, "the store has a pause of its own"


async def test_waiting_for_leave_to_ask_is_no_latency() -> None:
    """A body says when its request was sent: after the pause, and with a slot and a token."""
    service = Service()
    async with connected(service) as it:
        service.answers = [httpx.Response(429, headers={"Retry-After": "20"})]
        with pytest.raises(Unavailable):
            await it.read(0, 10)
        async with it.client.content(record(), 0, 10) as body:
            assert trio.current_time() - body.sent_at < 1


async def test_a_longer_pause_than_there_is_time_is_said_at_once() -> None:
    """The caller learns how long it would be."""
    service = Service()
    async with connected(service, read_deadline_s=60) as it:
        await it.keeper.token()
        service.answers = [httpx.Response(503, headers={"Retry-After": "300"})]
        start = trio.current_time()
        with pytest.raises(Unavailable) as caught:
            await it.client.regions()
        assert caught.value.retry_after_s == 300
        assert trio.current_time() == start


async def test_the_first_region_that_answers_is_believed() -> None:
    """One that does not know the path is passed over; a refusal is not."""
    service = Service()
    async with connected(service) as it:
        await it.keeper.token()
        service.answers = [httpx.Response(404), httpx.Response(200, text="<html>")]
        assert await it.client.regions() == ["uk"]
        service.answers = [httpx.Response(403)]
        with pytest.raises(Refused):
            await it.client.regions()


async def test_a_second_401_is_a_refusal() -> None:
    """Once more with a fresh token, not oftener."""
    service = Service()
    async with connected(service) as it:
        await it.keeper.token()
        await trio.sleep(2)
        service.answers = [httpx.Response(401), httpx.Response(401)]
        with pytest.raises(Refused, match="fresh token"):
            await it.client.record("uk", "a")
    assert service.tokens == 2


async def test_one_record() -> None:
    """The record that was asked for, Gone where there is none, Malformed where it is another."""
    service = Service()
    async with connected(service) as it:
        await it.keeper.token()
        service.answers = [httpx.Response(200, json=record_json("a----"))]
        assert (await it.client.record("uk", "a----")).id == "a----"
        with pytest.raises(Gone):
            await it.client.record("uk", "nope")
        service.answers = [httpx.Response(200, json=record_json("b"))]
        with pytest.raises(Malformed):
            await it.client.record("uk", "a")
        service.answers = [httpx.Response(302, headers={"Location": "https://evil.example"})]
        with pytest.raises(Malformed, match="redirect"):
            await it.client.record("uk", "a")
    assert {request.url.host for request in service.requests} == {"api.example.com"}


async def test_restore() -> None:
    """Days are bounded; a key without edit access gets its own sentence."""
    service = Service()
    async with connected(service) as it:
        await it.keeper.token()
        service.answers = [httpx.Response(202), httpx.Response(403), httpx.Response(404)]
        await it.client.restore("uk", "a", 99)
        assert service.requests[-1].method == "POST"
        assert service.requests[-1].content == b'{"expirationDays": 10}'
        with pytest.raises(Refused, match="edit access"):
            await it.client.restore("uk", "a", 7)
        with pytest.raises(Gone):
            await it.client.restore("uk", "a", 7)


@pytest.mark.parametrize("id", ["a/b", "a?b", "a b", "a#b", "ä"])
async def test_ids_and_regions_are_quoted(id: str) -> None:
    """Whatever an id holds, it stays in its place in the path."""
    service = Service()
    async with connected(service) as it:
        with pytest.raises(Gone):
            await it.client.record("uk", id)
    raw = service.requests[-1].url.raw_path.decode()
    assert raw.startswith(
        "/storage/uk/v3/objects/a%" if id[0] == "a" else "/storage/uk/v3/objects/%"
    )
    assert raw.count("/") == 5


async def test_an_endless_answer_is_cut() -> None:
    """A page is bounded in bytes."""
    service = Service()
    async with connected(service) as it:
        await it.keeper.token()
        service.answers = [httpx.Response(200, content=b" " * 2_000_000)]
        with pytest.raises(Malformed, match="too long"):
            await it.client.record("uk", "a")
