"""What has just failed is not waited for once more, and no longer than a moment."""

import pytest

from phonofs.errors import Unavailable
from phonofs.fuse.recent_errors import FRESH_S, RecentErrors

AWAY = Unavailable("away")


def test_the_second_try_of_the_same_bytes_fails_at_once():
    """Whoever asks for some of the bytes, on whichever handle, gets the same error."""
    late = RecentErrors()
    late.note(7, 0, 131072, AWAY, 10.0)
    for start, stop in [(0, 4096), (131071, 131072), (4096, 262144)]:
        with pytest.raises(Unavailable, match="away"):
            late.check(7, start, stop, 10.0 + FRESH_S / 2)


def test_other_bytes_other_files_and_later_tries_are_asked_for():
    """Only what failed just now is refused."""
    late = RecentErrors()
    late.note(7, 0, 131072, AWAY, 10.0)
    late.check(7, 131072, 262144, 10.0)
    late.check(8, 0, 4096, 10.0)
    late.check(7, 0, 4096, 10.0 + FRESH_S)


def test_nothing_is_kept_for_long():
    """The next failure sweeps out what is not fresh any more."""
    late = RecentErrors()
    for ino in range(100):
        late.note(ino, 0, 1, AWAY, float(ino))
    late.note(99, 5, 6, AWAY, 99.1)
    late.note(99, 7, 8, AWAY, 99.0 + FRESH_S)
    assert list(late._failed) == [99]
    assert [start for _, start, _, _ in late._failed[99]] == [5, 7]
