"""The texts of the whole account are made: newest first, once, and resumable."""

import json
from collections.abc import Callable
from contextlib import aclosing, asynccontextmanager

import pytest
import trio

from phonofs.discovery.indexer import Indexer, Progress
from phonofs.errors import Corrupt, Unavailable
from phonofs.model import Record
from phonofs.texts import render
from phonofs.view_tree.call_index import CallIndex
from phonofs.view_tree.text_files import TextFiles
from phonofs.view_tree.text_indexer import LOOK_S, TextIndexer
from tests.support.catalogue_world import DAY_MS, World, make, ms, uuid, world
from tests.unit.view_tree.test_text_files import FakeReader

FIRST, DAYS = "2024-09-01", 10


class Bringing(FakeReader):
    """Has what was brought; ``brought`` in that order. ``failing`` raises by object."""

    def __init__(self) -> None:
        super().__init__()
        self.brought: list[str] = []
        self.failing: dict[str, Exception] = {}

    async def bring(self, record: Record, ino: int) -> None:
        await trio.sleep(0.1)
        if record.id in self.failing:
            raise self.failing[record.id]
        self.brought.append(record.id)

    async def read(self, handle: str, offset: int, size: int) -> bytes:
        assert handle in self.brought
        return await super().read(handle, offset, size)


def a_day(day: int) -> list[Record]:
    """A call with a transcript, one with a summary, and audio alone."""
    at = ms(FIRST) + day * DAY_MS + DAY_MS - 60_000
    return [
        make(uuid(10 * day), at, callId=f"c{day}"),
        make(uuid(10 * day + 1), at + 90_000, kind="transcription", callId=f"c{day}"),
        make(uuid(10 * day + 2), at, callId=f"d{day}"),
        make(uuid(10 * day + 3), at, kind="summary", callId=f"d{day}"),
        make(uuid(10 * day + 4), at, callId=f"e{day}"),
    ]


def account() -> list[Record]:
    return [record for day in range(DAYS) for record in a_day(day)]


@asynccontextmanager
async def texts_of(it: World, reader: Bringing, paused_s: Callable[[], float] = lambda: 0.0):
    reader.contents = {
        uuid(10 * day + 3): json.dumps({"summary": "it rang"}).encode() for day in range(DAYS)
    }
    index = CallIndex(it.catalogue)
    files = TextFiles(it.catalogue, reader)
    records = Indexer(it.catalogue, it.lister, follows=False, paused_s=paused_s)
    async with trio.open_nursery() as nursery:
        await nursery.start(files.run)
        yield TextIndexer(records, it.catalogue, index, files, reader, paused_s), index
        nursery.cancel_scope.cancel()


async def index_all(indexer: TextIndexer, tries: int | None = None) -> Progress:
    async with aclosing(indexer.steps(None, tries=tries)) as steps:
        async for step in steps:
            last = step
    assert last.state == "done"
    return last


WANTED = {uuid(10 * day + n) for day in range(DAYS) for n in (1, 3)}


@pytest.mark.promise("search-whole-or-said")
async def test_all_texts_are_known_afterwards_and_no_audio_was_read(tmp_path):
    reader = Bringing()
    async with world(tmp_path, account()) as it, texts_of(it, reader) as (indexer, _):
        done = await index_all(indexer)
        assert set(reader.brought) == set(reader.reads) == WANTED
        # the words of a call came after midnight: they are texts of that call and of their own day
        assert (done.texts, done.missing) == (DAYS * (2 + 2 + 1), [])
        newest = [id for id in reader.brought if id[-1] == "0"][:4]
        assert uuid(10 * DAYS - 9) in newest
        reader.brought.clear()
        assert (await index_all(indexer)).texts == done.texts
        assert reader.brought == []


async def test_a_run_that_was_stopped_is_continued(tmp_path):
    reader = Bringing()
    async with world(tmp_path, account()) as it:
        async with texts_of(it, reader) as (indexer, _):
            with trio.move_on_after(8):
                await index_all(indexer)
        first = set(reader.reads)
        assert set() < first < WANTED
        async with texts_of(it, reader) as (indexer, _):
            await index_all(indexer)
        assert set(reader.reads) == WANTED


async def test_another_version_makes_them_again(tmp_path, monkeypatch):
    reader = Bringing()
    async with world(tmp_path, account()) as it:
        async with texts_of(it, reader) as (indexer, _):
            known = (await index_all(indexer)).texts
        reader.reads.clear()
        monkeypatch.setattr(render, "VERSION", render.VERSION + 1)
        async with texts_of(it, reader) as (indexer, _):
            assert (await index_all(indexer)).texts == known
        assert set(reader.reads) == WANTED


@pytest.mark.promise("search-whole-or-said")
async def test_a_service_that_is_away_is_waited_for_and_one_bad_object_costs_no_other(tmp_path):
    reader = Bringing()
    reader.failing = {uuid(51): Corrupt("other bytes"), uuid(31): Unavailable("away")}

    async def come_back() -> None:
        await trio.sleep(200)
        del reader.failing[uuid(31)]

    async with world(tmp_path, account()) as it, texts_of(it, reader) as (indexer, _):
        with pytest.raises(Unavailable):
            await index_all(indexer, tries=2)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(come_back)
            done = await index_all(indexer)
        assert set(reader.reads) == WANTED - {uuid(51)}
        assert (done.missing, done.error) == (["the texts of 1 object"], "other bytes")


async def test_it_stops_while_the_service_asks_for_a_pause(tmp_path):
    until_s = float("-inf")

    def paused_s() -> float:
        return max(0.0, until_s - trio.current_time())

    reader = Bringing()
    async with world(tmp_path, account()) as it, texts_of(it, reader, paused_s) as (indexer, _):
        async with aclosing(indexer.steps(None)) as steps:
            async for step in steps:
                if step.texts and until_s < 0:
                    until_s = trio.current_time() + 100
                    before = len(reader.brought)
                    with trio.move_on_after(99):
                        await anext(steps)
                    break
        assert len(reader.brought) == before < len(WANTED)


async def test_a_mount_brings_new_words_soon(tmp_path):
    reader = Bringing()
    new = make(uuid(999), ms(FIRST) + 5 * DAY_MS, kind="transcription", callId="e4")
    async with (
        world(tmp_path, account()) as it,
        texts_of(it, reader) as (indexer, index),
        trio.open_nursery() as nursery,
    ):
        await nursery.start(indexer.run)
        await trio.sleep(60)
        assert indexer.statistics()["state"] == "done"
        index.changed(it.catalogue.apply([new]))
        await trio.sleep(2 * LOOK_S)
        assert uuid(999) in reader.brought
        nursery.cancel_scope.cancel()
