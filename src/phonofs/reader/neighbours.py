"""Who reads a folder's small files one after another finds the next ones on their way.

Pure, but for asking the folder's order. A trail is a sequence of files of one folder that were
read to their end, each soon after the other in the order of names or of inodes (``cp -r`` sorts
by inode, ``grep -r`` takes the listing's order). What is opened without being read to its end
(``ls``, ``stat``, a look at the header) leaves no trail.
"""

from collections import deque
from dataclasses import dataclass, field

from phonofs.model import Record
from phonofs.reader.limits import MIB, SMALL
from phonofs.reader.ports import Siblings

SKIP = 4
"""A file this far on still follows: some are left out, or read by a process beside."""

RAMP = (0, 0, 4, 8, 14)
"""Files to have on their way after so many in a row, until the trail is sure."""

TRAILS = 8
FORGET_S = 10.0
"""A trail nobody went on with for this long has ended."""

HEAD = 1 * MIB
"""Of a file too large to come whole, this much is brought: enough to read on without a gap."""


@dataclass(slots=True)
class Trail:
    """One reader's way through a folder.

    last      the furthest file read to its end
    at        when
    order     True by inode, False by name, None while there is only one file
    streak    files read in this order
    recent    inodes passed, read or left out
    read      types of files that were read
    passed    types of files that were left out
    sent      inodes brought ahead lately
    """

    last: int
    at: float
    order: bool | None = None
    streak: int = 1
    recent: deque[int] = field(default_factory=lambda: deque(maxlen=4 * SKIP))
    read: set[str] = field(default_factory=set)
    passed: set[str] = field(default_factory=set)
    sent: deque[int] = field(default_factory=lambda: deque(maxlen=128))


Files = list[tuple[int, Record]]


def weight(record: Record) -> int:
    """How many bytes of a file are brought ahead."""
    return record.size if record.size <= SMALL else HEAD


class Neighbours:
    """Owns the trails; says what to bring ahead.

    most_files, most_bytes  what may be ahead of one trail
    """

    def __init__(self, siblings: Siblings, *, most_files: int, most_bytes: int) -> None:
        self._siblings = siblings
        self._most_files = most_files
        self._most_bytes = most_bytes
        self._trails: list[Trail] = []

    def finished(self, ino: int, record: Record, now: float) -> Files:
        """A file was read to its end: the files to have on their way now, in order."""
        self._trails = [trail for trail in self._trails if now - trail.at < FORGET_S]
        trail = next((trail for trail in self._trails if self._follows(trail, ino)), None)
        if trail is None:
            self._trails = [*self._trails[-TRAILS + 1 :], Trail(ino, now, read={record.type})]
            return []
        trail.at = now
        trail.read.add(record.type)
        return self._ahead(trail)

    def _follows(self, trail: Trail, ino: int) -> bool:
        """Whether ``ino`` continues the trail, which then goes on from it."""
        if ino in trail.recent or ino == trail.last:
            return True
        for order in (trail.order or False, not trail.order):
            after = self._siblings(trail.last, SKIP, by_inode=order)
            inodes = [other for other, _ in after]
            if ino in inodes:
                self._go_on(trail, order, list(after[: inodes.index(ino) + 1]))
                return True
        return False

    def _go_on(self, trail: Trail, order: bool, passed: Files) -> None:
        trail.streak = trail.streak + 1 if trail.order in (order, None) else 2
        trail.order = order
        trail.passed.update(record.type for _, record in passed[:-1])
        trail.recent.extend(ino for ino, _ in passed)
        trail.last = passed[-1][0]

    def _ahead(self, trail: Trail) -> Files:
        count = RAMP[trail.streak] if trail.streak < len(RAMP) else self._most_files
        if not count or trail.order is None:
            return []
        skipped = trail.passed - trail.read
        wanted: Files = []
        total = 0
        for ino, record in self._siblings(trail.last, 2 * count, by_inode=trail.order):
            if record.type in skipped:
                continue
            total += weight(record)
            count -= 1
            if count < 0 or total > self._most_bytes:
                break
            if ino not in trail.sent:
                wanted.append((ino, record))
        trail.sent.extend(ino for ino, _ in wanted)
        return wanted
