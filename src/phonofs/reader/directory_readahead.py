"""Who reads a folder's small files one after another finds the next ones on their way.

Pure, but for asking the folder's order. A trail is a sequence of files of one folder that were
read to their end, each soon after the other in the order of names or of inodes (``cp -r`` sorts
by inode, ``grep -r`` takes the listing's order). What is opened without being read to its end
(``ls``, ``stat``, a look at the header) leaves no trail. Files that were in the cache already are
followed, but cause nothing: so are the next ones, as a rule.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Sequence
from math import inf
from typing import Protocol

from phonofs.model import Record
from phonofs.reader.limits import MIB, SMALL
from phonofs.reader.open_object import OpenObject

SKIP = 4
"""A file this far on still follows: some are left out, or read by a process beside."""

RAMP = (0, 0, 4, 8, 14)
"""Files to have on their way after so many in a row, until the trail is sure."""

WALKER_RAMP = ()
"""The same where the process that listed the folder reads its first file first (``grep -r``):
the trail is sure with that one itself, as soon as all of it is asked for."""

FIRST_BYTES = 8 * MIB
"""What may be brought beside the first file of a trail: more only once a second one was read."""

SENT = 256
"""Files remembered as brought ahead on a trail: several times what may be ahead of it at once."""

WALKERS = 64
"""Processes remembered that listed a folder, for as long as a trail."""

BATCH = 32
"""Files asked of the catalogue at once: a trail asks for each of its files once."""

NOTES = 16
"""Cached files remembered in case one comes that is not: more than any ramp is long."""

TRAILS = 8
FORGET_S = 10.0
"""A trail nobody went on with for this long has ended."""

HOLD_S = 20.0
"""A reader that takes longer over the files before it finds the file in the cache on disk, if
it was not evicted; what is held in memory must not stay for longer."""

HEAD = 1 * MIB
"""Of a file too large to come whole, this much is brought: enough to read on without a gap."""


Files = list[tuple[int, Record]]


class Siblings(Protocol):
    """Which files stand after another in its folder."""

    def __call__(self, ino: int, n: int, *, by_inode: bool = False) -> Sequence[tuple[int, Record]]:
        """At most ``n`` readable files after ``ino``, by name or by inode; cheap.

        Raises Unavailable where the catalogue cannot be read.
        """
        ...


class UpcomingFiles:
    """What stands after a file in one order, asked for a batch at a time. Owned by its trail.

    Invariant: ``_coming`` are the files directly after ``_at``, in order, as they were when
    they were asked for; ``_end`` is set once there were no more.
    """

    def __init__(self, siblings: Siblings, order: bool, at: int) -> None:
        self._siblings = siblings
        self.order = order
        self._at = at
        self._coming: Files = []
        self._end = False

    def first(self, n: int) -> Files:
        """The next ``n`` files, fewer where the folder ends."""
        while len(self._coming) < n and not self._end:
            at = self._coming[-1][0] if self._coming else self._at
            more = self._siblings(at, max(SKIP, min(n, BATCH)), by_inode=self.order)
            self._coming.extend(more)
            self._end = not more
        return self._coming[:n]

    def pass_to(self, ino: int) -> Files:
        """Go on to a file among the next ``SKIP``; returns what was passed, it the last."""
        inodes = [other for other, _ in self.first(SKIP)]
        if ino not in inodes:
            return []
        count = inodes.index(ino) + 1
        passed, self._coming = self._coming[:count], self._coming[count:]
        self._at = ino
        return passed


class Scan:
    """One reader's way through a folder. ``_sent`` are the files brought ahead lately, in order.

    at        when it was gone on with last
    aheads    what comes next, in each order that was kept to so far
    streak    files read one after another
    recent    inodes passed, read or left out
    read      types of files that were read
    passed    types of files that were left out
    ramp      files to have on their way, by streak
    """

    __slots__ = ("_sent", "aheads", "at", "passed", "ramp", "read", "recent", "streak")

    def __init__(self, siblings: Siblings, ino: int, now: float, ramp: Sequence[int]) -> None:
        self.at = now
        self.ramp = ramp
        self.aheads = [UpcomingFiles(siblings, order, ino) for order in (False, True)]
        self.streak = 1
        self.recent: deque[int] = deque([ino], maxlen=4 * SKIP)
        self._sent: dict[int, None] = {}
        self.read: set[str] = set()
        self.passed: set[str] = set()

    def follow(self, ino: int) -> bool:
        """Whether ``ino`` continues it; then it goes on from there."""
        if ino in self.recent:
            return True
        ways = [(ahead, passed) for ahead in self.aheads if (passed := ahead.pass_to(ino))]
        if not ways:
            return False
        self.aheads = [ahead for ahead, _ in ways]
        self.streak += 1
        passed = ways[0][1]
        self.passed.update(record.type for _, record in passed[:-1])
        self.recent.extend(other for other, _ in passed)
        return True

    def note_read(self, kind: str, now: float) -> None:
        """A file of this type was read to its end."""
        self.at = now
        self.read.add(kind)

    def wanted(self, count: int, most_bytes: int) -> Files:
        """Of the next ``count`` files of the types that are read, those not brought yet."""
        skipped = self.passed - self.read
        found: Files = []
        most = 2 * count if skipped else count
        coming: Files = []
        for ahead in self.aheads:  # one may be at its end: names go on elsewhere than numbers
            coming = coming or ahead.first(most)
        for ino, record in coming:
            if record.type in skipped:
                continue
            count -= 1
            most_bytes -= weight(record)
            if count < 0 or most_bytes < 0:
                break
            if ino not in self._sent:
                found.append((ino, record))
        self._remember(found)
        return found

    def _remember(self, files: Files) -> None:
        self._sent.update((ino, None) for ino, _ in files)
        while len(self._sent) > SENT:
            del self._sent[next(iter(self._sent))]


def weight(record: Record) -> int:
    """How many bytes of a file are brought ahead."""
    return record.size if record.size <= SMALL else HEAD


class DirectoryReadahead:
    """Owns the trails; says what to bring ahead.

    most_files, most_bytes  what may be ahead of one trail
    """

    def __init__(self, siblings: Siblings, *, most_files: int, most_bytes: int) -> None:
        self._siblings = siblings
        self._most_files = most_files
        self._most_bytes = most_bytes
        self._trails: list[Scan] = []
        self._cached: deque[tuple[int, str, float, int]] = deque(maxlen=NOTES)
        self._walkers: OrderedDict[int, tuple[float, frozenset[int]]] = OrderedDict()

    def listed(self, pid: int, firsts: Collection[int], now: float) -> None:
        """Process ``pid`` listed a folder; ``firsts``: its first file in either order."""
        self._walkers.pop(pid, None)
        self._walkers[pid] = now, frozenset(firsts)
        while len(self._walkers) > WALKERS:
            self._walkers.popitem(last=False)

    def _walks(self, ino: int, pid: int, now: float) -> bool:
        """Whether ``pid`` has just listed the folder of which this is the first file."""
        at, firsts = self._walkers.get(pid, (now, frozenset()))
        return ino in firsts and now - at < FORGET_S

    def begun(self, ino: int, record: Record, now: float, *, pid: int) -> Files:
        """All of a file is asked for: what to have on its way beside it.

        Only where a process begins with the first file of a folder it has just listed.
        """
        if not self._walks(ino, pid, now):
            return []
        return self.finished(ino, record, now, pid=pid)

    def finished(
        self, ino: int, record: Record, now: float, *, pid: int = 0, cached: bool = False
    ) -> Files:
        """A file was read to its end: the files to have on their way now, in order.

        ``cached``: nothing of it had to be fetched, so nothing is sent for, and nothing is asked
        of the catalogue. When one is not, those read before it are followed all the same.
        """
        if cached:
            self._cached.append((ino, record.type, now, pid))
            return []
        for note in self._cached:
            self._follow(*note)
        self._cached.clear()
        trail = self._follow(ino, record.type, now, pid)
        sure = trail.streak >= len(trail.ramp)
        count = self._most_files if sure else trail.ramp[trail.streak]
        most_bytes = self._most_bytes if trail.streak > 1 else min(self._most_bytes, FIRST_BYTES)
        return trail.wanted(count, most_bytes) if count else []

    def _follow(self, ino: int, kind: str, now: float, pid: int) -> Scan:
        """The trail that goes on with this file, or begins with it."""
        self._trails = [trail for trail in self._trails if now - trail.at < FORGET_S]
        trail = next((trail for trail in self._trails if trail.follow(ino)), None)
        if trail is None:
            ramp = WALKER_RAMP if self._walks(ino, pid, now) else RAMP
            self._walkers.pop(pid, None)
            trail = Scan(self._siblings, ino, now, ramp)
            self._trails = [*self._trails[-TRAILS + 1 :], trail]
        trail.note_read(kind, now)
        return trail


class PrefetchedFiles:
    """Owns the contents that are kept for a reader expected soon, and until when.

    Invariant: each content here has one of its ``holds`` from here, and the bytes they were
    begun with are at most ``most_bytes`` together.
    """

    def __init__(
        self,
        content: Callable[[Record, int], OpenObject],
        idle: Callable[[OpenObject], None],
        most_bytes: int,
    ) -> None:
        self._content = content
        self._idle = idle
        self._most_bytes = most_bytes
        self._held: dict[OpenObject, tuple[float, int]] = {}
        self._bytes = 0

    def bring(self, record: Record, ino: int, now: float) -> bool:
        """Begin to fetch a file nobody has open, unless that were too much; whether it was."""
        size = weight(record)
        if self._bytes + size > self._most_bytes:
            return False
        content = self._content(record, ino)
        content.hold()
        self._held[content] = now + HOLD_S, size
        self._bytes += size
        content.prefetch(size)
        if not content.busy:
            self._let_go(content)  # it was there already
        return True

    def drop(self, content: OpenObject) -> None:
        """Somebody opened it: the hold is over."""
        held = self._held.pop(content, None)
        if held is not None:
            self._bytes -= held[1]
            content.unhold()

    def expire(self, now: float) -> float:
        """Let go of what nobody came for; the time the next one is due, or infinity."""
        for content in [content for content, (until, _) in self._held.items() if until <= now]:
            self._let_go(content)
        return min((until for until, _ in self._held.values()), default=inf)

    def _let_go(self, content: OpenObject) -> None:
        self.drop(content)
        self._idle(content)

    def statistics(self) -> dict[str, int]:
        """How many files are held and how many bytes they were begun with."""
        return {"held": len(self._held), "held_bytes": self._bytes}
