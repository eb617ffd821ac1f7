"""The client against the stand-in over real sockets: all ways, all shapes, many faults.

The clock is real; every read at the end is right, or an error in time.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import trio

from phonofs.config import Secret
from phonofs.errors import Changed, CredentialsRefused, Malformed, ServiceError, Unavailable
from phonofs.fakeservice.account import Account, flat_item
from phonofs.fakeservice.faults import Faults, plan
from phonofs.fakeservice.options import DEMO_KEY, DEMO_SECRET, Options
from phonofs.fakeservice.server import serve
from phonofs.model import Query, Record
from phonofs.service.auth import TokenProvider
from phonofs.service.client import Client
from phonofs.service.session import Transport
from tests.support.counted_service import Service
from tests.support.service_world import plain_httpx

pytestmark = pytest.mark.real_clock

SIZE = 700_001
BORN_MS = 1_700_000_000_000
WAYS = ["range", "presign", "redirect", "stream"]


class World:
    """The stand-in with its account, and a client of it."""

    def __init__(
        self, service: Service, client: Client, keeper: TokenProvider, way: Transport
    ) -> None:
        self.service = service
        self.client = client
        self.keeper = keeper
        self.transport = way

    def expected(self, start: int, stop: int) -> bytes:
        item = self.service.account.item("us-east", "a1")
        assert item is not None
        return item.content.read(start, stop)

    async def read(self, record: Record, start: int, stop: int) -> bytes:
        """The bytes as the reader gets them: going on from the byte reached, for 10 s at most."""
        got = b""
        etag: str | None = None
        with trio.fail_after(10):
            while len(got) < stop - start:
                at = start + len(got)
                try:
                    async with self.client.content(record, at, stop, etag=etag) as body:
                        etag = body.etag or etag
                        place = body.start
                        async for chunk in body:
                            place += len(chunk)
                            fresh = place - (start + len(got))
                            if fresh > 0:
                                got += bytes(chunk)[-fresh:]
                except (Unavailable, Malformed):
                    await trio.sleep(0.01)
                except Changed:
                    got, etag = b"", None
        return got[: stop - start]


@asynccontextmanager
async def world(
    rules: list[dict[str, Any]] | None = None,
    *,
    http: httpx.AsyncBaseTransport | None = None,
    seed: int = 1,
    timeout_s: float = 0.4,
    secret: str = DEMO_SECRET,
    deadline_s: float = 5.0,
    **options: Any,
) -> AsyncIterator[World]:
    account = Account([flat_item(f"a{n}", SIZE, BORN_MS + n) for n in range(25)])
    faults = Faults(plan({"seed": seed, "rule": rules or []}))

    async def credentials() -> tuple[str, Secret]:
        return DEMO_KEY, Secret(secret)

    async with (
        serve(Service(account, Options(**options), faults)) as service,
        Transport(service.url, timeout_s=timeout_s, http=http, proxies={}) as way,
    ):
        async with trio.open_nursery() as nursery:
            keeper = TokenProvider(way, credentials)
            await nursery.start(keeper.run)
            client = Client(way, keeper, read_deadline_s=deadline_s)
            with trio.fail_after(30):
                yield World(service, client, keeper, way)
            nursery.cancel_scope.cancel()
        assert way.slots.in_use == 0
        for rule in faults.plan.rules:
            assert faults.fired[rule.name], f"the fault {rule.name} did not fire"
        assert service.counters.bearers("store") == 0


async def the_record(it: World) -> Record:
    return await it.client.record("us-east", "a1")


@pytest.mark.parametrize("fast", [True, False], ids=["wire", "httpx"])
@pytest.mark.parametrize("way", WAYS)
async def test_every_way(way: str, fast: bool) -> None:
    """The right bytes for every part, the way found out, the token at one origin only."""
    async with world(content=way, http=None if fast else plain_httpx()) as it:
        assert await it.client.regions() == ["us-east"]
        record = await the_record(it)
        for start, stop in ((SIZE - 10, SIZE), (0, SIZE), (5, 300_000), (1000, 1001)):
            assert await it.read(record, start, stop) == it.expected(start, stop)
        assert it.client.delivery_method("us-east") == way
        assert it.client.seekable("us-east") is (way != "stream")


@pytest.mark.parametrize("answer", ["object", "string", "text"])
async def test_every_shape_of_a_presigned_answer(answer: str) -> None:
    """As the schema has it, and as it may be."""
    async with world(content="presign", presign_answer=answer) as it:
        assert await it.read(await the_record(it), 100, 200) == it.expected(100, 200)
        assert it.service.counters.requests["presign"] == 1


@pytest.mark.parametrize(
    "options",
    [
        {"page": "array", "sizes": "string", "total": "absent"},
        {"page_limit": 10},
        {"page_limit": 10, "over_limit": "lower"},
    ],
)
async def test_every_shape_of_a_page(options: dict[str, Any]) -> None:
    """All 25 objects, going on from whatever came back."""
    async with world(**options) as it:
        found: list[str] = []
        last = False
        while not last:
            page = await it.client.search("us-east", Query(), len(found), 100)
            found += [record.id for record in page.records]
            last = page.last
        assert found == [f"a{n}" for n in range(25)]
        assert all(record.size == SIZE for record in page.records)


async def test_a_short_token_life() -> None:
    """Steady reading for two seconds with a life of 1.5 s: no 401, one refresh a life."""
    async with world(token_life_s=1.5) as it:
        record = await the_record(it)
        with trio.move_on_after(2.2):
            while True:
                assert await it.read(record, 0, 100) == it.expected(0, 100)
                await trio.sleep(0.02)
        assert it.service.counters.tokens in (2, 3)
        assert it.service.counters.statuses[401] == 0


async def test_short_lived_urls_are_renewed() -> None:
    """A URL that lives for a second serves, and is asked for again only when it is over."""
    async with world(content="presign", presign_life_s=1) as it:
        record = await the_record(it)
        with trio.move_on_after(1.5):
            while True:
                assert await it.read(record, 100, 200) == it.expected(100, 200)
                await trio.sleep(0.02)
        assert 2 <= it.service.counters.requests["presign"] <= 5


@pytest.mark.expected_log("no token")
async def test_a_wrong_secret_is_said() -> None:
    """At once, with the remedy, and not with the secret."""
    async with world(secret="wrong-canary") as it:
        with pytest.raises(CredentialsRefused) as caught:
            await it.keeper.token()
        assert "canary" not in str(caught.value)


@pytest.mark.expected_log("lacks the product")
async def test_a_key_without_storage_is_said() -> None:
    """In its own sentence."""
    async with world(products="chat") as it:
        with pytest.raises(CredentialsRefused, match="Call Recordings & Storage"):
            await it.keeper.token()


FAULTS: list[dict[str, Any]] = [
    {"fail": "status", "status": 503, "count": 2},
    {"fail": "status", "status": 429, "retry_after": 1, "count": 1},
    {"fail": "html", "count": 2},
    {"fail": "redirect", "count": 1},
    {"fail": "reset", "count": 2},
    {"fail": "reset", "after": 200_000, "count": 2},
    {"fail": "cut", "after": 100_000, "count": 2},
    {"fail": "cut", "after": 0, "count": 1},
    {"fail": "stall", "after": 50_000, "count": 1},
    {"fail": "stall", "count": 1},
    {"fail": "drip", "bytes_per_s": 50, "count": 1},
    {"fail": "long", "by": 5, "count": 1},
    {"fail": "overrun", "by": 7, "count": 2},
    {"fail": "wrong_range", "count": 2},
    {"fail": "whole", "count": 2},
    {"fail": "encoding", "count": 1},
    {"fail": "revoke", "count": 1},
    {"fail": "delay", "seconds": 0.1, "count": 2},
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault["fail"])
async def test_the_right_bytes_after_any_fault(fault: dict[str, Any]) -> None:
    """Whatever goes wrong with content, reading on gives every byte, each in its place."""
    rule = {"kind": ["content"], "skip": 1} | fault
    async with world([rule]) as it:
        record = await the_record(it)
        await it.read(record, 10, 20)
        assert await it.read(record, 1, SIZE - 1) == it.expected(1, SIZE - 1)
        assert await it.read(record, 3, 300_000) == it.expected(3, 300_000)
        assert it.client.delivery_method("us-east") == "range"


async def test_a_third_of_all_requests_failing() -> None:
    """Sixteen readers, searches between; each gets what it asked for."""
    rules: list[dict[str, Any]] = [
        {"fail": "status", "status": 503, "probability": 0.1},
        {"fail": "cut", "after": 30_000, "probability": 0.1, "kind": ["content", "store"]},
        {"fail": "reset", "probability": 0.1},
    ]
    async with world(rules, content="presign", seed=3) as it:

        async def work(record: Record, start: int) -> None:
            assert await it.read(record, start, start + 40_000) == it.expected(
                start, start + 40_000
            )
            assert (await it.client.search("us-east", Query(), limit=5)).count == 5

        record = await the_record(it)
        async with trio.open_nursery() as nursery:
            for n in range(16):
                nursery.start_soon(work, record, n * 40_000)


async def test_an_expired_url_is_renewed_once() -> None:
    """Dead from birth: the second one works."""
    async with world(
        [{"fail": "expired", "kind": ["presign"], "count": 1}], content="presign"
    ) as it:
        assert await it.read(await the_record(it), 100, 200) == it.expected(100, 200)
        assert it.service.counters.requests["presign"] == 2


@pytest.mark.parametrize(
    "to", ["http://example.com/x", "ftp://127.0.0.1/x", "https://u:p@127.0.0.1/"]
)
async def test_a_redirect_to_a_wrong_place_is_malformed(to: str) -> None:
    """Nothing is asked there."""
    async with world([{"fail": "redirect", "to": to, "kind": ["content"]}]) as it:
        record = await the_record(it)
        with pytest.raises(Malformed):
            async with it.client.content(record, 0, 10):
                pass


async def test_an_outage_from_the_start_is_unavailable() -> None:
    """Nobody hangs: an error by the deadline."""
    async with world([{"fail": "stall"}], timeout_s=0.2, deadline_s=0.6) as it:
        start = trio.current_time()
        with pytest.raises(ServiceError):
            await it.client.regions()
        assert trio.current_time() - start < 2
