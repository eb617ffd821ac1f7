"""A want of memory ends neither a worker of pyfuse3 nor a handler, and the reserve comes back."""

import errno
import mmap

import pytest
import trio
from pyfuse3 import FUSEError

from phonofs.fuse import memory_pressure as workers
from phonofs.fuse.errors import ErrorStats, guarded
from phonofs.fuse.memory_pressure import RESERVE_BYTES, MemoryReserve


@pytest.fixture
def maps(monkeypatch):
    """What was mapped and not closed; ``maps.most`` is all that can be had."""

    class Maps(list):
        most = 10 * RESERVE_BYTES

    found = Maps()

    class Mapping:
        def __init__(self, fd, size):
            if sum(one.size for one in found) + size > found.most:
                raise OSError(errno.ENOMEM, "Cannot allocate memory")
            self.size = size
            found.append(self)

        def close(self):
            found.remove(self)

    monkeypatch.setattr(workers.mmap, "mmap", Mapping)
    return found


async def test_a_worker_without_memory_begins_again(maps):
    """At the first try with the reserve given up, later ones after a pause, until it is back."""
    reserve = MemoryReserve()
    assert [one.size for one in maps] == [RESERVE_BYTES]
    begun = []

    async def loop(name):
        begun.append((name, trio.current_time(), len(maps)))
        if len(begun) < 4:
            raise OSError(errno.ENOMEM, "Cannot allocate memory")
        return name

    maps.most = RESERVE_BYTES + 1
    start = trio.current_time()
    assert await reserve.outlasting(loop)("a") == "a"
    assert [(at - start, held) for _, at, held in begun] == [
        (0, 1),
        (workers.PAUSE_S, 0),
        (2 * workers.PAUSE_S, 0),
        (3 * workers.PAUSE_S, 0),
    ]
    maps.most = 10 * RESERVE_BYTES
    assert await reserve.outlasting(loop)("b") == "b"
    assert [one.size for one in maps] == [RESERVE_BYTES]


async def test_any_other_end_of_a_worker_is_its_end(maps):
    """Only a want of memory passes."""

    async def loop():
        raise OSError(errno.EBADF, "Bad file descriptor")

    with pytest.raises(OSError, match="Bad file"):
        await MemoryReserve().outlasting(loop)()


class Handlers:
    def __init__(self):
        self.error_stats = ErrorStats()

    @guarded
    async def read(self):
        raise MemoryError


@pytest.mark.expected_log("read failed for want of memory")
async def test_a_handler_without_memory_is_eio_and_gives_the_reserve_up(maps):
    """Also where there is none to log or count it in."""
    handlers = Handlers()
    with pytest.raises(FUSEError) as caught:
        await handlers.read()
    assert caught.value.errno == errno.EIO
    assert not maps

    def failing(operation, error):
        raise MemoryError

    handlers.error_stats.answer = failing
    with pytest.raises(FUSEError) as caught:
        await handlers.read()
    assert caught.value.errno == errno.EIO


def test_the_reserve_costs_no_memory():
    """It is address space that nobody touches."""
    before = _resident()
    reserves = [MemoryReserve() for _ in range(8)]
    assert _resident() - before < RESERVE_BYTES
    [reserve.give_up() for reserve in reserves]


def _resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * mmap.PAGESIZE
