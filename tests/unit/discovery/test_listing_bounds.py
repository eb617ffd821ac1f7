"""What a listing may cost: JSON that is cheap to send and dear to read, and pages without end."""

import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx
import msgspec
import pytest
import trio

from phonofs.errors import CatalogueError, Malformed, PhonofsError
from phonofs.model import Query, Record
from tests.support.catalogue_world import HOUR_MS, files, make, ms, uuid
from tests.support.listing_world import Search, SearchApi, listing
from tests.support.timing import LongestStep, longest_step, timely

DAY = "2024/2024-09/2024-09-17"
NOON = ms("2024-09-17T12:00:00")
STEP_S = 0.05
"""CPU time of the event loop's thread that nobody else is served for."""

UNITS = [b"0,", b"{},", b"[],", b"NaN,", b"[],NaN,", b'"",', b'{"a":{}},', b"[[[]]],", b"1e9,"]


@asynccontextmanager
async def watched() -> AsyncIterator[LongestStep]:
    """Measure the steps of all tasks, also the one that the block ends in."""
    with longest_step() as steps:
        yield steps
        await trio.lowlevel.checkpoint()


class Body(httpx.AsyncByteStream):
    """``start``, so many of ``unit``, ``end``, in chunks that cost the sender nothing."""

    def __init__(self, start: bytes, unit: bytes, size: int, end: bytes) -> None:
        self.start, self.end = start, end
        self.chunk = unit * (65536 // len(unit))
        self.chunks = size // len(self.chunk)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self.start
        for _ in range(self.chunks):
            yield self.chunk
        yield self.end


def page_of(unit: bytes, size: int) -> httpx.Response:
    """A page whose content is as much of ``unit``."""
    body = Body(b'{"lastPage": true, "content": [', unit, size, b"0]}")
    return httpx.Response(200, stream=body)


def with_source(record: Record, field: bytes) -> Record:
    """The record with one field more in its JSON."""
    source = record.source[:-1] + b"," + field + b"}"
    return msgspec.structs.replace(record, source=source)


@pytest.mark.expected_log("set aside")
@pytest.mark.parametrize("size", [200_000, 1_800_000, 8_000_000])
@pytest.mark.parametrize("unit", UNITS)
async def test_a_page_of_crumbs_holds_nobody_up(tmp_path: Path, unit: bytes, size: int):
    """Whatever a page is made of, it is an error soon, in steps of at most 50 ms."""
    api = SearchApi(misbehave=lambda search: page_of(unit, size))
    async with listing(tmp_path, api) as w:
        async with watched() as steps:
            with suppress(PhonofsError):
                page = await w.service.search("us-east", Query())
                assert not page.records
        assert timely(steps.longest_s, STEP_S)


@pytest.mark.expected_log("set aside")
@pytest.mark.parametrize("unit", [b"0,", b"{},", b"[],NaN,"])
async def test_a_page_of_60_mb_takes_no_memory(tmp_path: Path, unit: bytes):
    """It is not even received: at most 64 MiB more than before."""
    api = SearchApi(misbehave=lambda search: page_of(unit, 60_000_000))
    async with listing(tmp_path, api) as w:
        tracemalloc.start()
        with suppress(PhonofsError):
            await w.service.search("us-east", Query())
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak <= 64 << 20


BOMBS = {
    "nested 100,000 deep": b'"x":' + b"[" * 100_000 + b"]" * 100_000,
    "nested 2,000 deep": b'"x":' + b"[" * 2000 + b"]" * 2000,
    "objects 2,000 deep": b'"x":' + b'{"a":' * 2000 + b"1" + b"}" * 2000,
    "150,000 tags": b'"tags":[' + b'{"key":"k","value":"v"},' * 150_000 + b"{}]",
    "many values": b'"x":[' + b"0," * 1_000_000 + b"0]",
    "a long text": b'"x":"' + b"x" * 3_000_000 + b'"',
    "a record of 1 MB": b'"x":"' + b"x" * 1_000_000 + b'"',
}


@pytest.mark.promise("listing-whole-or-error")
@pytest.mark.expected_log("set aside")
@pytest.mark.parametrize("bomb", BOMBS)
async def test_one_record_does_not_cost_its_page(tmp_path: Path, bomb: str):
    """All others of the day are shown; in steps of 50 ms and 64 MiB."""
    records = [make(uuid(n), NOON + n * 1000) for n in range(250)]
    records[130] = with_source(records[130], BOMBS[bomb])
    async with listing(tmp_path, SearchApi(), records) as w:
        await w.ls("2024/2024-09")
        w.api.count()
        async with watched() as steps:
            assert len(await w.ls(DAY)) == 249
        assert timely(steps.longest_s, STEP_S * 2), "the service's own work is in it"
        assert w.api.count() <= 50


async def test_the_newest_record_may_be_unreadable(tmp_path: Path, expected_log):
    """Neither the ends of the account nor its changes hang on one record."""
    expected_log.expect("set aside")
    records = [make(uuid(n), NOON + n * 1000) for n in range(30)]
    for at in (0, 29):
        records[at] = with_source(records[at], BOMBS["nested 100,000 deep"])
    async with listing(tmp_path, SearchApi(), records) as w:
        await w.follower.poll("us-east")
        await w.follower.poll("us-east")
        assert len(await w.ls(DAY)) == 28


async def test_a_service_that_hardly_makes_sense_is_an_error(tmp_path: Path, expected_log):
    """A day of records that cannot be read is not an empty day."""
    expected_log.expect("set aside")
    records = [make(uuid(n), NOON + n * 1000) for n in range(80)]
    async with listing(tmp_path, SearchApi(), records) as w:
        await w.ls("2024/2024-09")
        bomb = BOMBS["nested 100,000 deep"]
        w.api.put(*(with_source(record, bomb) for record in records))
        with pytest.raises(Malformed):
            await w.ls(DAY)


async def test_a_record_that_becomes_unreadable_is_not_taken_for_deleted(
    tmp_path: Path, expected_log
):
    """Whose record it is cannot be told, so such a listing removes nothing."""
    expected_log.expect("set aside")
    records = [make(uuid(n), NOON + n * 1000) for n in range(30)]
    async with listing(tmp_path, SearchApi(), records) as w:
        assert len(await w.ls(DAY)) == 30
        w.api.put(with_source(records[7], BOMBS["nested 100,000 deep"]))
        day = w.catalogue.parent(w.catalogue.find("us-east", records[0].id))
        await w.lister.list(day)
        await trio.sleep(60)
        assert len(w.catalogue.children(day)) == 30


@pytest.mark.parametrize("start", [b"", b"[", b"{", b"{,"])
async def test_a_page_of_white_space_holds_nobody_up(tmp_path: Path, start: bytes):
    """It is an error, in steps of at most 50 ms: how it begins is looked at in linear time."""
    blank = Body(start, b" ", 60_000_000, b"")
    api = SearchApi(misbehave=lambda search: httpx.Response(200, stream=blank))
    async with listing(tmp_path, api) as w:
        async with watched() as steps:
            with pytest.raises(PhonofsError):
                await w.service.search("us-east", Query())
        assert timely(steps.longest_s, STEP_S)


async def test_a_web_page_is_not_a_record(tmp_path: Path):
    """However large: it is an error, and nothing is set aside for it."""
    html = Body(b"<!doctype html><body>", b"<p>,,,[[[{{{</p>", 3_000_000, b"</body>")
    api = SearchApi(misbehave=lambda search: httpx.Response(200, stream=html))
    async with listing(tmp_path, api) as w:
        with pytest.raises(Malformed):
            await w.ls("")


async def test_a_leap_second_is_shown(tmp_path: Path):
    """As the second after it, which is the next day's first; so is 24:00."""
    records = [make(uuid(n), ms("2016-12-31T20:00:00") + n * 3_600_000) for n in range(6)]
    for at, text in ((2, "2016-12-31T23:59:60"), (4, "2016-12-31T24:00:00")):
        shape = msgspec.json.decode(records[at].source) | {"createdTime": text}
        source = msgspec.json.encode(shape)
        moment = ms("2017-01-01")
        records[at] = msgspec.structs.replace(records[at], created_ms=moment, source=source)
    async with listing(tmp_path, SearchApi(), records) as w:
        assert len(await w.ls("2016/2016-12/2016-12-31")) == 3
        assert len(await w.ls("2017/2017-01/2017-01-01")) == 3


def endless(search: Search) -> httpx.Response:
    """100 new objects at each offset."""
    some = [
        make(f"{search.key + n:08d}-{id(search):x}", NOON + search.key + n)
        for n in range(search.limit)
    ]
    content = [msgspec.Raw(record.source) for record in some]
    return httpx.Response(200, content=msgspec.json.encode({"content": content, "lastPage": False}))


async def test_a_listing_without_end_leaves_the_disk_its_room(tmp_path: Path):
    """A day that never ends is given up once it is large and the disk has too little left."""
    async with listing(tmp_path, SearchApi(), cache_min_free=1 << 60) as w:
        w.api.put(make("one", NOON))
        await w.ls("2024/2024-09")
        w.api.misbehave = endless
        with pytest.raises(CatalogueError, match="cache_min_free"):
            await w.ls(DAY)
        assert len(files(w.catalogue)) <= 25_000


@pytest.mark.slow
async def test_changes_without_end_leave_the_disk_its_room(tmp_path: Path):
    """So does a poll."""
    async with listing(tmp_path, SearchApi(), cache_min_free=1 << 60) as w:
        w.api.put(make("one", NOON))
        await w.follower.poll("us-east")
        w.api.misbehave = endless
        for _ in range(3):
            with pytest.raises(CatalogueError, match="cache_min_free"):
                await w.follower.poll("us-east")
        assert len(files(w.catalogue)) <= 101_000


async def test_a_large_day_is_listed_on_a_full_disk(tmp_path: Path):
    """A full disk turns the cache off, not the listing of what people have."""
    records = [make(uuid(n), NOON - HOUR_MS + n * 500) for n in range(3000)]
    async with listing(tmp_path, SearchApi(), records, cache_min_free=1 << 60) as w:
        assert len(await w.ls(DAY)) == 3000
