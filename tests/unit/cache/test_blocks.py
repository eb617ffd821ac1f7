"""Blocks, checksums and checksums, without a disk."""

import hashlib

import pytest
from crc32c import crc32c
from hypothesis import given
from hypothesis import strategies as st

from phonofs.cache.blocks import (
    BLOCK,
    BlockChecksums,
    crcs_of,
    page_ceil,
    page_floor,
    touched_blocks,
)
from phonofs.checksum import expected

sizes = st.integers(0, 6 * BLOCK)


@given(sizes, sizes)
def test_touched_blocks_cover_their_bytes(a: int, b: int):
    """The first and last byte lie in the first and last block."""
    start, stop = min(a, b), max(a, b) + 1
    first, last = touched_blocks(start, stop)
    assert first * BLOCK <= start < stop <= last * BLOCK


@given(st.integers(0, 1 << 40))
def test_pages_round_outwards(offset: int):
    """A page holds its offset."""
    assert page_floor(offset) <= offset <= page_ceil(offset)
    assert page_ceil(offset) - page_floor(offset) in (0, 4096)


@given(st.dictionaries(st.integers(0, 40), st.integers(0, 2**32 - 1)))
def test_checksums_survive_packing(crcs: dict[int, int]):
    """What was packed comes back, block for block."""
    checksums = BlockChecksums()
    for block, crc in crcs.items():
        checksums.put(block, [crc])
    again = BlockChecksums.unpack(*checksums.pack())
    assert again.known == checksums.known
    assert all(again.get(block, block + 1) == [crc] for block, crc in crcs.items())


@pytest.mark.parametrize(
    ("bounds", "crcs"),
    [
        (b"\1\0\0\0\2\0\0\0", b""),
        (b"\2\0\0\0\1\0\0\0", b"\0\0\0\0"),
        (b"\1\0\0\0", b"\0\0\0\0"),
        (b"\1\0\0", b""),
        (b"\0\0\0\0\xff\xff\xff\xff", b"\0\0\0\0"),
    ],
)
def test_packed_nonsense_is_refused(bounds: bytes, crcs: bytes):
    """Bounds that do not fit their CRCs never become checksums."""
    with pytest.raises(ValueError, match=r"."):
        BlockChecksums.unpack(bounds, crcs)


def test_a_block_has_the_crc_of_its_bytes():
    """The last block may be short."""
    data = bytes(range(256)) * (BLOCK // 256) + b"tail"
    assert crcs_of(memoryview(data)) == [crc32c(data[:BLOCK]), crc32c(b"tail")]


MD5 = hashlib.md5(b"content").digest()


@pytest.mark.parametrize(
    ("checksum", "matches"),
    [
        (MD5.hex(), True),
        (MD5.hex().upper(), True),
        (f'"{MD5.hex()}"', True),
        (hashlib.md5(b"other").hexdigest(), False),
        (hashlib.md5(MD5).hexdigest() + "-1", True),
        (MD5.hex() + "-1", False),
    ],
)
def test_a_checksum_demands_an_md5(checksum: str, matches: bool):
    """Plain, or of one part: the MD5 of the binary MD5."""
    want = expected(checksum)
    assert want is not None
    assert want.matches(MD5) is matches


@pytest.mark.parametrize("checksum", ["", "x", MD5.hex()[:31], MD5.hex() + "-2", "0" * 40])
def test_other_checksums_demand_the_length_only(checksum: str):
    """More parts than one, or no MD5 at all, cannot be checked."""
    assert expected(checksum) is None
