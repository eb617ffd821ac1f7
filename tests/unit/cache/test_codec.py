"""The encrypted cache: nothing in the clear on disk, nothing believed that was touched."""

import os
from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from phonofs import credentials
from phonofs.cache import codec
from phonofs.cache.blockfile import SCRATCH, EncryptedBlockFile
from phonofs.cache.blocks import BLOCK
from phonofs.cache.cache import Cache
from phonofs.cache.codec import AesGcmCodec
from phonofs.cache.filestore import FileStore
from phonofs.credentials import cache_key
from phonofs.errors import UsageError
from tests.support.caching import MIB, file_of, on_disk, ramp, record

pytestmark = pytest.mark.real_clock

KEY, OTHER = AesGcmCodec(b"k" * 32), AesGcmCodec(b"o" * 32)
DATA = ramp(3 * BLOCK + 1000)


def opened(folder: Path, codec: AesGcmCodec | None = KEY, size: int = 64 * MIB) -> Cache:
    return Cache.open(folder, size_bytes=size, min_free_bytes=0, codec=codec)


async def stored(folder: Path, codec: AesGcmCodec | None = KEY, id: str = "a") -> None:
    cache = opened(folder, codec)
    entry = cache.entry(record(id, DATA))
    for start in range(0, len(DATA), 60_000):  # not at the blocks' edges
        entry.write(start, DATA[start : start + 60_000])
    assert await entry.check()
    cache.release(entry)
    cache.close()


async def got(cache: Cache, id: str = "a") -> bytes:
    """What the cache has of the object, read in pieces; holes are left out."""
    entry = cache.entry(record(id, DATA))
    found = b""
    for start in range(0, len(DATA), 50_000):
        n = min(50_000, len(DATA) - start)
        if entry.present.covers(start, start + n):
            data = entry.read_now(start, n) or await entry.read(start, n)
            assert data is None or data == DATA[start : start + n]
            found += data or b""
    cache.release(entry)
    return found


async def test_it_survives_a_remount_with_its_key(tmp_path):
    """Checked, and served without a request."""
    await stored(tmp_path)
    cache = opened(tmp_path)
    assert await got(cache) == DATA
    assert cache.entry(record("a", DATA)).verified
    cache.close()


async def test_nothing_of_it_is_on_disk_in_the_clear(tmp_path):
    """Not while it is written, not afterwards, in no file."""
    cache = opened(tmp_path)
    entry = cache.entry(record("a", DATA))
    entry.write(0, DATA[: BLOCK + 5000])
    entry.write(2 * BLOCK + 77, DATA[2 * BLOCK + 77 : 3 * BLOCK])
    nothing_in_the_clear(tmp_path)
    cache.release(entry)
    cache.close()
    nothing_in_the_clear(tmp_path)
    assert on_disk(tmp_path) > BLOCK


def nothing_in_the_clear(folder: Path) -> None:
    """Fails where 32 bytes of the ramp, from any of its phases, lie in any file."""
    for path in (each for each in folder.rglob("*") if each.is_file()):
        data = path.read_bytes()
        assert not any(DATA[at : at + 32] in data for at in range(251)), path


@pytest.mark.parametrize(("before", "after"), [(KEY, OTHER), (KEY, None), (None, KEY)])
async def test_another_key_begins_with_an_empty_cache(tmp_path, before, after):
    """Also none before, or none now: what cannot be read any more does not stay on disk."""
    await stored(tmp_path, before)
    cache = opened(tmp_path, after)
    assert on_disk(tmp_path) == 0
    assert await got(cache) == b""
    cache.close()
    await stored(tmp_path, after)
    cache = opened(tmp_path, after)
    assert await got(cache) == DATA
    cache.close()


@pytest.mark.expected_log("the cache lost", "does not have its checksum")
@pytest.mark.parametrize(
    "at", [0, 12, 13, 20, KEY.stride - 1, KEY.stride + 40, 3 * KEY.stride + 100]
)
async def test_a_flipped_bit_is_a_miss(tmp_path, at):
    """In nonce, length, bytes or tag."""
    await stored(tmp_path)
    path = file_of(tmp_path, record("a", DATA))
    raw = bytearray(path.read_bytes())
    raw[at] ^= 1
    path.write_bytes(raw)
    cache = opened(tmp_path)
    assert len(await got(cache)) < len(DATA)
    cache.close()


@pytest.mark.expected_log("the cache lost", "does not have its checksum")
async def test_a_block_in_another_place_is_a_miss(tmp_path):
    """Nor does a block of another object under the same key pass for one of this."""
    await stored(tmp_path, id="a")
    await stored(tmp_path, id="b")
    path, other = (file_of(tmp_path, record(id, DATA)) for id in "ab")
    raw = path.read_bytes()
    path.write_bytes(
        raw[KEY.stride : 2 * KEY.stride] + other.read_bytes()[KEY.stride : 2 * KEY.stride]
    )
    cache = opened(tmp_path)
    assert await got(cache, "a") == b""
    assert await got(cache, "b") == DATA
    cache.close()


def test_two_writes_of_the_same_bytes_look_different():
    """The nonce is new each time."""
    assert KEY.encode(b"n", 0, b"same") != KEY.encode(b"n", 0, b"same")


async def test_the_cap_counts_what_is_really_on_disk(tmp_path):
    """Nonces, tags and whole pages too."""
    cache = opened(tmp_path, size=MIB)
    for number in range(300):
        data = ramp([1, 4096, 5000, BLOCK, BLOCK + 1][number % 5], number)
        entry = cache.entry(record(str(number), data))
        entry.write(0, data)
        cache.release(entry)
        if number % 20 == 0:
            await trio.lowlevel.checkpoint()
            assert on_disk(tmp_path) <= MIB
    cache.close()
    assert on_disk(tmp_path) <= MIB


def block_file(fd: int = -1) -> EncryptedBlockFile:
    fd = fd if fd >= 0 else os.memfd_create("test")
    scratch = memoryview(bytearray(2 * SCRATCH))
    return EncryptedBlockFile(fd, scratch, in_ram=True, codec=KEY, name=b"n")


RUNS = st.lists(st.tuples(st.integers(0, 7), st.integers(1, 3)), min_size=1, max_size=8)
PIECES = st.lists(
    st.tuples(st.integers(0, 5 * BLOCK), st.integers(1, 2 * BLOCK)), min_size=1, max_size=12
)


@settings(max_examples=60, deadline=None)
@given(RUNS, PIECES)
def test_whatever_is_written_is_read(runs, reads):
    """Whole blocks in any order, read at any offsets."""
    file, plain, known = block_file(), bytearray(10 * BLOCK), bytearray(10 * BLOCK)
    try:
        for turn, (first, n) in enumerate(runs):
            data = ramp(n * BLOCK, first + turn)
            file.write_blocks(first, data)
            plain[first * BLOCK : (first + n) * BLOCK] = data
            known[first * BLOCK : (first + n) * BLOCK] = b"\1" * len(data)
            for at, count in reads:
                if 0 not in known[at : at + count]:
                    buffer = memoryview(bytearray(count))
                    assert file.read_into(at, buffer) == count
                    assert buffer == plain[at : at + count]
                    now = file.view_nowait(at, count)
                    assert now is None or now == plain[at : at + count]
    finally:
        file.close()


@given(st.integers(0, 10), st.integers(1, 3 * BLOCK))
def test_the_span_has_what_is_written(first, n):
    """No byte of the file lies beyond what it is charged for."""
    size = first * BLOCK + n
    store = FileStore(-1, in_ram=True, codec=KEY)
    start, stop = store.span(first, -(-size // BLOCK), size)
    assert start == first * KEY.stride
    fd = os.memfd_create("test")
    file = block_file(fd)
    file.write_blocks(first, bytes(n))
    assert file.read_into(first * BLOCK, memoryview(bytearray(n))) == n
    assert os.fstat(fd).st_size <= stop
    file.close()


def test_without_the_package_a_sentence_says_what_to_do(monkeypatch):
    monkeypatch.setattr(codec, "gcm", None)
    with pytest.raises(UsageError, match=r"phonofs\[encrypt\]"):
        AesGcmCodec(b"k" * 32)


class Ring:
    """A keyring in memory."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], str] = {}

    def set_password(self, service: str, name: str, text: str) -> None:
        self.kept[service, name] = text

    def get_password(self, service: str, name: str) -> str | None:
        return self.kept.get((service, name))


def test_the_key_of_a_session_is_a_new_one_each_time():
    assert cache_key("p", "off") is None
    assert len(cache_key("p", "session")) == 32
    assert cache_key("p", "session") != cache_key("p", "session")


def test_the_key_of_a_keyring_stays_and_is_the_profiles_own(monkeypatch):
    ring = Ring()
    for name in ("set_password", "get_password"):
        monkeypatch.setattr(credentials.keyring, name, getattr(ring, name))
    assert cache_key("p", "keyring") == cache_key("p", "keyring")
    assert cache_key("p", "keyring") != cache_key("q", "keyring")
    ring.kept = dict.fromkeys(ring.kept, "not a key")
    with pytest.raises(UsageError, match="not a key of phonofs"):
        cache_key("p", "keyring")


def test_a_keyring_that_keeps_nothing_is_refused(monkeypatch):
    """Never a key that is gone with the next start and said to be kept."""
    monkeypatch.setattr(credentials, "keyring", None)
    with pytest.raises(UsageError, match="cache_encrypt=session"):
        cache_key("p", "keyring")
