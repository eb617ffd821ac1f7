"""The rate of requests: what the option allows, and what a 429 makes of it."""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phonofs.service.rate_limit import QUIET_S, ROUND_S, SLOWEST_PER_S, RateLimit
from phonofs.units import Rate, parse_rate

RATES = ("10/min", "5/s", "1/s", "300/min", "9/min", "1/10s", "1000/h", "25/min")

A_LITTLE = 1e-6

pauses = st.lists(st.floats(0, 100, allow_nan=False), min_size=1, max_size=200)


def most_in_a_period(times: Sequence[float], period_s: float) -> int:
    """Return how many of the sorted times lie in a half-open period at most."""
    ends = (bisect_left(times, time + period_s - A_LITTLE) for time in times)
    return max((end - begin for begin, end in enumerate(ends)), default=0)


def send(limit: RateLimit, at: float, *, urgent: bool = True) -> float:
    """Send a request as soon as the rate allows it, not before ``at``; return when."""
    while (ready_at := limit.ready_at(at, urgent=urgent)) > at:
        at = ready_at
    if limit.limited:
        limit.take(at)
    limit.sent(at)
    return at


def per_s(limit: RateLimit, now: float) -> float | int | None:
    return limit.statistics(now)["limit_per_s"]


@pytest.mark.promise("rate-is-kept")
@pytest.mark.parametrize("text", RATES)
@given(pauses=pauses)
def test_no_period_has_more_requests_than_the_rate_says(text: str, pauses: list[float]) -> None:
    """Whatever the gaps between the requests are; and nothing is held back for no reason."""
    rate = parse_rate(text)
    limit = RateLimit(rate)
    now, times = 0.0, []
    for pause_s in pauses:
        wanted_at = now + pause_s * rate.period_s / 50
        now = send(limit, wanted_at)
        times.append(now)
        if now > wanted_at:
            assert most_in_a_period(times, rate.period_s) >= max(1, rate.count // 10)
    assert most_in_a_period(times, rate.period_s) <= rate.count


@pytest.mark.parametrize("text", RATES)
def test_a_rate_is_used_up(text: str) -> None:
    """Nine tenths of it, and all of a small one."""
    rate = parse_rate(text)
    limit = RateLimit(rate)
    now = 0.0
    for _ in range(int(rate.count * 20)):
        now = send(limit, now)
    assert rate.count * 20 / now >= rate.per_s * 0.9
    now += 10 * rate.period_s
    at_once = [send(limit, now) < now + A_LITTLE for _ in range(int(rate.count))]
    assert sum(at_once) == max(1 + (rate.count >= 10), rate.count // 10)


def test_background_requests_leave_one_to_readers() -> None:
    limit = RateLimit(Rate(10, 60))
    assert send(limit, 0, urgent=False) == 0
    assert send(limit, 0) == 0
    later = send(limit, 0)
    assert later == pytest.approx(60 / 9)
    assert send(limit, later, urgent=False) == pytest.approx(3 * later)


def test_what_was_not_sent_does_not_count() -> None:
    limit = RateLimit(Rate(1, 60))
    for _ in range(1000):
        assert limit.ready_at(0, urgent=True) <= 0
        limit.put_back(limit.take(0))
    limit.take(0)
    assert limit.ready_at(0, urgent=True) == 60


def test_without_an_option_there_is_no_limit_until_a_429() -> None:
    limit = RateLimit(fast_per_s=16)
    assert not limit.limited
    times = [send(limit, n / 100) for n in range(1000)]
    assert times == [n / 100 for n in range(1000)]
    assert per_s(limit, 10) is None
    limit.note_429(9.99, 10, 10)
    assert limit.limited
    assert per_s(limit, 10) == 50, "half of the hundred a second that were too many"


def test_a_rate_that_is_not_known_is_taken_for_a_fast_one() -> None:
    """One request a minute was refused, as a service does that counts by the hour."""
    limit = RateLimit(fast_per_s=16)
    send(limit, 0)
    limit.note_429(0, 20, 0.1)
    assert per_s(limit, 0.1) == 8
    assert limit.ready_at(0.1, urgent=True) == 20


@pytest.mark.promise("rate-is-kept")
@given(st.lists(st.tuples(st.floats(0, 30), st.floats(0, 600)), max_size=60))
def test_it_never_gets_slower_than_one_in_ten_seconds(answers: list[tuple[float, float]]) -> None:
    """And each pause is kept; the request after it waits for nothing but the rate."""
    limit = RateLimit(fast_per_s=16)
    now = 0.0
    for took_s, pause_s in answers:
        sent_at = now = send(limit, now)
        now += took_s
        limit.note_429(sent_at, now + pause_s, now)
        limit_per_s = per_s(limit, now)
        assert limit_per_s is not None
        assert limit_per_s >= SLOWEST_PER_S
        wait_s = limit.ready_at(now, urgent=True) - now
        most_s = max(pause_s, 1, 1 / limit_per_s / 0.9)
        assert pause_s - A_LITTLE <= wait_s <= most_s + A_LITTLE


def test_a_429_has_nothing_sent_sooner() -> None:
    """A short pause does not stand for the time until the next request at a low rate."""
    limit = RateLimit(Rate(1, 30))
    send(limit, 0)
    limit.note_429(0, 2, 1)
    assert limit.ready_at(1, urgent=True) == pytest.approx(30)


@pytest.mark.promise("rate-is-kept")
def test_many_429_of_one_moment_halve_it_once() -> None:
    """Those to requests that were sent before, and those that come before it can have helped."""
    limit = RateLimit(fast_per_s=16)
    for n in range(16):
        limit.note_429(0, 1, n / 100)
    assert per_s(limit, 1) == 8
    limit.note_429(2, 3, 2.1)
    assert per_s(limit, 3) == 8
    limit.note_429(ROUND_S, ROUND_S, ROUND_S + 0.1)
    assert per_s(limit, 6) == 4
    limit.note_429(1, 20, 20)
    assert per_s(limit, 20) == 4, "it was sent at the former rate"
    limit.note_429(20, 21, 20)
    assert per_s(limit, 20) == 2
    assert limit.statistics(20)["throttled"] == 20


@pytest.mark.promise("rate-is-kept")
def test_each_minute_without_a_429_adds_a_tenth_until_there_is_no_limit() -> None:
    limit = RateLimit(fast_per_s=10)
    limit.note_429(0, 10, 0)
    quiet = [10 + n * QUIET_S for n in range(1, 16)]
    assert per_s(limit, quiet[0] - 0.1) == 5
    assert per_s(limit, quiet[0]) == pytest.approx(5.5)
    assert per_s(limit, quiet[2] + 1) == pytest.approx(5 * 1.1**3, abs=1e-3)
    limit.note_429(quiet[2] + 1, 0, quiet[2] + 1)
    began = quiet[2] + 2  # after the shortest pause
    assert per_s(limit, began + 59) == pytest.approx(2.5 * 1.1**3, abs=1e-3)
    assert per_s(limit, began + 60) == pytest.approx(2.5 * 1.1**4, abs=1e-3)
    assert per_s(limit, began + 19 * QUIET_S - 1) == pytest.approx(2.5 * 1.1**21, abs=1e-3)
    assert per_s(limit, began + 19 * QUIET_S) is None, "it would be twice what was too much"
    assert send(limit, 1e9) == send(limit, 1e9)


def test_with_the_option_it_recovers_to_that() -> None:
    limit = RateLimit(Rate(10, 1), fast_per_s=100)
    limit.note_429(0, 0, 0)
    assert per_s(limit, 0) == 5
    assert per_s(limit, 1 + 7 * QUIET_S) == pytest.approx(5 * 1.1**7, abs=1e-3)
    assert per_s(limit, 1 + 8 * QUIET_S) == 10
    assert per_s(limit, 1e15) == 10


def test_an_option_below_the_slowest_rate_is_kept() -> None:
    limit = RateLimit(Rate(1, 60))
    limit.note_429(0, 0, 0)
    assert per_s(limit, 0) == pytest.approx(1 / 60, abs=1e-4)
    assert per_s(limit, 1000) == pytest.approx(1 / 60, abs=1e-4)


def test_a_pause_fills_no_bucket() -> None:
    """After it they go one by one, not all that the pause has kept from going."""
    limit = RateLimit(Rate(300, 60))
    limit.note_429(0, 100, 0)
    times = [send(limit, 0) for _ in range(10)]
    assert times[0] == 100
    assert all(after - before > 0.3 for before, after in pairwise(times))


def test_another_option_holds_at_once() -> None:
    """With what is left of the former; a pause goes on."""
    limit = RateLimit(Rate(1, 60))
    send(limit, 0)
    limit.set_most(Rate(1, 10), 0)
    assert limit.ready_at(0, urgent=True) == pytest.approx(10)
    limit.set_most(None, 0)
    assert limit.ready_at(0, urgent=True) <= 0
    limit.note_429(0, 50, 0)
    limit.set_most(Rate(100, 60), 1)
    assert (per_s(limit, 1), limit.ready_at(1, urgent=True)) == (pytest.approx(1.6667), 50)
    limit.set_most(None, 2)
    assert (per_s(limit, 2), limit.ready_at(2, urgent=True)) == (None, 50)
