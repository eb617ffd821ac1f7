"""Which files come after another one, for who reads the files of a view.

A file of a view is also in its day, where it has other neighbours. Who reads one agent's calls is
to be brought that agent's next calls, and nobody else's. Used by ``reader``, which asks, and by
``views``, which says what was listed.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Sequence

import trio

from phonofs.catalogue.catalogue import Catalogue
from phonofs.errors import Malformed, NoSuchName
from phonofs.model import Record, State

LISTINGS_KEPT = 16

FRESH_S = 60.0
"""How long a listing counts for processes that did not make it (``find`` piped into ``xargs``)."""


class RecentListing:
    """A directory that a process listed, or looked a file up in.

    pid, at  the process, 0 if not known, and when (trio's clock)
    day      the inode number of a day of the date tree; 0 for a directory of a view
    inos     the objects of a directory of a view, in the order of names
    """

    def __init__(self, pid: int, at: float, day: int, inos: Sequence[int]) -> None:
        self.pid = pid
        self.at = at
        self.day = day
        self.inos = inos
        self._places: dict[int, int] = {}
        self._sorted: list[int] = []

    def contains(self, ino: int) -> bool:
        """Return whether a file is in this directory of a view."""
        if not self._places:
            self._places = {each: place for place, each in enumerate(self.inos)}
            self._sorted = sorted(self._places)
        return ino in self._places

    def after(self, ino: int, by_inode: bool) -> Sequence[int]:
        """Return all objects after one of them."""
        if by_inode:
            return self._sorted[bisect_right(self._sorted, ino) :]
        return self.inos[self._places[ino] + 1 :]


class RecentListings:
    """Owns the directories that were listed last."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._listings: deque[RecentListing] = deque(maxlen=LISTINGS_KEPT)

    def listed_day(self, pid: int, day: int) -> None:
        """Note that a process listed a day of the date tree."""
        self._note(RecentListing(pid, trio.current_time(), day, ()))

    def listed_view(self, pid: int, inos: Sequence[int]) -> None:
        """Note that a process listed a directory of a view, which has these objects in it.

        To note the same sequence again for a process costs nothing.
        """
        newest = next((each for each in reversed(self._listings) if each.pid == pid), None)
        if newest is None or newest.inos is not inos:
            self._note(RecentListing(pid, trio.current_time(), 0, inos))

    def _note(self, listing: RecentListing) -> None:
        self._listings.append(listing)

    def siblings(
        self, ino: int, n: int, *, by_inode: bool = False, pid: int = 0
    ) -> Sequence[tuple[int, Record]]:
        """Return the next readable files after ``ino`` in the directory in which ``pid`` is."""
        listing = self._listing(ino, pid)
        if listing is None or listing.day:
            return self._catalogue.siblings(ino, n, by_inode=by_inode)
        found: list[tuple[int, Record]] = []
        for other in listing.after(ino, by_inode):
            if len(found) == n:
                break
            try:
                record = self._catalogue.record(other)
            except (NoSuchName, Malformed):
                continue
            if record.state == State.AVAILABLE:
                found.append((other, record))
        return found

    def _listing(self, ino: int, pid: int) -> RecentListing | None:
        """Return what the process listed last with this file in it, else what another one did.

        A view that another process listed counts before the day: too few files ahead are slower,
        but those of somebody else would be wrong.
        """
        try:
            day = self._catalogue.parent(ino)
        except NoSuchName:
            return None
        here = [each for each in reversed(self._listings) if each.day == day or each.contains(ino)]
        own = next((each for each in here if each.pid == pid), None)
        if own is not None:
            return own
        oldest = trio.current_time() - FRESH_S
        return next((each for each in here if not each.day and each.at >= oldest), None)
