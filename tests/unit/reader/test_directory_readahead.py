"""Reading ahead across files: who reads them one after another does not wait for each."""

import random
from collections.abc import Sequence

import pytest
import trio

from phonofs.model import Record
from phonofs.reader.directory_readahead import DirectoryReadahead
from phonofs.reader.limits import Limits
from tests.support.reader_world import KIB, LATENCY, MIB, FakeService, World, plain, record, world

SIZE = 50_000


def folder(count: int, *, size: int = SIZE, shuffled: bool = False) -> list[tuple[int, Record]]:
    """Files in the order of names; shuffled inodes where asked for."""
    inodes = list(range(100, 100 + count))
    if shuffled:
        random.Random(5).shuffle(inodes)
    return [(ino, record(size, f"f{number:04}")) for number, ino in enumerate(inodes)]


async def read_file(w: World, ino: int, file: Record) -> None:
    handle = w.reader.open(file, ino)
    await w.read_on(handle)
    w.reader.release(handle)


async def read_all(w: World, files: Sequence[tuple[int, Record]]) -> float:
    began = trio.current_time()
    for ino, file in files:
        await read_file(w, ino, file)
    return (trio.current_time() - began) / LATENCY


@pytest.mark.parametrize("in_memory", [False, True])
async def test_three_hundred_small_files_cost_few_round_trips(in_memory):
    """300 files of 50 KB one after another take at most 28 round trips, each byte once."""
    files = folder(300)
    async with world(FakeService(rate=400e6), files=files, in_memory=in_memory) as w:
        assert await read_all(w, files) <= 28
        assert w.service.sent() == 300 * SIZE
        assert len(w.service.asked) == 300
        assert w.service.most_open <= 16


async def test_the_order_of_inodes_is_followed_too():
    """``cp -r`` sorts by inode; it finds its next files just as well."""
    files = folder(200, shuffled=True)
    async with world(FakeService(rate=400e6), files=files) as w:
        assert await read_all(w, sorted(files, key=lambda file: file[0])) <= 24
        assert len(w.service.asked) == 200


async def test_a_few_left_out_do_not_end_it():
    """Reading every second file, or with small leaps, still finds the next ones there."""
    files = folder(200)
    async with world(FakeService(rate=400e6), files=files) as w:
        assert await read_all(w, files[::2]) <= 24


async def test_types_left_out_are_not_brought():
    """``cat *.json`` in a folder of recordings and transcripts fetches only transcripts."""
    files = [
        (ino, record(SIZE, f"f{ino}", kind="transcription" if ino % 2 else "callrecording"))
        for ino in range(200)
    ]
    async with world(FakeService(rate=400e6), files=files) as w:
        await read_all(w, files[1::2])
        await trio.sleep(5)
        fetched = {asked.id for asked in w.service.asked}
        others = fetched - {file.id for _, file in files[1::2]}
        assert len(others) <= 4


async def test_several_processes_share_a_folder():
    """Four readers that take the files in turns (xargs -P4) leave one trail."""
    files = folder(200)
    async with world(FakeService(rate=400e6), files=files) as w:
        queue = iter(files)

        async def worker() -> None:
            for ino, file in queue:
                await read_file(w, ino, file)

        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(worker)
        assert (trio.current_time() - began) / LATENCY <= 22
        assert len(w.service.asked) == 200


async def test_headers_only_trigger_nothing():
    """Opening every file for its first bytes fetches no other file."""
    files = folder(50, size=8 * MIB)
    async with world(files=files) as w:
        for ino, file in files:
            handle = w.reader.open(file, ino)
            await w.read(handle, 0, 64 * KIB)
            w.reader.release(handle)
        assert w.reader.statistics()["ahead_files"] == 0


async def test_a_random_order_triggers_nothing_much():
    """Whoever picks files here and there does not fetch the folder."""
    files = folder(300)
    async with world(files=files) as w:
        picked = random.Random(3).sample(files, 25)
        await read_all(w, picked)
        await trio.sleep(5)
        assert len({asked.id for asked in w.service.asked}) <= 25 + 8


async def test_it_stops_when_the_pattern_stops():
    """A reader that goes no further leaves at most the files begun, and they are let go."""
    files = folder(300)
    async with world(FakeService(rate=400e6), files=files) as w:
        await read_all(w, files[:10])
        await trio.sleep(30)
        assert len(w.service.asked) <= 10 + 28
        assert w.reader.statistics()["streams"] == 0


async def test_it_is_capped_in_bytes():
    """With a small cache only a quarter of it is brought ahead."""
    files = folder(40, size=2 * MIB)
    limits = Limits(cache_bytes=32 * MIB)
    async with world(FakeService(rate=400e6), files=files, limits=limits) as w:
        await read_all(w, files[:6])
        await trio.sleep(5)
        assert w.service.sent() <= 6 * 2 * MIB + 8 * MIB


async def test_of_large_files_the_beginning_is_brought():
    """Files too large to come whole have their first MiB there when they are opened."""
    files = folder(10, size=12 * MIB)
    async with world(FakeService(rate=400e6), files=files) as w:
        await read_all(w, files[:4])
        await trio.sleep(2)
        ino, file = files[4]
        handle = w.reader.open(file, ino)
        assert w.reader.read_now(handle, 0, 128 * KIB) == plain(0, 128 * KIB)
        w.reader.release(handle)


async def test_a_reader_passes_what_is_read_ahead():
    """With all turns taken by read-ahead, what a reader waits for still goes at once."""
    files = folder(300, size=3 * MIB)
    async with world(FakeService(rate=2e6), files=files, limits=Limits()) as w:
        await read_all(w, files[:4])
        began = trio.current_time()
        handle = w.reader.open(record(64 * MIB, "other"), 5)
        await w.read(handle, 0, 64 * KIB)
        assert trio.current_time() - began < 2 * LATENCY
        w.reader.release(handle)


def test_a_trail_is_forgotten():
    """After some seconds without a file the sequence begins anew."""
    files = folder(20)

    def siblings(
        ino: int, n: int, *, by_inode: bool = False, pid: int = 0
    ) -> list[tuple[int, Record]]:
        at = [other for other, _ in files].index(ino) + 1
        return files[at : at + n]

    neighbours = DirectoryReadahead(siblings, most_files=28, most_bytes=MIB)
    file = files[0][1]
    assert neighbours.finished(100, file, 0.0) == []
    assert [ino for ino, _ in neighbours.finished(101, file, 1.0)] == [102, 103, 104, 105]
    assert [ino for ino, _ in neighbours.finished(102, file, 2.0)] == list(range(106, 111))
    assert neighbours.finished(103, file, 60.0) == []


def beside(files: Sequence[tuple[int, Record]]) -> DirectoryReadahead:
    """Neighbours in a folder in one order only."""

    def siblings(
        ino: int, n: int, *, by_inode: bool = False, pid: int = 0
    ) -> Sequence[tuple[int, Record]]:
        at = [other for other, _ in files].index(ino) + 1
        return files[at : at + n]

    return DirectoryReadahead(siblings, most_files=28, most_bytes=64 * MIB)


def test_who_listed_the_folder_and_reads_its_first_file_is_on_the_way_through_it():
    """``grep -r`` and ``cp -r`` get the next files one file sooner; nobody else does."""
    files = folder(40)
    for pid, ino, sooner in ((7, 100, 28), (8, 100, 0), (7, 101, 0)):
        neighbours = beside(files)
        neighbours.listed(7, (100, 105), 0.0)
        assert len(neighbours.finished(ino, files[0][1], 1.0, pid=pid)) == sooner
    neighbours = beside(files)
    neighbours.listed(7, (100,), 0.0)
    brought = [len(neighbours.finished(ino, file, 1.0, pid=7)) for ino, file in files[:3]]
    assert brought == [28, 1, 1]
    assert neighbours.finished(139, files[39][1], 30.0, pid=7) == []


def test_of_large_files_few_come_with_the_first_one():
    """As many as 8 MiB hold; the others once it is sure that they are read."""
    for size, count in ((50_000, 28), (MIB, 8), (3 * MIB, 2), (12 * MIB, 8)):
        neighbours = beside(folder(40, size=size))
        neighbours.listed(7, (100,), 0.0)
        first = record(size, "first")
        assert len(neighbours.begun(100, first, 1.0, pid=7)) == count


def test_what_was_cached_brings_nothing_until_something_was_not():
    """Reading a cached folder asks for nothing; the first file that is not there is enough."""
    files = folder(60)
    neighbours = beside(files)
    for ino, file in files[:10]:
        assert neighbours.finished(ino, file, 1.0, cached=True) == []
    assert len(neighbours.finished(files[10][0], files[10][1], 1.0)) == 28


async def test_who_asks_for_all_of_a_folders_first_file_has_others_sent_for_with_it():
    """Where the process has just listed it: the next fourteen in the same round trip."""
    files = folder(60)
    async with world(FakeService(rate=400e6), files=files) as w:
        w.reader.listed(7, (100,))
        handle = w.reader.open(files[0][1], 100, pid=7)
        await w.read_on(handle)
        asked = [(one.id, round(one.at / LATENCY)) for one in w.service.asked[:15]]
        assert {at for _, at in asked} == {asked[0][1]}, "all at once"
        assert {id for id, _ in asked} == {file.id for _, file in files[:15]}
        w.reader.release(handle)


async def test_who_looks_at_the_head_of_a_folders_first_file_has_nothing_sent_for():
    """What ``file`` and a thumbnailer do, also in a process that has listed the folder."""
    files = folder(60)
    async with world(FakeService(rate=400e6), files=files) as w:
        w.reader.listed(7, (100,))
        handle = w.reader.open(files[0][1], 100, pid=7)
        await w.read_on(handle, 0, 16 * KIB, step=16 * KIB)
        w.reader.release(handle)
        await trio.sleep(5)
        assert {one.id for one in w.service.asked} == {files[0][1].id}
