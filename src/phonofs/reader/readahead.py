"""How a handle reads, how far ahead of it to fetch, and in which ranges. Pure.

``Window`` follows the reads of one handle and says how many bytes to fetch beyond them. A handle
that reads in sequence gets a window of twice the sequence so far; one that keeps seeking gets
less and less on top of what it asks for. ``missing_ranges`` says which bytes of a window are
neither present nor being downloaded; ``run_on`` makes one download of what follows the first of
them, and ``split`` cuts them into several, for lines that are too slow for one connection.
``ThroughputEstimator`` measures a region, and says how many connections a read may use at a time
and how large a download may be; ``Flow`` measures one body.
"""

from collections.abc import Iterable, Iterator

from phonofs.ranges import Ranges
from phonofs.reader.limits import (
    HEADER,
    INITIAL_READAHEAD,
    KIB,
    LEAST_AHEAD,
    LEAST_PART,
    MOST_PARALLEL,
    MOST_PART,
    SLACK,
    SMALL,
)

Interval = tuple[int, int]

FAST_BYTES_S = 100_000_000
"""A connection this fast is never supported by others: a few of them are all that one process can
receive, write and serve."""

MOST_HEADERS = 3
"""After so many responses in a row that were given up when they had brought only a header."""

SAMPLE_S = 0.02
"""The shortest sample of a connection's speed; otherwise a round trip."""

WAIT_S = 0.001
"""Who waits no longer for a chunk waits for this process, not for the line."""

GROWTH = 1.3
"""A connection that brings this many times as much as in the sample before is in its slow start."""

SLOW_START_TRIPS = 3
"""A line on which a connection grows for so many round trips starts slowly."""

SETTLE_S, MEASURE_S, RETRY_S = 3.0, 1.0, 60.0
"""More connections are used this long before it is measured what they bring; for how long; and
how long the result holds."""

AS_FAST = 0.85
"""Half of the connections are enough if they bring at least this share of what all of them did."""

MOST_GRACE_S = 0.1
"""The longest time for which others wait for a connection that is paused."""

PART_S = 1.0
WEIGHT = 0.25


class Window:
    """How one handle reads; owned by it.

    next       the offset after the furthest byte of this sequence
    run_start  where the sequence began
    reads      requests in this sequence (a repeated one may be counted twice)
    seeks      short sequences in a row before this one
    Invariant: ``run_start <= next``. Reads have ``start <= stop``.
    """

    __slots__ = ("_counted", "next", "reads", "run_start", "seeks")

    def __init__(self) -> None:
        self.run_start = 0
        self.next = 0
        self.reads = 0
        self.seeks = 0
        self._counted = 0

    def note(self, start: int, stop: int) -> bool:
        """Record a read of ``[start, stop)``; return whether it was a seek."""
        if self.reads and self.next - SLACK <= start <= self.next + SLACK:
            if start == self.next - (stop - start) and stop == self.next:
                return False  # the same read once more
            self.reads += 1
            self._counted += stop - start
            self.run_start = min(self.run_start, start)
            self.next = max(self.next, stop)
            return False
        short = self.reads and self.sequential_bytes <= INITIAL_READAHEAD
        self.seeks = self.seeks + 1 if short else 0
        self.run_start, self.next, self.reads = start, stop, 1
        self._counted = stop - start
        return True

    @property
    def sequential_bytes(self) -> int:
        """Bytes read since the last seek; holes and repeated reads are not counted."""
        return min(self._counted, self.next - self.run_start)

    @property
    def is_sequential(self) -> bool:
        """Whether there was more than one read since the last seek."""
        return self.reads > 1

    def ahead(self, most: int, connections: int = 1) -> int:
        """How many bytes beyond ``next`` to fetch over so many connections, at most ``most``."""
        if not self.is_sequential:
            return min(most, INITIAL_READAHEAD >> self.seeks)
        if not self.is_long:
            return min(LEAST_AHEAD, most)
        return min(max(2, connections) * self.sequential_bytes, most)

    @property
    def is_long(self) -> bool:
        """Whether more than a header was read in sequence."""
        return self.sequential_bytes >= HEADER

    def runs_on(self, *, presumed: bool) -> bool:
        """Whether it will probably be read on from here, to its end.

        ``presumed`` until a short sequence; then it takes more than the kernel reads by itself.
        """
        return (presumed and self.seeks == 0) or self.sequential_bytes > INITIAL_READAHEAD


def download_size(ahead: int, connections: int = 1) -> int:
    """The size of a download in a window of ``ahead`` bytes, so that all connections are used."""
    return max(LEAST_PART, min(ahead // max(4, connections), MOST_PART))


def missing_ranges(
    present: Ranges, downloading: Iterable[Interval], start: int, stop: int
) -> list[Interval]:
    """The parts of ``[start, stop)`` that are neither present nor being downloaded, in order."""
    gaps = present.missing(start, stop)
    for head, end in downloading:
        gaps = [piece for gap in gaps for piece in _without(gap, head, end)]
    return gaps


def _without(gap: Interval, head: int, end: int) -> Iterator[Interval]:
    start, stop = gap
    if head >= end or end <= start or head >= stop:
        yield gap
        return
    if start < head:
        yield start, head
    if end < stop:
        yield end, stop


def run_on(
    present: Ranges, downloading: Iterable[Interval], begin: int, end: int, far_end: int
) -> list[Interval]:
    """The first gap of ``[begin, end)``, as far as it goes, at most to ``far_end``; one or none."""
    coming = list(downloading)
    gaps = missing_ranges(present, coming, begin, end)
    return missing_ranges(present, coming, gaps[0][0], far_end)[:1] if gaps else []


def reach(window: Window, stop: int, most: int) -> int:
    """How far the window of a reader that is not beyond ``stop`` reaches; else 0."""
    return window.next + window.ahead(most) if window.next <= stop else 0


def split(gaps: Iterable[Interval], size: int, open_end: int | None) -> Iterator[Interval]:
    """The gaps in pieces of about ``size`` bytes.

    A remainder of less than half a piece goes with the piece before it. A short piece that ends
    at ``open_end`` is left out: the window will move on and make it longer.
    """
    for start, stop in gaps:
        while start < stop:
            end = stop if stop - start < size + size // 2 else start + size
            if end == open_end and end - start < size:
                break
            yield start, end
            start = end


class ThroughputEstimator:
    """What was measured of the line to a region, fed by all downloads.

    latency_s    from a request to the first byte; None before the first response
    rate         bytes per second of one connection; None before the first long body
    connections  how many connections a sequential read may use at a time
    lead         bytes that one connection brings while another one becomes as fast as it is
    window       the most bytes that one connection brought in a round trip while it started

    What is known of slow starts holds for ``RETRY_S``: then one connection shows it again.

    One connection is enough until its speed turns out to be what a reader waits for. Then several
    are used. After a while half of them are tried: if these are as fast, more of them only share
    what the line or the machine can do, and the others stay given back.
    """

    __slots__ = ("_barred_until", "_bytes", "_due", "_headers", "_since", "_slow_until",
                 "_wide_bytes_s", "connections", "latency_s", "lead", "rate", "window")  # fmt: skip

    def __init__(self) -> None:
        self.latency_s: float | None = None
        self.rate: float | None = None
        self.connections = 1
        self.lead = 0
        self.window = 0.0
        self._headers = 0
        self._barred_until = self._slow_until = float("-inf")
        self._wide_bytes_s: float | None = None
        self._bytes = 0
        self._since = self._due = 0.0

    def answered(self, latency_s: float) -> None:
        """Record the time from a request to its response."""
        self.latency_s = _smooth(self.latency_s, latency_s)

    @property
    def presumes(self) -> bool:
        """Whether a file is presumed to be read to its end.

        Not while program after program wants only headers (a file manager's look at a folder): a
        short response that ends costs a round trip more when it is read on, but no connection.
        """
        return self._headers < MOST_HEADERS

    def received(self, count: int, seconds: float, *, unwanted: bool = False) -> None:
        """Record the bytes of one body and their time, and whether no reader wanted the rest.

        Short bodies say nothing of the rate.
        """
        if count >= HEADER:
            self._headers = 0
        elif unwanted:
            self._headers += 1
        if count >= 128 * KIB:
            self.rate = _smooth(self.rate, count / max(seconds, 1e-6))

    def widen(self, lead: int, now: float) -> None:
        """The speed of one connection is what a reader waits for."""
        self.lead = lead
        if self.connections == 1 and now >= self._barred_until:
            self.connections = MOST_PARALLEL
            self._measure_from(now + SETTLE_S)

    def grew(self, grown_s: float, bytes_s: float, now: float) -> None:
        """A connection that was waited for has become faster for so long, and is so fast now."""
        if now >= self._slow_until:
            self.window = 0.0  # what was known is too old
        self.window = max(self.window, bytes_s * (self.latency_s or 0.0))
        if grown_s >= SLOW_START_TRIPS * max(SAMPLE_S, self.latency_s or 0.0):
            self._slow_until = now + RETRY_S

    def starts_slowly(self, now: float) -> bool:
        """Whether each connection starts slowly, so that several of them begin faster than one.

        Not while it is known that several of them are of no use.
        """
        several = self.connections > 1 or now >= self._barred_until
        return several and now < self._slow_until

    def arrived(self, count: int, now: float) -> None:
        """Count bytes that came over any connection, and see whether so many are of use."""
        if self.connections == 1 or now < self._since:
            return
        self._bytes += count
        if now >= self._due:
            stale = now > self._due + MEASURE_S  # nobody read in the meantime
            self._compare(self._bytes / (now - self._since), now, stale=stale)

    def _measure_from(self, since: float) -> None:
        self._bytes, self._since, self._due = 0, since, since + MEASURE_S

    def _compare(self, bytes_s: float, now: float, *, stale: bool) -> None:
        wide_bytes_s, self._wide_bytes_s = self._wide_bytes_s, None
        if wide_bytes_s is None:
            if not stale:
                self._wide_bytes_s = bytes_s
                self.connections //= 2
            self._measure_from(now + MEASURE_S)
        elif stale or bytes_s < AS_FAST * wide_bytes_s:
            self.connections *= 2
            self._measure_from(now + RETRY_S)
        else:
            self._barred_until = now + RETRY_S
            self._measure_from(now + SETTLE_S)

    def largest_download(self, now: float) -> int:
        """The largest download: about a second, then its permit is free for others.

        How long one takes that starts slowly is not known from others of other sizes.
        """
        if self.rate is None or self.starts_slowly(now):
            return MOST_PART
        return max(LEAST_PART, min(MOST_PART, int(self.rate * PART_S)))

    def join_distance(self) -> int:
        """How far ahead of a download it is better to wait for it than to send a request.

        A request takes a round trip, and the bytes before it may be in the socket already: at least
        20 ms are waited for them, at most as long as a small object takes.
        """
        if self.latency_s is None or self.rate is None:
            return SMALL
        return max(256 * KIB, min(SMALL, int(max(self.latency_s, SAMPLE_S) * self.rate)))


class Flow:
    """How fast one body comes, while it is not paused.

    Owns the sums: of the whole body, and of the present sample, which lasts about a round trip.
    ``lead`` as in :class:`ThroughputEstimator`, once it is slow. ``began_at`` is since when it has
    been received, with short pauses.
    """

    __slots__ = ("_at", "_bytes", "_bytes_s", "_grown_s", "_sample_at", "_sample_bytes",
                 "_sample_waited_s", "_seconds", "_starting", "_throughput", "began_at",
                 "lead")  # fmt: skip

    def __init__(self, throughput: ThroughputEstimator, now: float) -> None:
        self._throughput = throughput
        self._bytes = 0
        self._seconds = 0.0
        self.lead = 0
        self._grown_s = 0.0
        self.began_at = self._at = now
        self.resume(now)
        self._starting = True

    def resume(self, now: float) -> None:
        """It goes on after a pause, with what has come meanwhile: that shows no growth."""
        self._starting = False
        if now - self._at > MOST_GRACE_S:
            self.began_at = now
        self._at = now
        self._bytes_s: float | None = None
        self._begin_sample(now)

    def received(self, count: int, waited_s: float, now: float) -> bool:
        """Record a chunk; return whether the connection has turned out to be slow.

        It is slow if most of a sample was spent waiting for it, it brought little, and not more
        than the sample before: a connection that is still getting faster needs no other. A sample
        ends before a chunk that had to be waited for, because bytes come in bursts.
        """
        self._throughput.arrived(count, now)
        self._bytes += count
        self._seconds += now - self._at
        self._at = now
        self._sample_waited_s += waited_s
        least_s = max(SAMPLE_S, 0.8 * (self._throughput.latency_s or 0.0))
        slow = False
        if waited_s > WAIT_S and now - self._sample_at >= least_s:
            slow = self._is_slow(now - self._sample_at, now)
            self._begin_sample(now)
        self._sample_bytes += count
        return slow

    def _is_slow(self, took_s: float, now: float) -> bool:
        before, self._bytes_s = self._bytes_s, self._sample_bytes / took_s
        waited = self._sample_waited_s > took_s / 2
        if before is None:
            return False
        if self._bytes_s > GROWTH * before:
            self._grown_s += took_s
            if waited and self._starting:
                self._throughput.grew(self._grown_s, self._bytes_s, now)
            return False
        self._starting = False
        self.lead = int(self._grown_s * self._bytes_s)
        return waited and self._bytes_s < FAST_BYTES_S

    @property
    def grace_s(self) -> float:
        """How long it is kept for a reader who is not there yet, although others wait.

        As long as it would take to ask anew.
        """
        return min(MOST_GRACE_S, self._throughput.latency_s or 0.0)

    def end(self, *, unwanted: bool) -> None:
        """No more of it is received; ``unwanted`` if no reader wanted the rest."""
        self._throughput.received(self._bytes, self._seconds, unwanted=unwanted)

    def _begin_sample(self, now: float) -> None:
        self._sample_at, self._sample_bytes, self._sample_waited_s = now, 0, 0.0


def _smooth(old: float | None, new: float) -> float:
    return new if old is None else old + WEIGHT * (new - old)
