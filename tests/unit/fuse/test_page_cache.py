"""What the kernel is given around what a random reader asks for."""

import random

from hypothesis import given
from hypothesis import strategies as st

from phonofs.fuse.page_cache import AGAIN_S, BLOCK, GROWS, MOST, MOST_DOUBLINGS, PageCachePrefill


@given(st.lists(st.integers(0, 64 * BLOCK - 1), max_size=300))
def test_no_block_is_given_twice_and_each_read_has_its_own(offsets):
    prefill, before = PageCachePrefill(), set()
    for offset in offsets:
        blocks = prefill.wanted(offset, 0.0)
        if blocks is None:
            assert offset // BLOCK in before
            continue
        assert offset // BLOCK in blocks
        assert before.isdisjoint(blocks)
        assert len(blocks) <= 1 << MOST_DOUBLINGS
        prefill.stored(blocks, 0.0)
        before.update(blocks)


def test_who_goes_on_gets_more_at_once():
    prefill, lengths = PageCachePrefill(), []
    for block in range(0, 8000, 8):
        blocks = prefill.wanted(block * BLOCK, 0.0)
        prefill.stored(blocks, 0.0)
        lengths.append(len(blocks))
    assert lengths[: GROWS + 1] == [1] * GROWS + [2]
    assert lengths[-1] == 8


def test_what_was_not_given_is_wanted_again():
    prefill = PageCachePrefill()
    assert prefill.wanted(5 * BLOCK, 0.0) == prefill.wanted(5 * BLOCK, 0.0) == range(5, 6)


def test_a_block_asked_for_long_after_it_was_given_is_given_again():
    """It has left the page cache: the kernel asks for nothing it has."""
    prefill = PageCachePrefill()
    prefill.stored(range(5, 6), 10.0)
    assert prefill.wanted(5 * BLOCK, 10.0 + AGAIN_S / 2) is None
    assert prefill.wanted(5 * BLOCK, 10.0 + AGAIN_S) == range(5, 6)


def test_of_a_large_file_not_every_block_is_remembered_for_ever():
    prefill, places = PageCachePrefill(), random.Random(1)
    for second in range(10):
        for _ in range(MOST // 4):
            blocks = prefill.wanted(places.randrange(1 << 40), float(second))
            if blocks is not None:
                prefill.stored(blocks, float(second))
    assert len(prefill._times) < 3 * MOST
