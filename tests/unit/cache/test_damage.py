"""A damaged or lost index, and what a cache gives back: asked of the commands and of ``Cache``.

The folder is the truth: what lies in it is compared with what the cache says of it.
"""

import contextlib
import errno
import grp
import itertools
import os
import re
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio
import trio.lowlevel
import trio.testing

from phonofs.cache import maintenance
from phonofs.cache.backend import Backend
from phonofs.cache.blockfile import BlockFile
from phonofs.cache.cache import Cache
from phonofs.cache.codec import AesGcmCodec
from phonofs.cli import group, run
from phonofs.errors import UsageError
from tests.support.caching import BLOCK, MIB, fill, open_cache, ramp, record
from tests.support.descriptors import descriptors, settled_descriptors
from tests.support.failing_sqlite import look_at_statements
from tests.support.timing import FairClock

pytestmark = [pytest.mark.real_clock, pytest.mark.expected_log]

SIZE = 5000
CHARGE = 8192
COUNT = 100
PAGE = 4096


def data_of(n: int) -> bytes:
    return ramp(SIZE, n)


def record_of(n: int):
    return record(f"object-{n}", data_of(n))


def index_of(folder: Path) -> Path:
    return folder / "content" / "index.sqlite"


def content_files(folder: Path) -> list[Path]:
    """Every file of content, wherever below ``content/``; not what the cache keeps for itself."""
    own = re.compile(r"index\.sqlite.*|lock|phonofs-cache|CACHEDIR\.TAG")
    content = folder / "content"
    found = [Path(above) / name for above, _, names in os.walk(content) for name in names]
    return [path for path in found if path.parent != content or not own.match(path.name)]


def on_disk(folder: Path) -> int:
    """The bytes that they take."""
    total = 0
    for path in content_files(folder):
        with contextlib.suppress(FileNotFoundError):  # it was removed just now
            total += path.stat().st_blocks * 512
    return total


async def store(folder: Path, count: int) -> None:
    """A cache of that many checked objects, closed; its log is in its index."""
    cache = open_cache(folder)
    for n in range(count):
        entry = cache.entry(record_of(n))
        entry.write(0, data_of(n))
        assert entry.check_now()
        cache.release(entry)
    cache.close()
    assert len(content_files(folder)) == count


def filled(folder: Path, count: int = COUNT) -> None:
    """The same outside of an event loop."""
    trio.run(store, folder, count)


def phonofs(capsys, monkeypatch, folder: Path, *words: str) -> tuple[int, str, str]:
    monkeypatch.setenv("PHONOFS_CACHE_DIR", str(folder))
    status = run(group, "phonofs", ["cache", *words])
    said = capsys.readouterr()
    return status, said.out, said.err


def removed(out: str) -> int:
    """How many objects a clear said it removed."""
    found = re.match(r"(\d+) objects removed", out)
    assert found, out
    return int(found[1])


class Damage:
    """Zeroes a page of an index, and puts index and files back as they were."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files = {path: path.read_bytes() for path in content_files(folder)}
        self._index = index_of(folder).read_bytes()
        self.pages = len(self._index) // PAGE

    def restore(self) -> None:
        for path in index_of(self.folder).parent.glob("index.sqlite*"):
            path.unlink()
        for path in set(content_files(self.folder)) - set(self._files):
            path.unlink()
        for path, data in self._files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists() or path.read_bytes() != data:
                path.write_bytes(data)
        index_of(self.folder).write_bytes(self._index)

    def zero(self, page: int, start: int = 0, length: int = PAGE) -> None:
        self.restore()
        with index_of(self.folder).open("r+b") as file:
            file.seek(page * PAGE + start)
            file.write(bytes(length))


@pytest.fixture(scope="module")
def damage(tmp_path_factory: pytest.TempPathFactory) -> Damage:
    folder = tmp_path_factory.mktemp("damage") / "cache"
    filled(folder)
    return Damage(folder)


def samples(damage: Damage) -> Iterator[int]:
    """Pages of all kinds: the first ones are roots, the others leaves of tables and indexes."""
    yield from range(8)
    yield from range(8, damage.pages, max(1, (damage.pages - 8) // 3))


async def used_by_a_mount(folder: Path, cap: int = 64 * MIB) -> dict[str, object]:
    """Open it, read everything, fetch what lacks, forget one; what it says before it closes."""
    cache = open_cache(folder, cap)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(maintenance.run, cache)
        for n in range(0, COUNT, 4):
            entry = cache.entry(record_of(n))
            got = await entry.read(0, SIZE)
            assert got in (None, data_of(n))
            if not entry.complete:
                entry.write(0, data_of(n))
                assert await entry.check()
            cache.release(entry)
            if n % 20 == 0:
                assert on_disk(folder) <= cap
        cache.forget("us-east", "object-0")
        cache.eviction.evict(3 * CHARGE)
        await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    said = cache.statistics()
    cache.close()
    return said


@pytest.mark.promise("nothing-unchecked-from-disk")
def test_whatever_page_is_damaged_a_mount_caches_on(damage: Damage):
    """Now and with the next mount; and what it says it keeps is what lies in its folder."""
    for page in samples(damage):
        damage.zero(page)
        for turn in range(2):
            said = trio.run(used_by_a_mount, damage.folder)
            assert said["state"] == "on", f"page {page}, mount {turn}: {said['reason']}"
        cache = open_cache(damage.folder)
        assert cache.statistics()["disk_bytes"] == on_disk(damage.folder), f"page {page}"
        assert int(str(cache.statistics()["objects"])) == len(content_files(damage.folder))
        cache.close()


@pytest.mark.promise("nothing-unchecked-from-disk")
def test_wherever_a_page_is_damaged_a_mount_caches_on(damage: Damage):
    """A torn page: a sector of it is of zeros, so that rows have values that they cannot have."""
    for page in samples(damage):
        damage.zero(page, start=512 * (page % 8), length=512)
        for turn in range(2):
            said = trio.run(used_by_a_mount, damage.folder)
            assert said["state"] == "on", f"page {page}, mount {turn}: {said['reason']}"


@pytest.mark.promise("cap-is-hard")
def test_whatever_page_is_damaged_clear_removes_everything(damage: Damage, capsys, monkeypatch):
    """It goes by what lies in the folder."""
    for page in samples(damage):
        damage.zero(page)
        status, out, _ = phonofs(capsys, monkeypatch, damage.folder, "clear")
        assert (status, removed(out)) == (0, COUNT), f"page {page}"
        assert content_files(damage.folder) == []


def test_whatever_page_is_damaged_show_and_verify_say_so(damage: Damage, capsys, monkeypatch):
    """Once: then the cache is empty, on disk too, and usable."""
    for action in ("show", "verify"):
        for page in samples(damage):
            damage.zero(page)
            status, out, err = phonofs(capsys, monkeypatch, damage.folder, action)
            if not content_files(damage.folder):
                assert "damaged" in out + err, f"{action}, page {page}"
                assert status == (action == "verify")
            else:  # an unused page, or one whose loss is found by the seal of its row
                assert "objects" in out, f"{action}, page {page}"
            status, _, err = phonofs(capsys, monkeypatch, damage.folder, action)
            assert (status, err) == (0, ""), f"{action}, page {page}"


@pytest.mark.promise("cap-is-hard")
def test_whatever_page_is_damaged_a_size_of_0_leaves_nothing(damage: Damage):
    """No content on disk means none."""
    for page in samples(damage):
        damage.zero(page)
        cache = open_cache(damage.folder, 0)
        assert content_files(damage.folder) == [], f"page {page}"
        cache.close()


@pytest.mark.promise("cap-is-hard")
@pytest.mark.parametrize("how", ["removed", "emptied", "of another program"])
def test_a_lost_index_does_not_make_the_cap_soft(tmp_path: Path, how: str):
    """Its files are counted until they are removed, at once or by the maintenance task."""
    folder = tmp_path / "cache"
    filled(folder, 200)
    for path in folder.glob("content/index.sqlite*"):
        path.unlink()
    if how == "emptied":
        index_of(folder).touch()
    elif how == "of another program":
        other = sqlite3.connect(index_of(folder))
        other.execute("CREATE TABLE other(x)")
        other.close()
    cap = 40 * CHARGE

    async def use() -> None:
        cache = open_cache(folder, cap)
        for n in range(60):
            fill(cache, record_of(n), data_of(n))
            assert on_disk(folder) <= cap
        assert cache.statistics()["state"] == "on"
        cache.close()

    trio.run(use)
    assert content_files(folder) != []


def test_clear_needs_neither_size_nor_key(tmp_path: Path, capsys, monkeypatch):
    """Also where nothing is to be kept on disk, and where nobody has the key any more."""
    for option in ("cache_size=0", "cache_encrypt=session", "cache_encrypt=keyring"):
        filled(tmp_path, 3)
        status, out, _ = phonofs(capsys, monkeypatch, tmp_path, "clear", "-o", option)
        assert (status, removed(out)) == (0, 3), option
        assert content_files(tmp_path) == []


def test_clear_removes_what_no_row_stands_for(tmp_path: Path, capsys, monkeypatch):
    """Files of rows that were lost, whatever their names."""
    filled(tmp_path, 3)
    for shard, name in (("ab", "left"), ("cd", "0" * 30)):
        (tmp_path / "content" / shard).mkdir(exist_ok=True)
        (tmp_path / "content" / shard / name).write_bytes(b"x" * 9000)
    status, out, _ = phonofs(capsys, monkeypatch, tmp_path, "clear")
    assert (status, removed(out)) == (0, 5)
    assert content_files(tmp_path) == []


def test_clear_removes_links_and_does_not_follow_them(tmp_path: Path, capsys, monkeypatch):
    """Nothing outside of the folder goes."""
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "precious").write_text("x")
    folder = tmp_path / "cache"
    filled(folder, 3)
    (folder / "content/ab").mkdir(exist_ok=True)
    (folder / "content/ab/folder").symlink_to(victim)
    (folder / "content/00").exists() or (folder / "content/00").symlink_to(victim)
    assert phonofs(capsys, monkeypatch, folder, "clear")[0] == 0
    assert content_files(folder) == []
    assert (victim / "precious").exists()


def test_a_cache_in_use_is_not_cleared(tmp_path: Path, capsys, monkeypatch):
    """One sentence, and everything is still there."""
    filled(tmp_path, 3)
    cache = open_cache(tmp_path)
    status, _, err = phonofs(capsys, monkeypatch, tmp_path, "clear")
    cache.close()
    assert (status, len(err.splitlines())) == (1, 1)
    assert len(content_files(tmp_path)) == 3


# What is given back, and when


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """``failing[statement] = n``: the next n statements that begin so fail."""
    left: dict[str, int] = {}

    def look(statement: str) -> None:
        for begin, count in left.items():
            if count and statement.startswith(begin):
                left[begin] -= 1
                raise sqlite3.OperationalError("disk I/O error")

    look_at_statements(monkeypatch, look)
    return left


@pytest.mark.promise("cap-is-hard")
async def test_what_is_evicted_is_given_back_once(tmp_path: Path, failing: dict[str, int]):
    """Also if its row could not be deleted at first."""
    await store(tmp_path, 40)
    cap = 40 * CHARGE
    cache = open_cache(tmp_path, cap)
    failing["DELETE FROM object"] = 1
    for n in range(100, 200):
        fill(cache, record_of(n), data_of(n))
        assert on_disk(tmp_path) <= cap
    assert failing["DELETE FROM object"] == 0, "it did not fail"
    assert int(str(cache.statistics()["disk_bytes"])) >= on_disk(tmp_path)
    cache.close()


@pytest.mark.promise("cap-is-hard")
async def test_what_is_set_aside_is_given_back_once(tmp_path: Path, failing: dict[str, int]):
    """The same for what the maintenance task evicts ahead."""
    await store(tmp_path, 40)
    cap = 40 * CHARGE
    failing["DELETE FROM object"] = 1
    cache = open_cache(tmp_path, cap)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(maintenance.run, cache)
        with trio.fail_after(20):
            while failing["DELETE FROM object"]:  # noqa: ASYNC110 - the maintenance tells nobody
                await trio.sleep(0.01)
        for n in range(100, 200):
            fill(cache, record_of(n), data_of(n))
            await trio.lowlevel.checkpoint()
            assert on_disk(tmp_path) <= cap
            assert int(str(cache.statistics()["disk_bytes"])) >= on_disk(tmp_path)
        nursery.cancel_scope.cancel()
    cache.close()


@pytest.mark.promise("cap-is-hard")
async def test_what_is_forgotten_is_given_back_once(tmp_path: Path, failing: dict[str, int]):
    """Closed or being read, whatever is done with it afterwards."""
    await store(tmp_path, 10)
    cache = open_cache(tmp_path)
    failing["DELETE FROM object"] = 1
    cache.forget("us-east", "object-0")
    cache.forget("us-east", "object-0")
    entry = cache.entry(record_of(1))
    assert await entry.read(0, SIZE) == data_of(1)
    cache.forget("us-east", "object-1")
    entry.resize(SIZE + BLOCK)
    entry.resize(10)
    entry.reset()
    cache.release(entry)
    assert int(str(cache.statistics()["disk_bytes"])) >= on_disk(tmp_path) == 8 * CHARGE
    cache.close()


@pytest.mark.parametrize("large", [False, True])
async def test_a_withdrawn_object_that_was_to_be_put_down_is_given_back_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: bool
):
    """Its file cannot be made, and it is withdrawn meanwhile."""
    await store(tmp_path, 10)
    cache = open_cache(tmp_path)
    full = False
    fired: list[int] = []
    real = os.open

    def open_(path, flags, *rest, dir_fd=None, **named):
        if full and dir_fd is not None and flags & os.O_EXCL:
            fired.append(1)
            if trio.lowlevel.in_trio_run():
                cache.forget("us-east", "new")
            else:
                trio.from_thread.run_sync(cache.forget, "us-east", "new")
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, flags, *rest, dir_fd=dir_fd, **named)

    monkeypatch.setattr(os, "open", open_)
    data = ramp(400_000 if large else SIZE)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(maintenance.run, cache)
        await trio.testing.wait_all_tasks_blocked()
        full = True
        entry = cache.entry(record("new", data))
        entry.write(0, data)
        cache.release(entry)
        with trio.move_on_after(20):
            while cache.statistics()["open"]:  # noqa: ASYNC110 - as above
                await trio.sleep(0.02)
        nursery.cancel_scope.cancel()
    assert fired
    assert int(str(cache.statistics()["disk_bytes"])) >= on_disk(tmp_path)
    cache.close()
    full = False
    cache = open_cache(tmp_path)
    assert cache.statistics()["disk_bytes"] == on_disk(tmp_path) == 10 * CHARGE
    cache.close()


@pytest.mark.promise("cap-is-hard")
async def test_what_a_kill_left_on_its_way_out_counts(tmp_path: Path, monkeypatch):
    """Whichever of names, rows and bytes were removed when it came."""
    await store(tmp_path, 20)
    cap = 20 * CHARGE
    states: list[dict[Path, bytes]] = []
    content = index_of(tmp_path).parent
    real = sqlite3.connect

    def look() -> None:
        paths = [*content_files(tmp_path), *content.glob("index.sqlite*")]
        states.append({path: path.read_bytes() for path in paths})

    class Connection(sqlite3.Connection):
        def executemany(self, statement, *rest):
            if statement.startswith("DELETE FROM object"):
                look()
            return super().executemany(statement, *rest)

    async def in_thread(self, work):
        look()
        return work()

    monkeypatch.setattr(
        sqlite3, "connect", lambda *a, **named: real(*a, **named, factory=Connection)
    )
    monkeypatch.setattr(Backend, "in_thread", in_thread)
    cache = open_cache(tmp_path, cap)
    await cache.eviction.evict_ahead()
    cache.close()
    monkeypatch.undo()
    assert len(states) == 2
    for state in states:  # as a kill leaves it: the rest was not removed, nothing was closed
        for path in [*content_files(tmp_path), *content.glob("index.sqlite*")]:
            path.unlink()
        for path, data in state.items():
            path.write_bytes(data)
        assert 0 < on_disk(tmp_path) < 20 * CHARGE
        cache = open_cache(tmp_path, cap)
        assert int(str(cache.statistics()["disk_bytes"])) >= on_disk(tmp_path)
        for n in range(100, 130):
            fill(cache, record_of(n), data_of(n))
            assert on_disk(tmp_path) <= cap
        cache.close()


@pytest.mark.promise("cap-is-hard")
async def test_files_of_another_key_count_until_they_are_removed(tmp_path: Path):
    """Also if the mount that removed them was killed, and none of them has a row any more."""
    encrypted(tmp_path).close()
    for n in range(3000):
        path = tmp_path / "content" / f"{n % 256:02x}" / f"{n:030x}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    cap = 4000 * PAGE
    encrypted(tmp_path, OTHER, cap).close()
    assert len(content_files(tmp_path)) == 2000, "not all at once"
    cache = encrypted(tmp_path, OTHER, cap)
    assert int(str(cache.statistics()["disk_bytes"])) >= on_disk(tmp_path) > 0
    cache.close()


def test_statistics_ask_no_disk(tmp_path: Path, failing: dict[str, int]):
    """They are asked for each second, and a count of a million rows takes a tenth of one."""
    filled(tmp_path, 20)
    cache = open_cache(tmp_path)
    failing["SELECT"] = 1000
    for n in (1, 2):
        assert cache.statistics()["objects"] == 20, n
    assert failing["SELECT"] == 1000
    failing.clear()

    async def change() -> None:
        fill(cache, record_of(50), data_of(50))
        fill(cache, record_of(1), data_of(1))
        cache.forget("us-east", "object-2")
        cache.forget("us-east", "not there")
        cache.eviction.evict(2 * CHARGE)
        assert cache.statistics()["objects"] == len(content_files(tmp_path)) == 18

    trio.run(change)
    cache.close()


# Opening


@pytest.mark.parametrize(
    "fails", ["PRAGMA journal_mode", "SELECT max", "SELECT key", "SELECT count", "PRAGMA appl"]
)
def test_a_cache_that_cannot_be_opened_leaves_nothing_open(
    tmp_path: Path, failing: dict[str, int], fails: str
):
    """Neither a descriptor nor the lock: the next one opens it."""
    filled(tmp_path, 3)
    before = settled_descriptors()
    failing[fails] = 1
    cache = open_cache(tmp_path)
    assert cache.statistics()["state"] == "off"
    cache.close()
    assert descriptors() == before
    cache = open_cache(tmp_path)
    assert cache.statistics()["state"] == "on"
    assert cache.statistics()["objects"] == 3
    cache.close()
    assert descriptors() == before


def test_a_full_disk_does_not_pass_for_a_damaged_index(tmp_path: Path, failing: dict[str, int]):
    """What is there stays."""
    filled(tmp_path, 3)
    cache = open_cache(tmp_path)

    async def use() -> None:
        for statement in ("INSERT INTO object", "UPDATE object", "COMMIT", "BEGIN"):
            failing[statement] = 1
            fill(cache, record_of(7), data_of(7))
        assert not failing["COMMIT"], "it did not fail"

    trio.run(use)
    cache.close()
    failing.clear()
    cache = open_cache(tmp_path)
    assert cache.cached_bytes(record_of(0)) == SIZE
    cache.close()


@pytest.fixture
def closing_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server takes the bytes of a file only when it is closed, and has no space (close(2))."""
    real = BlockFile.close

    def close(self: BlockFile) -> None:
        real(self)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(BlockFile, "close", close)


@pytest.mark.usefixtures("closing_fails")
async def test_files_that_cannot_be_closed_do_not_keep_the_directory(tmp_path: Path):
    """Those that were read, those that are released only now, and one that is still in use."""
    before = settled_descriptors()
    cache = open_cache(tmp_path)
    for n in range(3):
        fill(cache, record_of(n), data_of(n))
    await maintenance.run_once(cache)
    fill(cache, record_of(3), data_of(3))
    used = cache.entry(record_of(4))
    used.write(0, data_of(4))
    cache.close()
    assert descriptors() == before
    assert cache.statistics()["errors"] == 5
    cache.release(used)
    cache = open_cache(tmp_path)
    assert cache.statistics()["objects"] == 5
    cache.close()


@pytest.mark.usefixtures("closing_fails")
async def test_a_file_that_cannot_be_closed_fails_no_read(tmp_path: Path, monkeypatch):
    """It is a failing disk: nothing is raised to the reader that releases it."""
    monkeypatch.setattr("phonofs.cache.idle_entries.IDLE", 1)
    cache = open_cache(tmp_path)
    for n in range(5):
        fill(cache, record_of(n), data_of(n))
        await maintenance.run_once(cache)
    assert (cache.statistics()["state"], cache.statistics()["reason"]) == (
        "off",
        "no space left on device",
    )
    cache.close()


async def test_an_odd_id_does_not_turn_the_cache_off(tmp_path: Path):
    """JSON may hold half a surrogate pair: its object is cached and withdrawn like any other."""
    cache = open_cache(tmp_path)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(maintenance.run, cache)
        await trio.testing.wait_all_tasks_blocked()
        for n in range(5):
            fill(cache, record(f"\udcff-{n}", data_of(n)), data_of(n))
        fill(cache, record_of(9), data_of(9))
        with trio.fail_after(20):
            while cache.statistics()["open"]:  # noqa: ASYNC110 - the maintenance tells nobody
                await trio.sleep(0.02)
        nursery.cancel_scope.cancel()
    assert (cache.statistics()["state"], cache.statistics()["errors"]) == ("on", 0)
    assert len(content_files(tmp_path)) == 6
    cache.forget("us-east", "\udcff-1")
    assert len(content_files(tmp_path)) == 5
    cache.close()


# Encryption

KEY, OTHER = AesGcmCodec(b"k" * 32), AesGcmCodec(b"o" * 32)


def encrypted(folder: Path, codec: AesGcmCodec = KEY, cap: int = 64 * MIB) -> Cache:
    return Cache.open(folder, size_bytes=cap, min_free_bytes=0, codec=codec)


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """``full(True)``: the disk takes no content any more."""
    is_full = False
    real = os.pwrite

    def pwrite(fd: int, *rest):
        if is_full and "memfd" not in os.readlink(f"/proc/self/fd/{fd}"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, *rest)

    def set_full(value: bool) -> None:
        nonlocal is_full
        is_full = value

    monkeypatch.setattr(os, "pwrite", pwrite)
    return set_full


@pytest.mark.promise("nothing-unchecked-from-disk")
async def test_blocks_that_a_full_disk_did_not_take_are_not_there(tmp_path: Path, full):
    """Not zeros, in this run or a later one."""
    data = ramp(20 * BLOCK)
    wanted = record("a", data)
    cache = encrypted(tmp_path)
    entry = cache.entry(wanted)
    entry.write(19 * BLOCK, data[19 * BLOCK :])
    half = BLOCK // 2
    for n in range(17):  # so many that the first is written early, with a gap
        at = n * BLOCK + half
        entry.write(at, data[at : at + half // 2])
    entry.write(0, data[:half])
    full(True)
    cache.release(entry)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(maintenance.run, cache)
        with trio.fail_after(20):
            while cache.statistics()["open"]:  # noqa: ASYNC110 - the maintenance tells nobody
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    full(False)
    for _ in range(2):
        entry = cache.entry(wanted)
        for start, stop in list(entry.present):
            for at in range(start, stop, PAGE):
                n = min(PAGE, stop - at)
                got = entry.read_now(at, n) or await entry.read(at, n)
                assert got in (None, data[at : at + n]), at
        got = entry.read_now(19 * BLOCK, PAGE) or await entry.read(19 * BLOCK, PAGE)
        assert got == data[19 * BLOCK : 19 * BLOCK + PAGE]
        cache.release(entry)
        cache.close()
        cache = encrypted(tmp_path)
    cache.close()


@pytest.mark.promise("nothing-unchecked-from-disk")
async def test_a_damaged_block_is_not_built_upon(tmp_path: Path):
    """A block of which a part is on disk is damaged, then the rest of it comes."""
    data = ramp(3 * BLOCK)
    wanted = record("a", data, checksum="")
    cache = encrypted(tmp_path)
    entry = cache.entry(wanted)
    entry.write(BLOCK, data[BLOCK : 3 * BLOCK])
    half = BLOCK // 2
    entry.write(0, data[:half])
    cache.release(entry)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(maintenance.run, cache)
        with trio.fail_after(20):
            while cache.statistics()["open"]:  # noqa: ASYNC110 - the maintenance tells nobody
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    (path,) = content_files(tmp_path)
    entry = cache.entry(wanted)
    entry.read_now(BLOCK, 10)  # its file is open
    with path.open("r+b") as file:
        file.seek(1000)
        file.write(b"damage")
    entry.write(half, data[half:BLOCK])
    for at in range(0, 3 * BLOCK, PAGE):
        got = entry.read_now(at, PAGE) or await entry.read(at, PAGE)
        assert got in (None, data[at : at + PAGE]), at
    cache.release(entry)
    cache.close()
    cache = encrypted(tmp_path)
    entry = cache.entry(wanted)
    for at in range(0, 3 * BLOCK, PAGE):
        got = entry.read_now(at, PAGE) or await entry.read(at, PAGE)
        assert got in (None, data[at : at + PAGE]), at
    cache.release(entry)
    cache.close()


async def test_a_slow_disk_does_not_stop_who_writes(tmp_path: Path, monkeypatch):
    """A thread waits for the device; the event loop goes on, also with the same object."""
    data = ramp(6 * BLOCK)
    wanted = record("a", data)
    cache = encrypted(tmp_path)
    entry = cache.entry(wanted)
    entry.write(0, data[: 4 * BLOCK])
    waiting, written = trio.Event(), trio.Event()
    token, real = trio.lowlevel.current_trio_token(), os.pread
    times_out: list[bool] = []

    def pread(fd: int, n: int, offset: int) -> bytes:
        if "memfd" not in os.readlink(f"/proc/self/fd/{fd}") and not times_out:
            times_out.append(False)
            token.run_sync_soon(waiting.set)

            async def wait() -> None:
                with trio.move_on_after(5) as scope:
                    await written.wait()
                times_out[0] = scope.cancelled_caught

            trio.from_thread.run(wait)
        return real(fd, n, offset)

    monkeypatch.setattr(os, "pread", pread)
    monkeypatch.setattr(os, "preadv", _not_at_hand(os.preadv))
    async with trio.open_nursery() as nursery:

        async def read() -> None:
            assert await entry.read(0, 3 * BLOCK) == data[: 3 * BLOCK]

        nursery.start_soon(read)
        await waiting.wait()
        entry.write(4 * BLOCK, data[4 * BLOCK : 5 * BLOCK])
        entry.write(5 * BLOCK, data[5 * BLOCK : 5 * BLOCK + 1000])
        assert entry.read_now(5 * BLOCK, 1000) == data[5 * BLOCK : 5 * BLOCK + 1000]
        written.set()
    assert times_out == [False]
    cache.release(entry)
    cache.close()


def _not_at_hand(real):
    def preadv(fd: int, buffers, offset: int, flags: int = 0) -> int:
        if flags & os.RWF_NOWAIT:
            raise OSError(errno.EAGAIN, "Resource temporarily unavailable")
        return real(fd, buffers, offset, flags)

    return preadv


def test_a_new_key_does_not_hold_the_mount_up(tmp_path: Path):
    """With ``cache_encrypt=session`` every mount has one: the files go in the background."""
    count = 3000
    cache = encrypted(tmp_path)
    cache.close()
    index = sqlite3.connect(index_of(tmp_path))
    with index:
        for n in range(count):
            key = n.to_bytes(2, "big")[::-1] + bytes(14)
            path = tmp_path / "content" / key.hex()[:2] / key.hex()[2:]
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"x")
            index.execute(
                "INSERT INTO object(key, region, id, checksum, size, bytes, charge, used, open)"
                " VALUES(?, 'us-east', ?, '', 1, 1, 4096, ?, 0)",
                (key, str(n), n),
            )
    index.close()
    cap = 5000 * 4096
    calls = _counted("unlink")
    cache = encrypted(tmp_path, OTHER, cap)
    assert calls() < count / 2, "files are removed one by one before the mount"
    assert cache.statistics()["state"] == "on"
    assert int(str(cache.statistics()["disk_bytes"])) >= on_disk(tmp_path)

    async def emptied() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(maintenance.run, cache)
            with trio.fail_after(20):
                while content_files(tmp_path):  # noqa: ASYNC110 - the maintenance tells nobody
                    await trio.sleep(0.05)
                while cache.statistics()["disk_bytes"]:  # noqa: ASYNC110 - the same
                    await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
        fill(cache, record_of(1), data_of(1))

    trio.run(emptied, clock=FairClock(1))
    cache.close()
    assert on_disk(tmp_path) > 0


def _counted(name: str) -> Callable[[], int]:
    """How often a function of ``os`` was called since."""
    count = 0
    real = getattr(os, name)

    def call(*args, **named):
        nonlocal count
        count += 1
        return real(*args, **named)

    setattr(os, name, call)

    def ended() -> int:
        setattr(os, name, real)
        return count

    return ended


async def test_evicting_ahead_lets_others_go_on(tmp_path: Path):
    """Between a few dozen objects the event loop looks at what else is to be done."""
    count = 1500
    await store(tmp_path, count)
    cache = open_cache(tmp_path, count // 2 * CHARGE)
    before = int(str(cache.statistics()["evictions"]))
    steps: list[int] = []

    async def watch() -> None:
        while True:
            steps.append(int(str(cache.statistics()["evictions"])))
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        await trio.lowlevel.checkpoint()
        nursery.start_soon(maintenance.run, cache)
        with trio.fail_after(20):
            while int(str(cache.statistics()["evictions"])) < before + count // 2:
                await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    assert max(b - a for a, b in itertools.pairwise(steps)) <= 150
    cache.close()


# The folder above


@pytest.mark.parametrize("mode", [0o777, 0o757])
def test_a_folder_that_others_can_replace_is_refused(tmp_path: Path, mode: int):
    """Who may write to the folder above can rename it and put one of theirs in its place."""
    above = tmp_path / "shared"
    above.mkdir()
    above.chmod(mode)
    for folder in (above / "cache", above / "deeper" / "cache"):
        with pytest.raises(UsageError, match=r"shared, which can be written by others"):
            open_cache(folder)
    above.chmod(mode | 0o1000)
    open_cache(above / "cache").close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_below_somebody_elses_is_refused(tmp_path: Path):
    """The owner of the folder above can do the same, also above a link on the way to it."""
    above = tmp_path / "theirs"
    above.mkdir(mode=0o755)
    (above / "cache").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(above)
    os.chown(above, 12345, 12345)
    for folder in (above / "cache", tmp_path / "link" / "cache"):
        with pytest.raises(UsageError, match=r"belongs to someone else \(uid 12345\)"):
            open_cache(folder)
    os.chown(above, 0, 12345)
    above.chmod(0o775)  # a group that nobody is in
    open_cache(above / "cache").close()


def test_a_link_in_the_target_of_a_link_is_looked_at(tmp_path: Path):
    """Who can replace it chooses the folder, although it is not in the path that is given."""
    shared, mine = tmp_path / "shared", tmp_path / "mine"
    shared.mkdir()
    mine.mkdir()
    (shared / "second").symlink_to(mine)
    (tmp_path / "first").symlink_to(shared / "second")
    open_cache(tmp_path / "first" / "cache").close()
    shared.chmod(0o777)
    with pytest.raises(UsageError, match=r"shared, which can be written by others"):
        open_cache(tmp_path / "first" / "cache")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to any group")
def test_a_member_of_the_group_who_is_in_no_list_of_users_counts(tmp_path: Path, monkeypatch):
    """A directory service names the members of a group, but need not list its users."""
    above = tmp_path / "shared"
    above.mkdir()
    os.chown(above, 0, 12345)
    above.chmod(0o775)
    members = grp.struct_group(("team", "x", 12345, ["bob"]))
    monkeypatch.setattr(grp, "getgrgid", lambda gid: members)
    with pytest.raises(UsageError, match=r"shared, which can be written by others"):
        open_cache(above / "cache")


# A disk that cannot be written from the start


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "none", str(folder)]
    if os.geteuid() != 0 or subprocess.run(words, capture_output=True, check=False).returncode:
        pytest.skip("a tmpfs cannot be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.promise("disk-trouble-is-not-the-readers")
@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("trouble", ["full", "read-only"])
@pytest.mark.parametrize("size", [MIB, 0])
def test_a_disk_in_trouble_from_the_start_means_no_cache(
    tmp_path: Path, trouble: str, known: bool, size: int
):
    """Everything is read through memory; with or without a cache of an earlier run."""
    disk = tmp_path / "disk"
    with small_disk(disk, "2m"):
        folder = disk / "cache"
        if known:
            filled(folder, 3)
        if trouble == "full":
            with contextlib.suppress(OSError), (disk / "filler").open("wb", buffering=0) as file:
                while file.write(bytes(PAGE)):
                    pass
        else:
            subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        before = settled_descriptors()

        async def use() -> None:
            cache = open_cache(folder, size)
            for n in range(10):
                entry = cache.entry(record_of(n))
                if not entry.complete:
                    entry.write(0, data_of(n))
                assert (entry.read_now(0, SIZE) or await entry.read(0, SIZE)) == data_of(n)
                assert await entry.check()
                cache.release(entry)
            cache.close()

        trio.run(use)
        assert descriptors() == before
        if trouble == "full" and not size:
            assert not known or content_files(folder) == []
        if trouble == "full":
            (disk / "filler").unlink()
        else:
            subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
        cache = open_cache(folder)
        assert cache.statistics()["state"] == "on"
        cache.close()


def test_clearing_a_read_only_disk_is_one_sentence(tmp_path: Path, capsys, monkeypatch):
    """With the reason, and what to do."""
    disk = tmp_path / "disk"
    with small_disk(disk, "2m"):
        filled(disk / "cache", 3)
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        status, out, err = phonofs(capsys, monkeypatch, disk / "cache", "clear")
        assert (status, out, len(err.splitlines())) == (1, "", 1)
        assert "read-only" in err.lower()
        for action in ("show", "verify"):
            status, out, err = phonofs(capsys, monkeypatch, disk / "cache", action)
            assert (status, out, len(err.splitlines())) == (1, "", 1)


@pytest.mark.parametrize("left", ["", "phonofs ca"])
def test_a_marker_that_a_full_disk_cut_is_written_again(tmp_path: Path, left: str):
    """A part of it is not another version's."""
    filled(tmp_path, 3)
    marker = tmp_path / "content" / "phonofs-cache"
    whole = marker.read_text()
    marker.write_text(left)
    cache = open_cache(tmp_path)
    assert cache.statistics()["objects"] == 3
    cache.close()
    assert marker.read_text() == whole
