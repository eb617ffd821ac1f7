"""``verify``: what a whole content must have to be given."""

from pathlib import Path

import pytest
import trio
import trio.testing

from phonofs.errors import Corrupt
from phonofs.reader.limits import Limits
from phonofs.reader.open_object import Handle
from tests.support.caching import file_of
from tests.support.reader_world import (
    KIB,
    MIB,
    FakeService,
    Fault,
    World,
    plain,
    record,
    world,
)
from tests.unit.reader.test_cache import Running, quick

WRONG = "0" * 32
LENGTH = Limits(verify="length")
SIZES = [50_000, 9 * MIB]


@pytest.mark.expected_log("wrong content")
async def test_checksum_is_the_default():
    """A content whose checksum differs is an error, and its type is counted."""
    async with world() as w:
        handle = w.reader.open(record(50_000, checksum=WRONG), 7)
        with pytest.raises(Corrupt):
            await w.read_on(handle)
        assert w.reader.statistics()["verify"] == "checksum"
        assert w.reader.statistics()["differing"] == {"callrecording": 1}
        w.reader.release(handle)


@pytest.mark.promise("whole-is-checked")
@pytest.mark.expected_log("verify=length")
@pytest.mark.parametrize("in_memory", [False, True])
@pytest.mark.parametrize("size", SIZES)
async def test_two_fetches_that_agree_are_given(size, in_memory, expected_log):
    """Where the length is right; said once for each type, and counted."""
    async with world(limits=LENGTH, in_memory=in_memory) as w:
        for name in "ab":
            handle = w.reader.open(record(size, name, checksum=WRONG), 7)
            await w.read_on(handle)
            w.reader.release(handle)
        assert size <= w.service.sent("a") <= 2 * size
        assert w.reader.statistics()["differing"]["callrecording"] == 2
    assert sum("verify=length" in line for line in expected_log.seen) == 1


@pytest.mark.promise("whole-is-checked")
@pytest.mark.expected_log("wrong content", "verify=length")
@pytest.mark.parametrize("in_memory", [False, True])
@pytest.mark.parametrize("size", [50_000, 9 * MIB])
async def test_two_fetches_that_differ_are_an_error(size, in_memory):
    """Bytes that are wrong now and then are not those of the content."""
    flips = iter(range(100, 10_000, 100))
    service = FakeService(
        fault=lambda asked, n: Fault(flip=next(flips)) if asked.start == 0 else None
    )
    async with world(service, limits=LENGTH, in_memory=in_memory) as w:
        handle = w.reader.open(record(size, checksum=WRONG), 7)
        with pytest.raises(Corrupt):
            await w.read_blindly(handle)
        w.reader.release(handle)


@pytest.mark.expected_log("wrong content")
async def test_a_flipped_bit_is_found_all_the_same():
    """Whose checksum is right is checked by it."""
    service = FakeService(fault=lambda asked, n: Fault(flip=100) if n == 0 else None)
    async with world(service, limits=LENGTH) as w:
        handle = w.reader.open(record(50_000), 7)
        assert await w.read(handle, 0, 50_000) == plain(0, 50_000)
        w.reader.release(handle)


@pytest.mark.promise("whole-is-checked")
@pytest.mark.real_clock  # a made-up one would jump to the deadline while a thread hashes
@pytest.mark.expected_log("wrong content", "does not have its checksum", "verify=length")
async def test_what_was_accepted_is_not_taken_for_checked_by_the_next_mount(tmp_path):
    """The option may be another one then."""
    for limits, gives in ((LENGTH, True), (Limits(), False)):
        async with Running(tmp_path / "cache", quick(), limits=limits) as w:
            for _ in range(2):
                handle = w.reader.open(record(50_000, checksum=WRONG), 7)
                try:
                    await w.read_on(handle)
                    assert gives
                except Corrupt:
                    assert not gives
                w.reader.release(handle)


class SlowCheck:
    """Has the check of a content wait until ``done`` is set."""

    def __init__(self, handle: Handle) -> None:
        self.done = trio.Event()
        self._check = handle.content.entry.check
        handle.content.entry.check = self

    async def __call__(self) -> bool:
        await self.done.wait()
        return await self._check()


async def until_complete(handle: Handle) -> None:
    """Wait until every byte is there."""
    for download in list(handle.content.downloads):
        await download.over.wait()
    assert handle.content.entry.complete


async def is_withheld(w: World, handle: Handle, start: int, stop: int, check: SlowCheck) -> None:
    """Assert that these bytes are given once the check has passed, not before."""
    given: list[bytes] = []

    async def read() -> None:
        given.append(await w.read(handle, start, stop - start))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await trio.sleep(5)
        assert not given
        check.done.set()
    assert given == [plain(start, stop)]


@pytest.mark.promise("whole-is-checked")
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0), (2, 1, 0)])
async def test_nobody_has_the_whole_before_it_was_checked(order):
    """What completes it is withheld, whichever bytes these are; others are given meanwhile."""
    async with world() as w:
        handle = w.reader.open(record(3 * MIB), 7)
        check = SlowCheck(handle)
        first, second, last = (number * MIB for number in order)
        assert await w.read(handle, first, MIB) == plain(first, first + MIB)
        await until_complete(handle)
        other = w.reader.open(record(3 * MIB), 7)
        assert await w.read(other, second, MIB) == plain(second, second + MIB)
        assert await w.read(handle, last, MIB - 1) == plain(last, last + MIB - 1)
        await is_withheld(w, handle, last + MIB - 1, last + MIB, check)
        w.reader.release(handle)
        w.reader.release(other)


@pytest.mark.promise("whole-is-checked")
@pytest.mark.parametrize("evicted", [False, True])
async def test_what_was_given_of_a_content_before_it_was_opened_counts(evicted):
    """The kernel may still have it, also what the cache has no longer."""
    async with world() as w:
        handle = w.reader.open(record(9 * MIB), 7)
        await w.read(handle, 8 * MIB, MIB)
        w.reader.release(handle)
        await trio.sleep(60)
        if evicted:
            w.cache.entries.clear()
        handle = w.reader.open(record(9 * MIB), 7)
        check = SlowCheck(handle)
        await w.read_on(handle, 0, 4 * MIB)
        await until_complete(handle)
        await w.read_on(handle, 4 * MIB, 7 * MIB)
        await is_withheld(w, handle, 7 * MIB, 8 * MIB, check)
        w.reader.release(handle)


@pytest.mark.real_clock
@pytest.mark.promise("whole-is-checked")
@pytest.mark.expected_log("the cache lost", "wrong content")
async def test_what_comes_for_bytes_that_the_cache_lost_is_withheld(tmp_path):
    """The rest was given before, when all of it was known to be right."""
    async with Running(tmp_path, quick()) as w:
        handle = w.reader.open(record(9 * MIB), 7)
        await w.read_on(handle)
        w.reader.release(handle)
    damage(file_of(tmp_path, record(9 * MIB)), 4 * MIB + 5)
    service = quick(fault=lambda asked, n: Fault(flip=4 * MIB + 7) if n == 0 else None)
    async with Running(tmp_path, service) as w:
        handle = w.reader.open(record(9 * MIB), 7)
        assert handle.content.verification.sure
        check = SlowCheck(handle)
        await w.read_on(handle, 0, 4 * MIB)
        given: list[bytes] = []

        async def read() -> None:
            given.append(await w.read(handle, 4 * MIB, 128 * KIB))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert service.asked
            assert handle.content.entry.complete
            assert not given
            check.done.set()
        assert given == [plain(4 * MIB, 4 * MIB + 128 * KIB)]
        w.reader.release(handle)


def damage(file: Path, offset: int) -> None:
    """Flip the bits of one byte."""
    with file.open("r+b") as opened:
        opened.seek(offset)
        [byte] = opened.read(1)
        opened.seek(offset)
        opened.write(bytes([byte ^ 255]))
