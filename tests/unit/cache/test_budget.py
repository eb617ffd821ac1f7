"""The budget and the health of the disk, without a disk."""

import errno

from hypothesis import given
from hypothesis import strategies as st

from phonofs.cache.breaker import PAUSE_S, TRIES, CircuitBreaker
from phonofs.cache.budget import STEP, DiskBudget


class FakeDisk:
    """A disk of ``free`` bytes and objects that can be evicted, the oldest first."""

    def __init__(self, free: int, objects: list[int] | None = None) -> None:
        self.free = free
        self.objects = objects or []
        self.budget: DiskBudget | None = None
        self.looked = 0

    def free_bytes(self) -> int:
        self.looked += 1
        return self.free

    def evict(self, n: int) -> None:
        freed = 0
        while freed < n and self.objects:
            size = self.objects.pop(0)
            freed += size
            self.free += size
            assert self.budget
            self.budget.release(size)


def budget_of(cap: int, min_free: int, disk: FakeDisk) -> DiskBudget:
    disk.budget = DiskBudget(
        cap,
        min_free,
        free_bytes=disk.free_bytes,
        evict=disk.evict,
    )
    disk.budget.recount(sum(disk.objects))
    return disk.budget


writes = st.lists(st.integers(1, 4000), max_size=60)


@given(
    st.integers(0, 20_000),
    st.integers(0, 20_000),
    st.integers(0, 40_000),
    st.lists(st.integers(1, 5000), max_size=8),
    writes,
)
def test_the_cap_and_the_free_disk_hold(
    cap: int, min_free: int, free: int, objects: list[int], sizes: list[int]
):
    """After a yes the sum is below the cap, and the disk keeps what is always left free."""
    disk = FakeDisk(free, objects)
    budget = budget_of(cap, min_free, disk)
    for size in sizes:
        if budget.reserve(size):
            disk.free -= size
            assert budget.used + budget.granted <= cap
            assert disk.free >= min_free


def test_the_limits_are_looked_at_once_a_step():
    """Writing a gigabyte by the mebibyte asks for the free disk some dozen times."""
    disk = FakeDisk(1 << 40)
    budget = budget_of(1 << 40, 0, disk)
    assert all(budget.reserve(1 << 20) for _ in range(1024))
    assert disk.looked <= 4 * (1024 << 20) // STEP


def test_space_is_freed_before_writing():
    """The oldest go, as many as are needed."""
    disk = FakeDisk(1 << 20, [4000, 4000, 4000])
    budget = budget_of(12_000, 0, disk)
    assert budget.reserve(3000)
    assert disk.objects == [4000, 4000]
    assert budget.used == 11_000


def test_it_says_no_if_nothing_can_be_evicted():
    """And a smaller one may still find some."""
    budget = budget_of(10_000, 0, FakeDisk(1 << 20))
    assert budget.reserve(9000)
    assert not budget.reserve(1001)
    assert budget.reserve(1000)
    assert not budget.reserve(1)
    assert not budget.reserve(1 << 40)


def test_a_cap_made_smaller_is_met_before_anything_is_written():
    """What the last run left is evicted down to the new cap first."""
    disk = FakeDisk(1 << 30, [5000] * 10)
    budget = budget_of(12_000, 0, disk)
    assert budget.deficit() > 0
    assert budget.reserve(1000)
    assert budget.used <= 12_000


def test_what_lacks_is_headroom_and_free_disk():
    """Maintenance evicts for both, but never more than there is."""
    disk = FakeDisk(1000, [5000])
    budget = budget_of(1 << 20, 50_000, disk)
    assert budget.deficit() == 5000
    disk.free = 1 << 20
    assert budget.deficit() == 0


FULL = OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_given_up_after_some_tries():
    """It may be a passing thing; after a few it is not."""
    health = CircuitBreaker()
    assert [health.failed(FULL, 1.0) for _ in range(TRIES)] == [False] * (TRIES - 1) + [True]
    assert not health.on
    assert "no space" in health.reason


def test_a_failing_disk_is_given_up_at_once():
    """The next write would fail too."""
    health = CircuitBreaker()
    assert health.failed(OSError(errno.EIO, "Input/output error"), 1.0)


def test_failures_far_apart_do_not_add_up():
    """A quota met once an hour does not turn the cache off."""
    health = CircuitBreaker()
    assert not any(health.failed(FULL, hour * 3600.0) for hour in range(9))
    assert health.on


def test_it_is_tried_again_after_a_pause():
    """And again a pause after a try that failed."""
    health = CircuitBreaker()
    health.failed(OSError(errno.EROFS, "Read-only file system"), 10.0)
    assert not health.due(10.0 + PAUSE_S - 1)
    assert health.due(10.0 + PAUSE_S)
    health.still_bad(FULL, 10.0 + PAUSE_S)
    assert not health.due(10.0 + PAUSE_S)
    health.worked()
    assert health.on
    assert not health.due(1e9)
