"""All objects in the cache: the cap, who is evicted, what is forgotten, a failing disk."""

import errno
import os
import resource
import sqlite3
import stat
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from phonofs.cache import fsck, write_behind
from phonofs.cache.blocks import BLOCK
from phonofs.cache.cache import Cache
from phonofs.cache.entry import CacheEntry
from phonofs.cache.filestore import remove_content
from phonofs.cache.index import key_of
from phonofs.cache.maintenance import remove_orphans, run_once
from phonofs.errors import UsageError
from phonofs.model import Record
from tests.support.caching import (
    MIB,
    file_of,
    fill,
    on_disk,
    open_cache,
    ramp,
    record,
    stored,
)
from tests.support.descriptors import descriptors, settled_descriptors
from tests.support.timing import Stopwatch, timely

SIZE = 100_000
CHARGE = 102_400  # in whole pages

TROUBLE = pytest.mark.expected_log("the disk cache is", "the cache lost", "the disk of the cache")


def data_of(n: int) -> bytes:
    return ramp(SIZE, n)


def record_of(n: int):
    return record(f"object-{n}", data_of(n))


def there(cache: Cache) -> list[int]:
    return [n for n in range(100) if cache.cached_bytes(record_of(n))]


def test_names_are_hashes():
    """Nothing of the service makes a path; regions, ids and fingerprints do not run together."""
    keys = {
        key_of("us", "../../etc", "x"),
        key_of("us", "../../etcx", ""),
        key_of("us.", "./../etc", "x"),
        key_of("us", "\udcff", "x"),
    }
    assert len(keys) == 4
    assert {len(key) for key in keys} == {16}


async def test_the_least_recently_used_goes_first(tmp_path: Path):
    """As a whole; what was used again stays."""
    cache = open_cache(tmp_path, 6 * CHARGE)
    for n in range(5):
        fill(cache, record_of(n), data_of(n))
    await run_once(cache)
    cache.release(cache.entry(record_of(0)))
    for n in range(5, 8):
        fill(cache, record_of(n), data_of(n))
    assert there(cache) == [0, 3, 4, 5, 6, 7]
    assert cache.statistics()["evictions"] == 2
    cache.close()


async def test_the_order_survives_a_remount(tmp_path: Path):
    """It is kept in the index."""
    cache = open_cache(tmp_path, 40 * CHARGE)
    for n in range(5):
        fill(cache, record_of(n), data_of(n))
    await run_once(cache)
    cache.release(cache.entry(record_of(0)))
    cache.close()
    cache = open_cache(tmp_path, 40 * CHARGE)
    assert cache.eviction.evict(2 * CHARGE) == 2 * CHARGE
    assert there(cache) == [0, 3, 4]
    cache.close()


async def test_what_is_being_read_is_never_evicted(tmp_path: Path):
    """However long ago it was opened."""
    cache = open_cache(tmp_path, 4 * CHARGE)
    first = cache.entry(record_of(0))
    first.write(0, data_of(0))
    for n in range(1, 10):
        fill(cache, record_of(n), data_of(n))
        await run_once(cache)
    assert first.read_now(0, SIZE) == data_of(0)
    assert cache.eviction.evict(1 << 30) > 0
    assert there(cache) == [0]
    cache.close()


async def test_what_finds_no_space_goes_to_memory(tmp_path: Path):
    """When all that is there is being read; what is on disk stays readable from there."""
    cache = open_cache(tmp_path, 3 * CHARGE)
    entries = [cache.entry(record_of(n)) for n in range(4)]
    for n, entry in enumerate(entries):
        entry.write(0, data_of(n)[: SIZE // 2])
        entry.write(SIZE // 2, data_of(n)[SIZE // 2 :])
    assert entries[-1].in_memory
    for n, entry in enumerate(entries):
        assert await entry.read(0, SIZE) == data_of(n)
        assert await entry.check()
    assert on_disk(tmp_path) <= 3 * CHARGE
    for entry in entries:
        cache.release(entry)
    await run_once(cache)
    assert cache.statistics()["memory_bytes"] == 0
    cache.close()


async def test_an_object_larger_than_the_cache_evicts_nothing(tmp_path: Path):
    """It could never be there whole."""
    cache = open_cache(tmp_path, 4 * CHARGE)
    fill(cache, record_of(0), data_of(0))
    entry = cache.entry(record("large", ramp(MIB)))
    assert entry.in_memory
    entry.write(0, ramp(MIB))
    assert entry.read_now(0, 5) == ramp(5)
    assert there(cache) == [0]
    cache.close()


async def test_one_object_has_one_entry(tmp_path: Path):
    """However many read it."""
    cache = open_cache(tmp_path)
    a, b = cache.entry(record_of(0)), cache.entry(record_of(0))
    assert a is b
    a.write(0, data_of(0))
    cache.release(a)
    await run_once(cache)
    assert b.read_now(0, 5) == data_of(0)[:5]
    cache.release(b)
    c = cache.entry(record_of(0))
    await run_once(cache)
    assert c.read_now(0, 5) == data_of(0)[:5]
    cache.close()


async def test_nothing_is_checked_twice_in_a_run(tmp_path: Path):
    """What was released and opened again is read at once."""
    cache = open_cache(tmp_path)
    fill(cache, record_of(0), data_of(0))
    await run_once(cache)
    assert cache.statistics()["open"] == 0
    entry = cache.entry(record_of(0))
    assert entry.read_now(0, SIZE) == data_of(0)
    cache.close()


@pytest.mark.parametrize(
    ("limit", "open_files"), [(20, 5), (4, 1), (resource.RLIM_INFINITY, 8), (1 << 20, 8)]
)
async def test_released_entries_have_a_quarter_of_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int, open_files: int
):
    """Few of the objects that nobody reads have one; none has at the end."""
    monkeypatch.setattr("phonofs.cache.idle_entries.IDLE", 8)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    before = settled_descriptors()
    cache = open_cache(tmp_path)
    opened = descriptors()
    for n in range(20):
        fill(cache, record_of(n), data_of(n))
        await run_once(cache)
    assert descriptors() == opened + open_files
    cache.close()
    assert descriptors() == before


def idle(cache: Cache, records: Iterable[Record]) -> list[CacheEntry]:
    """Return the released entries that keep their files open, of these objects."""
    return [entry for each in records for entry in cache._idle.of(each.region, each.id)]


async def test_a_large_object_counts_as_several_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """It has more checksums in memory; one that is too large for all is kept alone."""
    monkeypatch.setattr("phonofs.cache.idle_entries.IDLE", 6)
    for size, kept in ((SIZE + 1, 6), (SIZE, 3), (SIZE // 2, 2), (SIZE // 100, 1)):
        monkeypatch.setattr("phonofs.cache.idle_entries.IDLE_BYTES", size)
        cache = open_cache(tmp_path / str(size))
        for n in range(9):
            fill(cache, record_of(n), data_of(n))
            await run_once(cache)
        assert len(idle(cache, map(record_of, range(9)))) == kept
        cache.close()


@pytest.mark.promise("memory-is-bounded")
@pytest.mark.parametrize("open_files", [1 << 20, 256])
async def test_what_is_kept_of_closed_files_without_the_disk_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, open_files: int
):
    """As of many files whose first bytes were read: a block that did not come whole of each."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (open_files, open_files))
    cache = open_cache(tmp_path)
    records = [record(f"object-{n}", size=BLOCK) for n in range(400)]
    for each in records:
        entry = cache.entry(each)
        entry.write(0, b"x" * 1000)
        cache.release(entry)
    kept = [entry for entry in idle(cache, records) if entry.read_now(0, 1000)]
    assert 50 < len(kept) < 256
    assert cache.statistics()["memory_bytes"] == len(kept) * BLOCK <= 32 * MIB
    cache.close()


async def test_everything_is_ours_alone(tmp_path: Path):
    """Whatever the umask."""
    before = os.umask(0)
    try:
        await stored(tmp_path, record_of(0), data_of(0))
        cache = open_cache(tmp_path)
        modes = {stat.S_IMODE(p.lstat().st_mode) for p in (tmp_path / "content").rglob("*")}
        cache.close()
    finally:
        os.umask(before)
    assert modes == {0o600, 0o700}


# Forgetting


@pytest.mark.promise("withdrawn-is-gone")
async def test_a_withdrawn_object_goes_with_all_its_versions(tmp_path: Path):
    """From the disk at once; the others stay."""
    old = record("x", data_of(1))
    new = record("x", data_of(2))
    cache = open_cache(tmp_path)
    for wanted, data in ((old, data_of(1)), (new, data_of(2)), (record_of(3), data_of(3))):
        fill(cache, wanted, data)
    await run_once(cache)
    cache.forget("us-east", "x")
    assert cache.cached_bytes(old) == cache.cached_bytes(new) == 0
    assert not file_of(tmp_path, old).exists()
    assert not file_of(tmp_path, new).exists()
    assert there(cache) == [3]
    assert cache.statistics()["disk_bytes"] == on_disk(tmp_path)
    cache.close()
    cache = open_cache(tmp_path)
    assert not cache.entry(old).present
    cache.close()


async def test_a_changed_object_loses_its_old_content_alone(tmp_path: Path):
    """The content it has now is spared, open or not."""
    old, new = record("x", data_of(1)), record("x", data_of(2))
    cache = open_cache(tmp_path)
    for wanted, data in ((old, data_of(1)), (new, data_of(2))):
        fill(cache, wanted, data)
    cache.forget("us-east", "x", but=new.fingerprint)
    await run_once(cache)
    assert cache.cached_bytes(old) == 0
    assert cache.cached_bytes(new) == SIZE
    assert not file_of(tmp_path, old).exists()
    cache.close()


async def test_a_withdrawn_object_is_gone_for_who_reads_it(tmp_path: Path):
    """Also what is still coming in for it."""
    for size in (1 << 30, 0):
        folder = tmp_path / str(size)
        cache = open_cache(folder, size)
        entry = cache.entry(record_of(0))
        entry.write(0, data_of(0)[:5000])
        cache.forget("us-east", "object-0")
        assert entry.read_now(0, 10) is None
        assert await entry.read(0, 10) is None
        entry.write(0, data_of(0))
        assert not entry.present
        assert not file_of(folder, record_of(0)).exists()
        again = cache.entry(record_of(0))
        assert again is not entry
        again.write(0, data_of(0))
        cache.release(entry)
        assert again.read_now(0, SIZE) == data_of(0)
        cache.release(again)
        await run_once(cache)
        assert cache.statistics()["memory_bytes"] == 0
        cache.close()


@TROUBLE
@pytest.mark.parametrize("index_fails", [False, True])
async def test_withdrawn_content_that_is_kept_open_is_gone(tmp_path: Path, index_fails: bool):
    """Whole, or so little that only memory has it; also if the index cannot say what there is."""
    old, new, other = record("x", data_of(1)), record("x", data_of(2)), record("y", data_of(3))
    before = settled_descriptors()
    cache = open_cache(tmp_path)
    fill(cache, old, data_of(1))
    fill(cache, new, data_of(2)[:1000])
    fill(cache, other, data_of(3))
    await run_once(cache)
    opened = descriptors()
    assert cache.statistics()["memory_bytes"] > 0
    if index_fails:
        cache.backend.disk.index.abandon()
        opened = descriptors()
    cache.forget("us-east", "x")
    assert descriptors() == opened - 1
    assert not file_of(tmp_path, old).exists()
    assert cache.statistics()["memory_bytes"] == 0
    assert not cache.entry(old).present
    assert not cache.entry(new).present
    assert cache.cached_bytes(other) == SIZE
    cache.close()
    assert descriptors() <= before


async def test_an_object_is_forgotten_without_a_look_at_all_that_are_kept_open(tmp_path: Path):
    """Thousands may be withdrawn at once, while nothing else runs."""
    cache = open_cache(tmp_path)

    def calls() -> int:
        counted = 0

        def count(frame: object, event: str, argument: object) -> None:
            nonlocal counted
            counted += event == "call"

        sys.setprofile(count)
        try:
            cache.forget("us-east", "none of them")
        finally:
            sys.setprofile(None)
        return counted

    fill(cache, record_of(0), data_of(0))
    await run_once(cache)
    with_one = calls()
    for n in range(1, 30):
        fill(cache, record_of(n), data_of(n))
        await run_once(cache)
    assert 0 < calls() <= with_one
    cache.close()


async def test_removing_the_content_leaves_nothing(tmp_path: Path):
    """It goes by what lies in the directory, and a cache that is open is left alone."""
    cache = open_cache(tmp_path)
    for n in range(5):
        fill(cache, record_of(n), data_of(n))
    await run_once(cache)
    with pytest.raises(UsageError, match="another phonofs"):
        remove_content(tmp_path)
    cache.close()
    assert remove_content(tmp_path) == (5, 5 * CHARGE)
    assert on_disk(tmp_path) == 0
    cache = open_cache(tmp_path)
    assert cache.cached_bytes(record_of(0)) == 0
    assert cache.statistics()["disk_bytes"] == 0
    cache.close()


async def test_a_cache_of_size_0_removes_what_an_earlier_run_left(tmp_path: Path):
    """No content on disk means none."""
    await stored(tmp_path, record_of(0), data_of(0))
    assert on_disk(tmp_path) > 0
    cache = open_cache(tmp_path, 0)
    assert on_disk(tmp_path) == 0
    assert cache.statistics()["state"] == "off"
    entry = cache.entry(record_of(0))
    entry.write(0, data_of(0))
    cache.release(entry)
    assert on_disk(tmp_path) == 0
    cache.close()


async def test_a_second_mount_of_the_folder_says_so(tmp_path: Path):
    """Before anything is touched."""
    cache = open_cache(tmp_path)
    for size in (5 * CHARGE, 0):
        with pytest.raises(UsageError, match="another phonofs"):
            open_cache(tmp_path, size)
    cache.close()


@pytest.mark.expected_log("the cache lost")
async def test_verifying_finds_what_is_wrong(tmp_path: Path):
    """And removes it; what is good stays."""
    for n in range(3):
        await stored(tmp_path, record_of(n), data_of(n))
    with file_of(tmp_path, record_of(1)).open("r+b") as file:
        file.write(b"\xff")
    cache = open_cache(tmp_path)
    findings = {row.id: bad for row, bad in await fsck.verify(cache)}
    assert findings == {"object-0": 0, "object-1": SIZE, "object-2": 0}
    await run_once(cache)
    assert there(cache) == [0, 2]
    assert {row.id: row.bytes for row in cache.entries()} == {
        "object-0": SIZE,
        "object-2": SIZE,
    }
    assert cache.statistics()["disk_bytes"] == on_disk(tmp_path) == 2 * CHARGE
    cache.close()


# The hard cap


@pytest.mark.promise("cap-is-hard")
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    cap=st.integers(0, 6 * CHARGE),
    steps=st.lists(
        st.tuples(
            st.sampled_from(["write", "write", "write", "release", "settle", "remount", "reset"]),
            st.integers(0, 5),
            st.integers(0, SIZE),
            st.integers(0, SIZE),
        ),
        max_size=40,
    ),
)
def test_the_disk_never_has_more_than_the_cap(tmp_path_factory, cap: int, steps):
    """Whatever is written in whatever order; and what is charged for is what is there."""
    folder = tmp_path_factory.mktemp("c")

    async def run() -> None:
        cache = open_cache(folder, cap)
        entries = {}
        for what, n, offset, length in steps:
            if what == "write":
                entry = entries.setdefault(n, None) or cache.entry(record_of(n))
                entries[n] = entry
                entry.write(offset, data_of(n)[offset : offset + length])
            elif what == "settle":
                await run_once(cache)
            elif what == "remount":
                cache.close()
                cache, entries = open_cache(folder, cap), {}
            elif entries.get(n):
                cache.release(entries.pop(n)) if what == "release" else entries[n].reset()
            if (folder / "content").exists():
                assert on_disk(folder) <= cap
                assert on_disk(folder) <= cache.statistics()["disk_bytes"]
        cache.close()

    trio.run(run)


# A disk in trouble


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Set ``failing[call] = errno`` and that call of os fails on files of content."""
    codes: dict[str, int] = {}

    def wrap(name: str) -> None:
        real = getattr(os, name)

        def call(target, *args, **kwargs):
            memory = isinstance(target, int) and "memfd" in os.readlink(f"/proc/self/fd/{target}")
            if name in codes and not memory:
                raise OSError(codes[name], os.strerror(codes[name]))
            return real(target, *args, **kwargs)

        monkeypatch.setattr(os, name, call)

    for name in ("pwrite", "pread", "preadv", "unlink", "rename", "ftruncate"):
        wrap(name)
    return codes


@pytest.mark.promise("disk-trouble-is-not-the-readers")
@TROUBLE
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT])
async def test_what_the_disk_does_not_take_goes_to_memory(tmp_path: Path, failing, code: int):
    """What was written before stays readable from the disk."""
    cache = open_cache(tmp_path)
    entry = cache.entry(record_of(0))
    entry.write(0, data_of(0)[:50_000])
    failing["pwrite"] = code
    entry.write(50_000, data_of(0)[50_000:])
    assert entry.in_memory
    assert await entry.read(0, SIZE) == data_of(0)
    assert await entry.check()
    cache.release(entry)
    await run_once(cache)
    cache.close()


@TROUBLE
async def test_a_disk_that_fails_is_left_alone_and_tried_again(
    tmp_path: Path, failing, expected_log
):
    """Said once each way."""
    cache = open_cache(tmp_path)
    failing["pwrite"] = errno.EIO
    for n in range(5):
        entry = cache.entry(record_of(n))
        entry.write(0, data_of(n))
        assert entry.read_now(0, SIZE) == data_of(n)
        cache.release(entry)
    assert cache.statistics()["state"] == "off"
    assert cache.statistics()["reason"] == "input/output error"
    del failing["pwrite"]
    await run_once(cache)
    assert cache.entry(record_of(7)).in_memory
    await trio.sleep(61)
    await run_once(cache)
    assert cache.statistics()["state"] == "on"
    fill(cache, record_of(6), data_of(6))
    await run_once(cache)
    assert 6 in there(cache)
    assert len([line for line in expected_log.seen if "the disk cache is" in line]) == 2
    cache.close()


@TROUBLE
async def test_bytes_the_disk_does_not_give_are_fetched_again(tmp_path: Path, failing):
    """A read error is a miss."""
    await stored(tmp_path, record_of(0), data_of(0))
    cache = open_cache(tmp_path)
    entry = cache.entry(record_of(0))
    failing["pread"] = failing["preadv"] = errno.EIO
    assert await entry.read(0, 10) is None
    assert not entry.present
    cache.close()


@TROUBLE
async def test_what_cannot_be_removed_is_not_taken_for_free_space(tmp_path: Path, failing):
    """The cap holds then too."""
    cache = open_cache(tmp_path, 340_000)
    for n in range(3):
        fill(cache, record_of(n), data_of(n))
        await run_once(cache)
    failing["unlink"] = failing["rename"] = errno.EROFS
    entry = cache.entry(record_of(4))
    entry.write(0, data_of(4))
    assert entry.in_memory
    assert {0, 1, 2} <= set(there(cache))
    assert on_disk(tmp_path) == 3 * CHARGE
    failing.clear()
    cache.close()


@TROUBLE
async def test_a_folder_removed_under_us_is_survived(tmp_path: Path):
    """What is open is read on, the rest goes to memory."""
    await stored(tmp_path / "c", record_of(1), data_of(1))
    cache = open_cache(tmp_path / "c")
    open_one = cache.entry(record_of(0))
    open_one.write(0, data_of(0))
    for path in sorted((tmp_path / "c").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (tmp_path / "c").rmdir()
    assert await open_one.read(0, SIZE) == data_of(0)
    gone = cache.entry(record_of(1))
    assert gone.read_now(0, 10) is None
    assert await gone.read(0, 10) is None
    for n in range(2, 8):
        entry = cache.entry(record_of(n))
        entry.write(0, data_of(n))
        assert await entry.read(0, SIZE) == data_of(n)
        assert await entry.check()
        cache.release(entry)
        await run_once(cache)
    cache.forget("us-east", "object-0")
    cache.close()


@TROUBLE
async def test_a_failing_index_is_survived(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Bytes are read on; nothing new goes to disk."""
    cache = open_cache(tmp_path)
    fill(cache, record_of(0), data_of(0))
    await run_once(cache)
    cache.backend.disk.index.abandon()
    for n in range(5):
        entry = cache.entry(record_of(n))
        entry.write(0, data_of(n))
        assert await entry.read(0, SIZE) == data_of(n)
        assert await entry.check()
        cache.release(entry)
    assert cache.cached_bytes(record_of(50)) == 0
    cache.forget("us-east", "object-0")
    assert cache.eviction.evict(1) == 0
    cache.statistics()


@TROUBLE
@pytest.mark.parametrize("code", [errno.EROFS, errno.ENOSPC])
async def test_a_disk_that_fails_from_the_start_means_no_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
):
    """And not no mount."""

    def fail(*args: object, **kwargs: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "mkdir", fail)
    cache = open_cache(tmp_path)
    assert cache.statistics()["state"] == "off"
    assert cache.statistics()["reason"] == os.strerror(code).lower()
    fill(cache, record_of(0), data_of(0))
    cache.close()


# The index


@pytest.mark.expected_log("the index of the cache is damaged", "the disk cache is")
@pytest.mark.parametrize(
    "junk", [b"not a database at all" * 500, b"SQLite format 3\0" + b"x" * 9000]
)
async def test_a_damaged_index_means_an_empty_cache(tmp_path: Path, junk: bytes):
    """And the files it stood for are removed in time."""
    await stored(tmp_path, record_of(0), data_of(0))
    for path in (tmp_path / "content").glob("index.sqlite*"):
        path.unlink()
    (tmp_path / "content" / "index.sqlite").write_bytes(junk)
    cache = open_cache(tmp_path)
    assert there(cache) == []
    fill(cache, record_of(1), data_of(1))
    await run_once(cache)
    await remove_orphans(cache, 0.0)
    assert there(cache) == [1]
    assert not file_of(tmp_path, record_of(0)).exists()
    assert on_disk(tmp_path) == CHARGE
    cache.close()


async def test_a_row_changed_by_somebody_claims_nothing(tmp_path: Path):
    """Its hash shows it."""
    await stored(tmp_path, record_of(0), data_of(0))
    index = sqlite3.connect(tmp_path / "content" / "index.sqlite")
    with index:
        index.execute("UPDATE object SET verified = 0, size = size + 1")
    index.close()
    cache = open_cache(tmp_path)
    assert not cache.entry(record_of(0)).present
    cache.close()


@pytest.mark.parametrize("name", ["index.sqlite", "index.sqlite-wal", "index.sqlite-shm"])
async def test_a_link_planted_for_the_index_is_not_followed(tmp_path: Path, name: str):
    """What it points at stays as it is."""
    open_cache(tmp_path / "c").close()
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious" * 1000)
    planted = tmp_path / "c" / "content" / name
    planted.unlink(missing_ok=True)
    planted.symlink_to(victim)
    cache = open_cache(tmp_path / "c")
    fill(cache, record_of(0), data_of(0))
    cache.close()
    assert victim.read_bytes() == b"precious" * 1000


async def test_planted_links_in_the_place_of_content_are_not_followed(tmp_path: Path, expected_log):
    """Neither a shard nor a file."""
    expected_log.expect("the disk cache is", "the cache lost")
    victim = tmp_path / "victim"
    victim.mkdir()
    cache = open_cache(tmp_path / "c")
    shard = file_of(tmp_path / "c", record_of(0)).parent
    shard.symlink_to(victim)
    fill(cache, record_of(0), data_of(0))
    await run_once(cache)
    assert list(victim.iterdir()) == []
    cache.close()


async def test_a_hundred_thousand_objects_do_not_hold_a_mount_up(tmp_path: Path):
    """Nothing is loaded but two numbers."""
    open_cache(tmp_path).close()
    index = sqlite3.connect(tmp_path / "content" / "index.sqlite")
    with index:
        index.executemany(
            "INSERT INTO object(key, region, id, checksum, size, bytes, charge, used, open)"
            " VALUES(?, 'us-east', ?, '', 1, 1, 1, ?, 0)",
            ((os.urandom(16), str(n), n) for n in range(100_000)),
        )
    index.close()
    watch = Stopwatch()
    cache = open_cache(tmp_path)
    took_s = watch.seconds
    assert cache.statistics()["disk_bytes"] == 100_000
    assert timely(took_s, 0.5)
    cache.close()


@TROUBLE
async def test_without_descriptors_nothing_on_disk_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """This run does without what it cannot open; a later one has it still."""
    await stored(tmp_path, record_of(0), data_of(0))
    cache = open_cache(tmp_path)
    entry = cache.entry(record_of(0))

    def none(*args: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("phonofs.cache.filestore._open_file", none)
    assert await entry.read(0, 10) is None
    assert not entry.present
    entry.write(0, data_of(0))
    assert entry.in_memory
    assert entry.read_now(0, SIZE) == data_of(0)
    cache.release(entry)
    await run_once(cache)
    assert cache.statistics()["disk_bytes"] == on_disk(tmp_path) == CHARGE
    monkeypatch.undo()
    cache.close()
    cache = open_cache(tmp_path)
    assert cache.entry(record_of(0)).verified
    cache.close()


async def test_less_than_a_block_is_not_kept(tmp_path: Path):
    """It could not be checked later, so it does not cost anything either."""
    cache = open_cache(tmp_path)
    entry = cache.entry(record("large", ramp(MIB)))
    entry.write(5000, ramp(MIB)[5000:9000])
    cache.release(entry)
    await run_once(cache)
    assert on_disk(tmp_path) == cache.statistics()["disk_bytes"] == 0
    assert list(cache.entries()) == []
    entry = cache.entry(record("large", ramp(MIB)))
    entry.write(0, ramp(MIB))
    assert await entry.check()
    cache.close()


@TROUBLE
async def test_what_is_charged_for_is_right_again_after_trouble(tmp_path: Path):
    """Also where the index missed something meanwhile."""
    cache = open_cache(tmp_path)
    for n in range(3):
        fill(cache, record_of(n), data_of(n))
    await run_once(cache)
    entry = cache.entry(record_of(3))
    entry.write(0, data_of(3)[:50_000])
    for _ in range(3):
        cache.backend.failed(sqlite3.OperationalError("disk I/O error"))
    cache.backend.budget.recount(12345)
    await trio.sleep(61)
    await run_once(cache)
    assert cache.statistics()["state"] == "on"
    assert cache.statistics()["disk_bytes"] == on_disk(tmp_path)
    cache.close()


@pytest.mark.parametrize("at", ["begin", "finish", "write_files"])
async def test_without_memory_for_the_last_save_the_folder_is_released(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
):
    """The next mount can use it, and no descriptor is left."""
    before = settled_descriptors()
    cache = open_cache(tmp_path)
    fill(cache, record_of(0), data_of(0))

    def no_memory(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as short:
        short.setattr(write_behind, at, no_memory)
        with pytest.raises(MemoryError):
            cache.close()
    open_cache(tmp_path).close()
    assert descriptors() == before
