"""How fast a region answers, and what follows for parts side by side. Pure."""

from math import ceil

from phonofs.reader.limits import KIB, LEAST_PART, MIB, MOST_LANES, MOST_PART

GOAL_BYTES_S = 500_000_000
"""About what one process can receive, write and serve; more lanes than reach it only cost."""

LEAST_LANES = 2
"""One that comes and one whose first byte is on the way: no gap between parts."""

PART_S = 1.0
UNKNOWN_LANES = 4
WEIGHT = 0.25


class ThroughputEstimator:
    """Smoothed measurements of one region: owned by the reader, fed by each part.

    latency_s  from request to first byte; None before the first answer
    rate       bytes a second on one connection; None before the first long body
    """

    __slots__ = ("latency_s", "rate")

    def __init__(self) -> None:
        self.latency_s: float | None = None
        self.rate: float | None = None

    def answered(self, latency_s: float) -> None:
        """A request was answered after this time."""
        self.latency_s = _smooth(self.latency_s, latency_s)

    def received(self, count: int, seconds: float) -> None:
        """So many bytes of one body came in this time; short bodies say nothing."""
        if count >= 128 * KIB:
            self.rate = _smooth(self.rate, count / max(seconds, 1e-6))

    def lanes(self, download: int) -> int:
        """How many parts of this size to have side by side."""
        if self.latency_s is None or self.rate is None:
            return UNKNOWN_LANES
        needed = GOAL_BYTES_S * (self.latency_s + download / self.rate) / download
        return max(LEAST_LANES, min(MOST_LANES, ceil(needed)))

    def most_part(self) -> int:
        """No part larger than comes in about a second: then its slot is free for others."""
        if self.rate is None:
            return MOST_PART
        return max(LEAST_PART, min(MOST_PART, int(self.rate * PART_S)))

    def reach(self) -> int:
        """How far ahead of a running part a byte is quicker to wait for than to ask for."""
        if self.latency_s is None or self.rate is None:
            return MIB
        return max(256 * KIB, min(4 * MIB, int(self.latency_s * self.rate)))


def _smooth(old: float | None, new: float) -> float:
    return new if old is None else old + WEIGHT * (new - old)
