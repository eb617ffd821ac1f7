"""Fetches the next files of a folder for a process that reads its small files one after another.

A scan is a sequence of files of one folder that were read to their end, each soon after the one
before it, in the order of names or of inodes (``cp -r`` sorts by inode, ``grep -r`` takes the
order of the listing). A file that is not read to its end (``ls``, ``stat``, a look at the header)
does not count. Files that were cached already continue a scan but fetch nothing, because the next
ones are usually cached too.

``DirectoryReadahead`` says which files to fetch, and asks nothing but the order of a folder;
``PrefetchedFiles`` keeps them until they are opened or nobody came for them.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Sequence
from math import inf
from typing import Protocol

from phonofs.model import Record
from phonofs.reader.limits import MIB, SMALL
from phonofs.reader.open_object import OpenObject

SKIP = 4
"""A file this far on still continues a scan: some are left out, or read by another process."""

RAMP = (0, 0, 4, 8, 14)
"""How many files to prefetch after so many in a row; after that, as many as may be."""

LISTER_RAMP = ()
"""Ramp for a process that listed the folder and begins with its first file (``grep -r``): as many
as may be, as soon as it asks for all of that file."""

FIRST_BYTES = 8 * MIB
"""What may be prefetched after the first file of a scan, until a second one was read."""

SENT = 256
"""Prefetched files remembered per scan: several times what may be ahead of it at once."""

LISTERS = 64
"""Processes remembered that listed a folder."""

BATCH = 32
"""Files asked of the catalogue at a time."""

NOTES = 16
"""Cached files remembered in case the next one is not cached: more than any ramp is long."""

MOST_SCANS = 8
FORGET_S = 10.0
"""A scan that did not continue for this long has ended."""

HOLD_S = 20.0
"""A prefetched file is kept this long. A slower reader still finds it in the disk cache, unless it
was evicted; what is in memory must not stay for longer."""

HEAD = 1 * MIB
"""How much of a file is prefetched that is too large to be requested as a whole."""


Files = list[tuple[int, Record]]


class Siblings(Protocol):
    """Finds the files after another one in its folder."""

    def __call__(
        self, ino: int, n: int, *, by_inode: bool = False, pid: int = 0
    ) -> Sequence[tuple[int, Record]]:
        """Return at most ``n`` readable files after ``ino``, by name or by inode; cheap.

        A file may be in several directories: ``pid`` is the process that reads, if that is known.

        Raises Unavailable if the catalogue cannot be read.
        """
        ...


class UpcomingFiles:
    """The files after another one in one order, asked for in batches. Owned by its scan.

    They are those of the directory in which the process ``pid`` reads.

    Invariant: ``_coming`` are the files directly after ``_at``, in order, as they were when
    they were asked for; ``_end`` is set once there were no more.
    """

    def __init__(self, siblings: Siblings, order: bool, at: int, pid: int) -> None:
        self._siblings = siblings
        self._pid = pid
        self.order = order
        self._at = at
        self._coming: Files = []
        self._end = False

    def first(self, n: int) -> Files:
        """Return the next ``n`` files, fewer at the end of the folder."""
        while len(self._coming) < n and not self._end:
            at = self._coming[-1][0] if self._coming else self._at
            count = max(SKIP, min(n, BATCH))
            more = self._siblings(at, count, by_inode=self.order, pid=self._pid)
            self._coming.extend(more)
            self._end = not more
        return self._coming[:n]

    def pass_to(self, ino: int) -> Files:
        """Advance to a file among the next ``SKIP``; return the files passed and that one."""
        inodes = [other for other, _ in self.first(SKIP)]
        if ino not in inodes:
            return []
        count = inodes.index(ino) + 1
        passed, self._coming = self._coming[:count], self._coming[count:]
        self._at = ino
        return passed


class Scan:
    """One sequential read of a folder's files. ``_sent`` are the files prefetched lately, in order.

    at        when it continued last
    orders    the files that come next, in each order that fits so far
    streak    how many files were read one after another
    recent    inodes of files passed, read or left out
    read      types of files that were read
    passed    types of files that were left out
    ramp      how many files to prefetch, by streak
    """

    __slots__ = ("_sent", "at", "orders", "passed", "ramp", "read", "recent", "streak")

    def __init__(
        self, siblings: Siblings, ino: int, now: float, ramp: Sequence[int], pid: int
    ) -> None:
        self.at = now
        self.ramp = ramp
        self.orders = [UpcomingFiles(siblings, order, ino, pid) for order in (False, True)]
        self.streak = 1
        self.recent: deque[int] = deque([ino], maxlen=4 * SKIP)
        self._sent: dict[int, None] = {}
        self.read: set[str] = set()
        self.passed: set[str] = set()

    def follow(self, ino: int) -> bool:
        """Return whether ``ino`` continues the scan, and if so, advance to it."""
        if ino in self.recent:
            return True
        followed = [(ahead, passed) for ahead in self.orders if (passed := ahead.pass_to(ino))]
        if not followed:
            return False
        self.orders = [ahead for ahead, _ in followed]
        self.streak += 1
        passed = followed[0][1]
        self.passed.update(record.type for _, record in passed[:-1])
        self.recent.extend(other for other, _ in passed)
        return True

    def note_read(self, kind: str, now: float) -> None:
        """A file of this type was read to its end."""
        self.at = now
        self.read.add(kind)

    def wanted(self, count: int, most_bytes: int) -> Files:
        """Return those of the next ``count`` files of the read types that were not prefetched."""
        skipped = self.passed - self.read
        found: Files = []
        most = 2 * count if skipped else count
        coming: Files = []
        for ahead in self.orders:  # one order may have ended already
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
    """How many bytes of a file are prefetched."""
    return record.size if record.size <= SMALL else HEAD


class DirectoryReadahead:
    """Recognizes scans and says which files to prefetch for them.

    most_files, most_bytes  the most to prefetch for one scan
    """

    def __init__(self, siblings: Siblings, *, most_files: int, most_bytes: int) -> None:
        self._siblings = siblings
        self._most_files = most_files
        self._most_bytes = most_bytes
        self._scans: list[Scan] = []
        self._cached: deque[tuple[int, str, float, int]] = deque(maxlen=NOTES)
        self._listers: OrderedDict[int, tuple[float, frozenset[int]]] = OrderedDict()

    def listed(self, pid: int, firsts: Collection[int], now: float) -> None:
        """Process ``pid`` listed a folder; ``firsts`` are its first files, by name and by inode."""
        self._listers.pop(pid, None)
        self._listers[pid] = now, frozenset(firsts)
        while len(self._listers) > LISTERS:
            self._listers.popitem(last=False)

    def _has_listed(self, ino: int, pid: int, now: float) -> bool:
        """Whether ``pid`` has just listed the folder of which this is the first file."""
        at, firsts = self._listers.get(pid, (now, frozenset()))
        return ino in firsts and now - at < FORGET_S

    def begun(self, ino: int, record: Record, now: float, *, pid: int) -> Files:
        """All of a file is asked for: return what to prefetch beside it.

        Something only if a process begins with the first file of a folder it has just listed.
        """
        if not self._has_listed(ino, pid, now):
            return []
        return self.finished(ino, record, now, pid=pid)

    def finished(
        self, ino: int, record: Record, now: float, *, pid: int = 0, cached: bool = False
    ) -> Files:
        """A file was read to its end: return the files to prefetch now, in order.

        ``cached``: nothing of it had to be fetched, so nothing is prefetched, and the catalogue is
        not asked. The file counts once a later one is not cached.
        """
        if cached:
            self._cached.append((ino, record.type, now, pid))
            return []
        for note in self._cached:
            self._follow(*note)
        self._cached.clear()
        scan = self._follow(ino, record.type, now, pid)
        sure = scan.streak >= len(scan.ramp)
        count = self._most_files if sure else scan.ramp[scan.streak]
        most_bytes = self._most_bytes if scan.streak > 1 else min(self._most_bytes, FIRST_BYTES)
        return scan.wanted(count, most_bytes) if count else []

    def _follow(self, ino: int, kind: str, now: float, pid: int) -> Scan:
        """Return the scan that this file continues or begins."""
        self._scans = [scan for scan in self._scans if now - scan.at < FORGET_S]
        scan = next((scan for scan in self._scans if scan.follow(ino)), None)
        if scan is None:
            ramp = LISTER_RAMP if self._has_listed(ino, pid, now) else RAMP
            self._listers.pop(pid, None)
            scan = Scan(self._siblings, ino, now, ramp, pid)
            self._scans = [*self._scans[-MOST_SCANS + 1 :], scan]
        scan.note_read(kind, now)
        return scan


class PrefetchedFiles:
    """Keeps prefetched contents until they are opened or expire.

    Invariant: each of them is held (``OpenObject.hold``), and the bytes to prefetch of all of
    them are at most ``most_bytes``.
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
        """Prefetch a file nobody has open; False if that would be too much."""
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
        """It was opened, or is not needed: hold it no longer."""
        held = self._held.pop(content, None)
        if held is not None:
            self._bytes -= held[1]
            content.unhold()

    def expire(self, now: float) -> float:
        """Drop what has expired; return the time the next one expires, or infinity."""
        for content in [content for content, (until, _) in self._held.items() if until <= now]:
            self._let_go(content)
        return min((until for until, _ in self._held.values()), default=inf)

    def _let_go(self, content: OpenObject) -> None:
        self.drop(content)
        self._idle(content)

    def statistics(self) -> dict[str, int]:
        """How many files are held, and how many bytes were to be prefetched of them."""
        return {"held": len(self._held), "held_bytes": self._bytes}
