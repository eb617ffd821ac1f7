"""How far each region is known: what was listed, and up to when its changes are known.

Listings are stored as spans of UTC ms, not as days, so that nothing has to be listed again for
another time zone; and separately for each scope, since a listing of some types says nothing about
others.
"""

# ruff: noqa: S608 - only constants are put into SQL texts here, never values

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager

import msgspec

from phonofs.catalogue.database import Database
from phonofs.catalogue.types import Scope
from phonofs.ranges import Ranges

LEAP_MS = 7 * 86_400_000
"""An ``updatedTime`` that is further ahead of our clock and of the watermark moves no watermark:
one odd record must not make the follower blind. A week is longer than a quiet account is silent."""

SECOND_MS = 1000
"""The resolution of the service's times: many objects may share one."""


def after(moment_ms: int) -> int:
    """Return the end of the second that contains ``moment_ms``, as an edge after all of it."""
    return (moment_ms // SECOND_MS + 1) * SECOND_MS


class Coverage:
    """Owns the tables ``listed`` and ``watermark``, their copy in memory, and the column
    ``region.newest_ms``; also the set of regions that the follower of this run continues, and the
    regions whose last poll did not complete, with the watermark before it (``_catching_up``).

    Regions are named as by the service. Invariants: ``listed`` contains a moment only if the
    catalogue has all objects of the scope created then, as far as the service showed them at the
    time of the listing. For objects created before the watermark and in ``listed``, all changes up
    to the watermark are known.
    """

    def __init__(
        self,
        database: Database,
        scope: Scope,
        writing: Callable[[], AbstractContextManager[None]],
        now_ms: Callable[[], int],
    ) -> None:
        """``writing`` is the catalogue's transaction."""
        self._database = database
        self._scope = scope
        self._key = msgspec.json.encode(scope).decode()
        self._writing = writing
        self._now_ms = now_ms
        self._following: set[str] = set()
        self._catching_up: dict[str, int] = {}
        self.load()

    def load(self) -> None:
        """Read everything from the file, at the start and after a failed transaction."""
        sql = "SELECT region, updated_ms FROM watermark WHERE scope = ?"
        self._watermarks: dict[str, int] = dict(self._database.rows(sql, self._key))
        self._listed: dict[str, Ranges] = {}
        sql = "SELECT region, start_ms, stop_ms FROM listed WHERE scope = ?"
        for region, start_ms, stop_ms in self._database.rows(sql, self._key):
            self.listed(region).add(start_ms, stop_ms)

    def inherit(self) -> None:
        """Let a new scope begin with what is known of the widest followed one that includes it."""
        if self._listed or self._watermarks:
            return
        known = self._database.rows(
            "SELECT scope FROM (SELECT scope, updated_ms FROM watermark"
            " UNION ALL SELECT scope, 0 FROM listed) GROUP BY scope ORDER BY max(updated_ms) DESC"
        )
        for (key,) in known:
            if self._scope.within(msgspec.json.decode(key, type=Scope)):
                for table, rest in (("listed", "start_ms, stop_ms"), ("watermark", "updated_ms")):
                    self._database.run(
                        f"INSERT INTO {table} (scope, region, {rest})"
                        f" SELECT ?, region, {rest} FROM {table} WHERE scope = ?",
                        *(self._key, key),
                    )
                break
        self.load()

    # what was listed

    def listed(self, region: str) -> Ranges:
        """Return the listed spans of creation time (UTC ms). Callers must not change them."""
        return self._listed.setdefault(region, Ranges())

    def mark_listed(self, region: str, start_ms: int, stop_ms: int) -> None:
        """Mark ``[start_ms, stop_ms)`` as listed: all objects created then are known."""
        spans = self.listed(region)
        if start_ms < stop_ms and not spans.covers(start_ms, stop_ms):
            with self._writing():
                spans.add(start_ms, stop_ms)
                self._write(region)

    def unmark(self, region: str, start_ms: int, stop_ms: int) -> None:
        """Have ``[start_ms, stop_ms)`` listed again. Call within a transaction."""
        self.listed(region).remove(start_ms, stop_ms)
        self._write(region)

    def _write(self, region: str) -> None:
        sql = "DELETE FROM listed WHERE scope = ? AND region = ?"
        self._database.run(sql, self._key, region)
        self._database.run_many(
            "INSERT INTO listed (scope, region, start_ms, stop_ms) VALUES (?, ?, ?, ?)",
            [(self._key, region, start, stop) for start, stop in self.listed(region)],
        )

    # which changes are known

    def watermark(self, region: str) -> int | None:
        """Return the ``updatedTime`` (epoch ms) up to which changes are known, or None."""
        return self._watermarks.get(region)

    def begin_following(self, region: str, updated_ms: int) -> None:
        """Set the first watermark, and discard the listed spans: nobody followed their changes."""
        with self._writing():
            self._listed.pop(region, None)
            self._write(region)
            self._write_watermark(region, updated_ms)
        self._catching_up.pop(region, None)

    def _write_watermark(self, region: str, updated_ms: int) -> None:
        sql = "INSERT OR REPLACE INTO watermark (scope, region, updated_ms) VALUES (?, ?, ?)"
        self._database.run(sql, self._key, region, updated_ms)
        self._watermarks[region] = updated_ms

    def set_watermark(self, region: str, updated_ms: int, *, complete: bool = True) -> None:
        """Store that all changes up to ``updated_ms`` are known.

        Only a ``complete`` poll proves which objects were created: pages are ordered by time of
        change, so an object that was created early and changed late is on a later page. After a
        complete poll, the time since the last complete poll is marked as listed, including the
        whole second of the watermark.
        """
        before = self.watermark(region)
        if before is None:
            self.begin_following(region, updated_ms)
            return
        reached_ms = max(before, updated_ms)
        begun_ms = self._catching_up.setdefault(region, before)
        if before < reached_ms:
            with self._writing():
                self._write_watermark(region, reached_ms)
        if complete:
            self.mark_listed(region, begun_ms, after(reached_ms))
            del self._catching_up[region]

    def edge_ms(self, region: str) -> int | None:
        """Return up to when the catalogue can be complete for a region; None if nothing was seen.

        That is the end of the second of the watermark or, if nobody follows the changes, of the
        newest change seen. While a poll runs, or if it was interrupted, it is where the last
        complete poll ended.
        """
        moment_ms = self._catching_up.get(region, self.watermark(region))
        if not self.following(region):
            moment_ms = self.newest_ms(region) or moment_ms
        return None if moment_ms is None else after(moment_ms)

    def plausible_ms(self, region: str) -> int:
        """Return the latest plausible ``updatedTime``, by our clock and by the watermark."""
        return max(self._now_ms(), self.watermark(region) or 0) + LEAP_MS

    def newest_ms(self, region: str) -> int:
        """Return the newest plausible ``updatedTime`` ever seen in any scope; 0 for none."""
        row = self._database.row("SELECT newest_ms FROM region WHERE name = ?", region)
        return int(row[0]) if row else 0

    def note_newest(self, region: str, updated: Iterable[int]) -> None:
        """Note the newest plausible one of these times (epoch ms). Call within a transaction."""
        latest_ms = self.plausible_ms(region)
        newest_ms = max((one_ms for one_ms in updated if one_ms <= latest_ms), default=0)
        sql = "UPDATE region SET newest_ms = ? WHERE name = ? AND newest_ms < ?"
        self._database.run(sql, newest_ms, region, newest_ms)

    def following(self, region: str) -> bool:
        """Return whether the follower adds what a region has after its watermark."""
        return region in self._following

    def set_following(self, region: str) -> None:
        """Note that the follower continues from the region's watermark."""
        self._following.add(region)
