"""Ranges against a plain set of integers."""

from hypothesis import given
from hypothesis import strategies as st

from phonofs.ranges import Ranges

SPAN = st.tuples(st.integers(0, 40), st.integers(0, 40))
STEPS = st.lists(st.tuples(st.sampled_from(["add", "remove"]), SPAN), max_size=30)


def build(steps) -> tuple[Ranges, set[int]]:
    ranges, plain = Ranges(), set()
    for verb, (start, stop) in steps:
        getattr(ranges, verb)(start, stop)
        members = range(start, stop)
        plain = plain | set(members) if verb == "add" else plain - set(members)
    return ranges, plain


@given(STEPS)
def test_holds_what_was_added_and_not_removed(steps):
    ranges, plain = build(steps)
    assert {n for a, b in ranges for n in range(a, b)} == plain
    assert ranges.total() == len(plain)
    assert bool(ranges) == bool(plain)


@given(STEPS)
def test_intervals_stay_sorted_disjoint_and_apart(steps):
    ranges, _ = build(steps)
    flat = [n for pair in ranges for n in pair]
    assert flat == sorted(set(flat))


@given(STEPS, SPAN)
def test_missing_and_covers_agree_with_the_set(steps, span):
    ranges, plain = build(steps)
    wanted = set(range(*span))
    assert {n for a, b in ranges.missing(*span) for n in range(a, b)} == wanted - plain
    assert ranges.covers(*span) == (wanted <= plain)


@given(STEPS, st.integers(0, 40))
def test_stop_of_is_the_first_integer_not_in_the_set(steps, start):
    ranges, plain = build(steps)
    stop = start
    while stop in plain:
        stop += 1
    assert ranges.stop_of(start) == stop


def test_equality_is_by_content():
    """Two sets built in different order are equal."""
    assert Ranges([(0, 2), (4, 6), (2, 4)]) == Ranges([(0, 6)])
    assert Ranges([(0, 2)]) != Ranges([(0, 3)])
    assert repr(Ranges([(0, 2)])) == "Ranges([(0, 2)])"
