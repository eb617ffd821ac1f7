"""Says when the next request may be sent: a token bucket that a 429 makes slower for a time.

Pure: the caller passes the time, by trio's clock. Used by :mod:`phonofs.service.limiter`.
"""

from math import inf

from phonofs.units import Rate

BURST = 10
"""This part of a period's requests may go at once; the others come at equal intervals."""

SLOWEST_PER_S = 0.1
"""One request in ten seconds: a 429 makes the rate no lower than that."""

QUIET_S = 60.0
GROWTH = 1.1
"""After each minute without a 429 the rate grows by a tenth."""

ROUND_S = 5.0
"""Once a rate was halved, a 429 does not halve it again for this time: it may be one of many that
the former rate brought."""

LEAST_PAUSE_S = 1.0
"""How long nothing is sent after a 429 that does not say how long to wait."""

LIFTED_AT = 2.0
"""Without ``max_rate``, a rate that has grown to this multiple of the one that brought the first
429 is not limited any more."""

LEARNED_PERIOD_S = 10.0
"""The period of a learned rate: no more than a second's requests go at once."""


class RateLimit:
    """How often requests are sent: as ``max_rate`` allows, and less often after a 429.

    With a rate of N requests in a period, no period has more than N: a tenth of them, or one, may
    go at once, and the others at such intervals that it adds up. If more than one may go at once,
    background requests leave one to the requests that a reader waits for.

    The first 429 halves ``max_rate``, or the fastest rate of the last seconds if there is none;
    further ones halve it again. It grows while there are none, up to ``max_rate`` or until it is
    lifted.

    Owns the bucket, as the time when it will be full (``_full_at``), its size and the interval of
    one request; the end of the pause that a 429 asked for; the learned rate, when it was halved,
    when it grows and when it is lifted; and how many requests were sent in a second. ``most`` is
    the rate that the option allows; ``limited`` says whether there is a limit at present, and
    ``throttled`` counts the 429s.
    """

    def __init__(self, most: Rate | None = None, *, fast_per_s: float = 1.0) -> None:
        """A rate without a limit is taken to have been at least ``fast_per_s`` at a 429."""
        self.most = most
        self._fast_per_s = fast_per_s
        self._learned_per_s: float | None = None
        self._lifted_per_s = inf
        self._halved_at = -inf
        self._grows_at = inf
        self._open_at = -inf
        self._full_at = -inf
        self._burst, self._interval_s = 1, 0.0
        self._second_at = -inf
        self._this_second = self._last_second = 0
        self.throttled = 0
        self.limited = False
        self._set_pace(-inf)

    def ready_at(self, now: float, *, urgent: bool) -> float:
        """Return when a request may be sent: now, if that time has come."""
        self._grow(now)
        kept = 0 if urgent or self._burst == 1 else 1
        return max(self._open_at, self._full_at - (self._burst - 1 - kept) * self._interval_s)

    def take(self, now: float) -> float:
        """Count a request that is about to be sent; return what to put back if it is not."""
        self._full_at = max(self._full_at, now) + self._interval_s
        return self._interval_s

    def put_back(self, interval_s: float) -> None:
        """Count a request no longer, since it was not sent after all."""
        self._full_at -= interval_s

    def sent(self, now: float) -> None:
        """Note that a request was sent, to know how fast that went."""
        if now - self._second_at >= 1:
            self._last_second = self._this_second if now - self._second_at < 2 else 0
            self._second_at, self._this_second = now, 0
        self._this_second += 1

    def note_429(self, sent_at: float, until: float, now: float) -> float | None:
        """A request of ``sent_at`` was answered with 429, and a pause ``until`` then.

        Return the new rate, in requests a second; None if it stays as it was.
        """
        self.throttled += 1
        self._open_at = max(self._open_at, until, now + LEAST_PAUSE_S)
        self._grow(now)
        before = self._learned_per_s
        if self._learned_per_s is None:
            fastest = max(self._this_second, self._last_second, self._fast_per_s)
            self._lifted_per_s = self.most.per_s if self.most else LIFTED_AT * fastest
            self._halve(self.most.per_s if self.most else fastest, now)
        elif sent_at >= self._halved_at and now >= self._halved_at + ROUND_S:
            self._halve(self._learned_per_s, now)
        self._grows_at = self._open_at + QUIET_S
        # The bucket does not fill during the pause, or many requests would go at its end.
        with_one_at = self._open_at + (self._burst - 1) * self._interval_s
        self._full_at = max(self._full_at, with_one_at)
        return None if self._learned_per_s == before else self._learned_per_s

    def set_most(self, most: Rate | None, now: float) -> None:
        """Allow another rate from now on; what was learned from 429s is forgotten."""
        self.most = most
        self._learned_per_s = None
        self._set_pace(now)

    def statistics(self, now: float) -> dict[str, float | int | None]:
        """Return the requests a second that are allowed by the option and at present, None for
        no limit; and how many answers were 429.
        """
        self._grow(now)
        rate = self._rate()
        return {
            "max_per_s": round(self.most.per_s, 4) if self.most else None,
            "limit_per_s": round(rate.per_s, 4) if rate else None,
            "throttled": self.throttled,
        }

    def _halve(self, per_s: float, now: float) -> None:
        slowest = min(SLOWEST_PER_S, self.most.per_s) if self.most else SLOWEST_PER_S
        self._learned_per_s = max(per_s / 2, slowest)
        self._halved_at = now
        self._set_pace(now)

    def _grow(self, now: float) -> None:
        """Let a learned rate recover."""
        if self._learned_per_s is None or now < self._grows_at:
            return
        minutes = 1 + min((now - self._grows_at) // QUIET_S, 1000)  # a larger power overflows
        self._grows_at += minutes * QUIET_S
        self._learned_per_s *= GROWTH**minutes
        if self._learned_per_s >= self._lifted_per_s:
            self._learned_per_s = None
        self._set_pace(now)

    def _rate(self) -> Rate | None:
        """Return the rate at present."""
        if self._learned_per_s is None:
            return self.most
        return Rate(self._learned_per_s * LEARNED_PERIOD_S, LEARNED_PERIOD_S)

    def _set_pace(self, now: float) -> None:
        """Make the bucket one for the present rate, with as much in it as was in the former."""
        rate, start, left = self._rate(), max(now, self._open_at), inf
        if self._interval_s:
            left = self._burst - max(self._full_at - start, 0.0) / self._interval_s
        self._burst, self._interval_s = 1, 0.0
        if rate is not None:
            self._burst = max(1, int(rate.count / BURST))
            self._burst += self._burst == 1 and rate.count >= BURST  # to leave one to readers
            self._interval_s = rate.period_s / (rate.count - self._burst + 1)
        self.limited = rate is not None
        self._full_at = start + (self._burst - min(left, self._burst)) * self._interval_s
