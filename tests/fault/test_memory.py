"""Out of memory, at a block and at large: EIO or right bytes, and the mount lives on."""

import contextlib
import errno
import resource
import shutil

import pytest

from phonofs.cache import entry, stored_blocks
from phonofs.cache.blockfile import BlockFile
from phonofs.cache.blocks import BlockChecksums
from phonofs.cache.buffers import BufferPool
from phonofs.cache.entry import CacheEntry
from phonofs.cache.index import Index
from phonofs.errors import PhonofsError
from phonofs.fakeservice.options import Options
from phonofs.reader.download import Download
from phonofs.reader.open_object import OpenObject
from phonofs.service import connection
from phonofs.service import http11 as wire
from tests.fault import scene as scenes
from tests.fault.tools import quiet
from tests.fault.tools import reading as readers_of
from tests.support.accounts import content_of, flat
from tests.support.descriptors import descriptors, settled_descriptors
from tests.support.mounts import files, mounted, standing, until
from tests.support.timing import timely

SIZES = (1, 4095, 300_000, (2 << 20) + 17)
DEADLINE_S = 20.0
READERS = 60
SIZE = 400_000
HEADROOM = 4 << 20
"""Less than a tenth of what so many readers need; without any, Python itself would end."""
SIGNS = ("want of memory", "can't start new thread", "failed to allocate")


@pytest.mark.promise("no-memory-is-eio")
@pytest.mark.fuse
def test_out_of_memory_at_large(tmp_path):
    """Hardly a page more while 60 read: each gets its bytes or EIO, soon; then all is right."""
    with (
        standing(flat(*[SIZE] * READERS), Options(bytes_per_s=2 << 20)) as stand_in,
        mounted(stand_in.url, tmp_path, read_deadline="2s", timeout="2s") as mount,
    ):
        paths = files(mount.point)
        pid = mount.process.pid
        limit(pid, vm_size_of(pid) + HEADROOM)
        with readers_of((path, 0, SIZE) for path in paths) as readers:
            ends = readers.ends()
        assert {got for got, _ in ends if got < 0} <= {-errno.EIO}
        assert timely(max(took for _, took in ends), 10)
        assert vm_size_of(pid) <= resource.prlimit(pid, resource.RLIMIT_AS)[0]
        assert any(sign in mount.log_text() for sign in SIGNS), "it did not fire"
        limit(pid, resource.RLIM_INFINITY)
        until(lambda: all(read(path) is not None for path in paths))
        for number, path in enumerate(paths):
            assert read(path) == content_of(stand_in.service, f"{number:08d}")
        until(lambda: quiet(mount))
        assert mount.stop() == 0


def limit(pid, size):
    resource.prlimit(pid, resource.RLIMIT_AS, (size, resource.RLIM_INFINITY))


def vm_size_of(pid):
    """Bytes of address space that a process has."""
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def read(path):
    try:
        return path.read_bytes()
    except OSError:
        return None


# at a block

PLACES = {
    "disk and memory": [
        (BlockFile, "read_into"), (BlockFile, "view_nowait"), (BlockFile, "write_blocks"),
        (BufferPool, "__setitem__"), (CacheEntry, "__init__"),
    ],
    "blocks": [
        (entry, "read_blocks"), (BlockChecksums, "put"), (BlockChecksums, "get"),
        (BlockChecksums, "pack"), (stored_blocks, "crcs_of"), (CacheEntry, "hash_on"),
        (Index, "row"), (Index, "save"), (Index, "declare_all"), (CacheEntry, "begin_flush"),
    ],
    "reader": [
        (Download, "__init__"), (Download, "_park"), (OpenObject, "__init__"),
        (OpenObject, "cover"), (OpenObject, "write"), (OpenObject, "extend"),
        (OpenObject, "accept"),
    ],
    "wire": [
        (connection.Connection, "__init__"), (connection.Connection, "receive"),
        (connection.Connection, "receive_now"), (connection.Connection, "send"),
        (wire.ResponseBody, "__init__"), (wire.ResponseBody, "_took"), (wire, "parse_head"),
        (wire, "request_head"),
    ],
}  # fmt: skip
"""Where memory is asked for, by the kind of thing that is put into it."""


class Failing:
    """Counts the calls of some functions; the n-th of them gets no memory, once."""

    def __init__(self, places, monkeypatch):
        self.count = self.at = 0
        for owner, name in places:
            monkeypatch.setattr(owner, name, self._instead(getattr(owner, name)))

    def _instead(self, real):
        def call(*args, **kwargs):
            self.count += 1
            if self.count == self.at:
                raise MemoryError
            return real(*args, **kwargs)

        return call

    def begin(self, at):
        self.count, self.at = 0, at


async def visit(service, folder, **options):
    """One mount, all read, twice: how each read ended. That there is none is an end too."""
    ends = []
    with contextlib.suppress(PhonofsError, MemoryError):
        try:
            async with scenes.living(service, folder, **options) as scene:
                for ino in [*(await scene.tree()).values()] * 2:
                    ends.append(await ending(scene, ino))
        except BaseExceptionGroup as group:
            if group.split((PhonofsError, MemoryError))[1] is not None:
                raise
    return ends


async def ending(scene, ino):
    """As the kernel is told: right bytes, an error of the service, or EIO for what is ours."""
    try:
        return await scenes.outcome(scene, ino, DEADLINE_S)
    except MemoryError:
        return "EIO"


async def thrice(service, folder):
    """Filled; read back with a check, in a cache too small for all; through memory."""
    ends = await visit(service, folder)
    ends += await visit(service, folder, cache_size="2500K")
    return ends + await visit(service, folder / "none", cache_size="0")


@pytest.mark.promise("no-memory-is-eio")
@pytest.mark.expected_log
@pytest.mark.parametrize("what", PLACES)
def test_out_of_memory_at_a_block(tmp_path, what, monkeypatch, request):
    """Whichever block, part or buffer gets none: an error or right bytes, and nothing is held."""
    failing = Failing(PLACES[what], monkeypatch)
    most = 100 if request.config.getoption("--long") else 1
    total = one_run(tmp_path / "0", failing, 0)
    assert total > len(PLACES[what])
    step = max(1, total // most)
    for at in range(1 + step // 2, total * 9 // 10, step):  # the last calls vary in number
        one_run(tmp_path / str(at), failing, at)


def one_run(folder, failing, at):
    """The n-th call fails; how many calls there were. Then all is right, also from the disk."""
    (folder / "none").mkdir(parents=True)

    @scenes.fast
    async def run():
        async with scenes.standing(flat(*SIZES)) as service:
            failing.begin(at)
            ends = await thrice(service, folder)
            assert failing.count >= at, "it did not fire"
            assert at or ends.count("right") == len(ends) == 6 * len(SIZES)
            run.count = failing.count
            failing.begin(0)
            assert await visit(service, folder) == ["right"] * 2 * len(SIZES)

    before = settled_descriptors()
    run()
    assert descriptors() <= before, f"call {at} leaves descriptors"
    shutil.rmtree(folder)
    return run.count
