"""Answers that do not say how long they are: what they may cost, and what they do not prove."""

import hashlib

import pytest
import trio

from phonofs.errors import Corrupt
from tests.support.reader_world import KIB, MIB, Asked, FakeService, Fault, plain, record, world

SURPLUS = 64 * KIB


@pytest.mark.parametrize("surplus", [0, SURPLUS])
@pytest.mark.parametrize("framed", [True, False])
@pytest.mark.parametrize("way", ["range", "stream"])
@pytest.mark.expected_log("wrong content")
async def test_a_whole_that_came_without_a_length_is_checked(way, framed, surplus):
    """False bytes are not given, whether more comes than the record says or not."""

    def fault(asked: Asked, number: int) -> Fault:
        return Fault(silent=True, framed=framed, flip=0)

    service = FakeService(fault=fault, way=way, sizes={"a": MIB + surplus})
    async with world(service) as w:
        handle = w.reader.open(record(MIB), 7)
        with pytest.raises(Corrupt), trio.fail_after(30):
            await w.read(handle, 0, MIB)
        w.reader.release(handle)


@pytest.mark.parametrize("framed", [True, False])
@pytest.mark.expected_log("wrong content")
async def test_a_check_waits_for_the_end_of_an_answer_without_a_length(framed):
    """All bytes are there, the end is not: whoever waits for the check leaves others their turn.

    The first content is wrong, so that of the second nothing is given before it was checked.
    """

    def fault(asked: Asked, number: int) -> Fault:
        return Fault(silent=True, framed=framed, flip=0 if number == 0 else None)

    surplus = 0 if framed else SURPLUS
    service = FakeService(fault=fault, way="stream", sizes={"a": MIB + surplus})
    async with world(service) as w:
        handle = w.reader.open(record(MIB), 7)
        with trio.fail_after(30):
            assert await w.read(handle, 0, MIB) == plain(0, MIB)
        w.reader.release(handle)


async def test_a_try_without_a_length_says_nothing_of_the_next_one():
    """The first answer broke off; the second is a part, shorter than asked for: not the end."""
    faults = [Fault(silent=True, cut_after=256 * KIB), Fault(short=128 * KIB)]
    service = FakeService(fault=lambda asked, number: faults.pop(0) if faults else None)
    async with world(service) as w:
        handle = w.reader.open(record(MIB, checksum=""), 7)
        assert await w.read(handle, 0, MIB) == plain(0, MIB)
        assert (w.sizes, service.looks, len(service.asked)) == ([], 0, 3)
        w.reader.release(handle)


async def test_what_comes_for_ever_after_the_content_is_not_waited_for():
    """Only a close would end it: whatever comes behind, the checksum decides."""
    service = FakeService(
        fault=lambda asked, number: Fault(silent=True, framed=False),
        way="stream",
        sizes={"a": 100_000 * MIB},
    )
    async with world(service) as w:
        handle = w.reader.open(record(MIB), 7)
        assert await w.read(handle, 0, MIB) == plain(0, MIB)
        assert service.sent() < 2 * MIB
        w.reader.release(handle)


async def test_a_length_is_not_asked_for_again_once_its_file_is_closed():
    """Nobody waits: the fetch that was given up is not taken for one that failed."""
    service = FakeService(rate=4_000_000, sizes={"a": 100 * MIB})
    async with world(service) as w:
        handle = w.reader.open(record(90 * MIB, checksum=""), 7)
        with trio.move_on_after(5):
            await w.read(handle, 90 * MIB - 1000, 1000)
        w.reader.release(handle)
        asked = len(service.asked)
        await trio.sleep(20)
        assert len(service.asked) == asked


async def test_a_shorter_whole_without_a_length_through_memory():
    """Its end makes the last bytes the whole: they are hashed then, and not checked for ever."""
    real = 5 * MIB - 1
    checksum = hashlib.md5(plain(0, real)).hexdigest()
    service = FakeService(
        fault=lambda asked, number: Fault(silent=True), way="stream", sizes={"a": real}
    )
    async with world(service, in_memory=True) as w:
        handle = w.reader.open(record(5 * MIB, checksum=checksum), 7)
        with trio.fail_after(10):
            assert await w.read(handle, 4 * MIB, MIB) == plain(4 * MIB, real)
            assert await w.read(handle, 0, MIB) == plain(0, MIB)
        w.reader.release(handle)
