"""What of one object is in the cache, where it lies, and which of it may be given out."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

from phonofs.cache.blocks import BLOCK, Seals, bytes_of, touched_blocks, whole_blocks
from phonofs.cache.digest import Hash
from phonofs.cache.holding import Counters, Holding, View
from phonofs.cache.index import Identity, Row
from phonofs.cache.late import LateContent
from phonofs.cache.shelf import UNKNOWN, Content, Stamp
from phonofs.ranges import Ranges

log = logging.getLogger(__name__)

T = TypeVar("T")


class Host(Protocol):
    """What an object in the cache needs of the cache."""

    counters: Counters

    def create_file(self, identity: Identity) -> Content | None:
        """A new file for the object, or None where the disk is in trouble."""

    def open_file(self, identity: Identity) -> Content | None:
        """The object's file, or None where that fails now. FileNotFoundError: it is gone."""

    def open_memory(self) -> Content | None:
        """A place in memory, or None where there is none."""

    def place_late(self, stock: "Stock") -> Content | None:
        """A place for a content that is put on disk later; None where it must be there at once."""

    def left_late(self, stock: "Stock") -> None:
        """It does not wait to be put on disk any more."""

    def put_now(self, stock: "Stock") -> None:
        """Put on disk what waits to be put there."""

    def declare(self, identity: Identity, size: int) -> bool:
        """Note that bytes of it are going to be on disk; False where they must not."""

    def take(self, n: int) -> bool:
        """Charge bytes that are about to be written to disk; False where there is no room."""

    def give(self, n: int) -> None:
        """Bytes charged for are no longer on disk."""

    def take_memory(self, n: int) -> None:
        """Count bytes in memory (negative: no longer)."""

    def trouble(self, error: Exception) -> None:
        """The disk failed."""

    def no_memory(self, error: Exception) -> None:
        """Neither disk nor memory took bytes."""

    def save(self, stock: "Stock") -> None:
        """Write its row."""

    def now(self) -> float:
        """Seconds, monotonic."""

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Do what waits for the disk."""


class Stock:
    """The bytes of one object that are here. Owner of its holdings, its seals and these sets:

    present   bytes that can be read, once they were checked
    trusted   bytes that need no check: written or checked in this run
    verified  the whole had the right checksum, or the right length where there is no more
    accepted  it counts as verified in this run only, since its checksum is another one
    suspect   complete in an earlier run and not verified then: nothing of it is given out
    pinned    how many use it
    forgotten the object was withdrawn: nothing is given out or kept any more
    passed_by its file could not be opened, so that what its row says is not touched
    epoch     goes up with every loss, so that what a thread found out before is not believed

    Invariants: ``trusted`` ⊆ ``present`` ⊆ what the holdings hold together; what is present
    and not trusted lies on disk, in blocks that have a seal (or else it is lost when it is
    asked for).
    """

    def __init__(
        self,
        host: Host,
        identity: Identity,
        size: int,
        *,
        in_memory: bool,
        disk: Holding | None = None,
        seals: Seals | None = None,
        verified: bool = False,
    ) -> None:
        self.host = host
        self.identity = identity
        self.size = size
        self.in_memory = in_memory
        self.disk = disk
        self.memory: Holding | None = None
        self.seals = seals or Seals()
        self.present = Ranges(disk.held) if disk else Ranges()
        self.trusted = Ranges()
        self.verified = verified
        self.accepted = False
        self.suspect = disk is not None and self.complete and not verified
        self.hashed = Hash()
        self.pinned = 0
        self.forgotten = False
        self.passed_by = False
        self.epoch = 0
        self.declared = False
        self.unsaved_bytes = 0
        self.unsaved_since: float | None = None
        self._users = 0
        self._retired: list[Holding] = []
        self._stamp: Stamp | None = None

    @property
    def complete(self) -> bool:
        """Whether every byte is present."""
        return self.present.covers(0, self.size)

    @property
    def busy(self) -> bool:
        """Whether a thread is using its files."""
        return self._users > 0

    @property
    def unsaved(self) -> bool:
        """Whether its row is not yet what it has to be once this is closed."""
        return (self.unsaved_since is not None or self.declared) and not self.passed_by

    @property
    def late(self) -> bool:
        """Whether its file is yet to be made: its bytes wait in memory, charged for already."""
        return self.disk is not None and isinstance(self.disk.content, LateContent)

    # Gaining and losing bytes

    def gained(self, start: int, stop: int) -> None:
        """Bytes that came from the service were put into a holding."""
        self.present.add(start, stop)
        self.trusted.add(start, stop)
        if start < self.hashed.position:
            self.hashed = Hash()
        if self.seals.known:
            self._unseal(*touched_blocks(start, stop))

    def _unseal(self, first: int, last: int) -> None:
        """Blocks written again may have other bytes; a seal the rest still needs stays."""
        for block in range(first, last):
            if self.trusted.covers(*bytes_of(block, block + 1, self.size)):
                self.seals.forget(block, block + 1)

    def changed(self, n: int = 0) -> None:
        """What lies on disk is no longer what the row says, by ``n`` bytes more."""
        self.unsaved_bytes += n
        if self.unsaved_since is None:
            self.unsaved_since = self.host.now()

    def saved(self, *, final: bool) -> None:
        """The row was written; ``final``: nothing is written to disk before it is declared."""
        self.unsaved_bytes = 0
        self.unsaved_since = None
        self.declared = self.declared and not final

    def drop(self, start: int, stop: int) -> None:
        """These bytes are not to be given out any more, wherever they lie."""
        self.epoch += 1
        self.present.remove(start, stop)
        self.trusted.remove(start, stop)
        self.seals.forget(*touched_blocks(start, stop))
        self.verified = False
        self.accepted = False
        self.suspect = False
        self.hashed = Hash()

    def lose(self, start: int, stop: int) -> None:
        """Bytes on disk turned out to be wrong or missing: they must be fetched again."""
        log.warning(
            "the cache lost the bytes %d to %d of %s, which are fetched again",
            start,
            stop,
            self.identity.id,
        )
        self.host.counters.lost_bytes += stop - start
        self._discard(start, stop)

    def _discard(self, start: int, stop: int) -> None:
        """Drop bytes, and give back the room they take."""
        self.drop(start, stop)
        if self.memory is not None:
            self.host.take_memory(-self.memory.drop(start, stop))
        if self.disk is not None:
            if self.disk.content is not None:
                self.disk.content.forget(*whole_blocks(start, stop, self.size))
            self.host.give(self.disk.drop(start, stop))
            self.changed()

    def reset(self) -> None:
        """Forget every byte, on disk and in memory."""
        self.drop(0, self.size)
        self._drop_memory()
        if self.disk is not None:
            self._empty_disk(self.disk)
            self.host.save(self)

    def _drop_memory(self) -> None:
        if self.memory is not None:
            self.host.take_memory(-self.memory.release())
            self._retire(self.memory)
            self.memory = None

    def _empty_disk(self, disk: Holding) -> None:
        disk.held = Ranges()
        if not self.open_disk() or disk.content is None:
            return
        try:
            disk.content.truncate(0)
        except OSError as error:
            self.host.trouble(error)
            return
        self.host.give(disk.release())
        self.disk = Holding(disk.content)

    def resize(self, size: int) -> None:
        """The real length of the object is ``size``: what lies behind it is forgotten."""
        if size == self.size:
            return
        if self.late and size > self.size:
            self.host.put_now(self)  # there is no room in memory for more than was said
        edge, end = min(size, self.size), max(size, self.size)
        self._discard(edge, end)
        for gap in self.trusted.missing(edge // BLOCK * BLOCK, edge):
            self._discard(*gap)  # the seal of the block at the edge says nothing any more
        self.size = size

    def forget(self) -> None:
        """The object is withdrawn: nothing of it is given out or kept from now on."""
        self.forgotten = True
        self.drop(0, self.size)
        self.host.left_late(self)

    # Its files

    def place_of(self, start: int, stop: int) -> Content | None:
        """The one open file that holds all of it, if there is one."""
        if self.memory is not None and self.memory.held.covers(start, stop):
            return self.memory.content
        if self.disk is None or not self.disk.held.covers(start, stop):
            return None
        return self.disk.content if self.open_disk() else None

    def view(self, start: int, stop: int) -> View:
        """The open files that hold ``[start, stop)``, for a thread."""
        parts: list[tuple[int, int, Content]] = []
        for place in (self.memory, self.disk):
            if place is not None and place.content is not None:
                parts += [
                    (max(a, start), min(b, stop), place.content)
                    for a, b in place.held
                    if a < stop and b > start
                ]
        return View(sorted(parts, key=lambda part: part[0]))

    def open_disk(self) -> bool:
        """Open the file again where it is closed; where that fails, its bytes are not here."""
        disk = self.disk
        if disk is None or self.forgotten:
            return False
        if disk.content is not None:
            return True
        try:
            content = self.host.open_file(self.identity)
        except FileNotFoundError:
            self._lose_disk(disk)
            return False
        if content is None:
            self._pass_by(disk)
            return False
        if self._stamp is not None and content.stamp() != self._stamp:
            self._distrust(disk)
        disk.content = content
        return True

    def _lose_disk(self, disk: Holding) -> None:
        for start, stop in disk.held:
            self.lose(start, stop)
        self.abandon_disk()
        self.changed()

    def _pass_by(self, disk: Holding) -> None:
        """The file cannot be opened now: this run does without it, a later one may not."""
        self.passed_by = True
        self.in_memory = True
        for start, stop in disk.held:
            self.drop(start, stop)

    def abandon_disk(self) -> None:
        """The file is not there any more, and nothing is on disk."""
        disk, self.disk = self.disk, None
        if disk is not None:
            self.host.give(disk.release())
            self._retire(disk)
        self.host.left_late(self)
        self.declared = False
        self.saved(final=True)

    def put_down(self, stamp: Stamp) -> None:
        """What waited in memory is in its file now, which is closed; ``stamp`` is the file's."""
        assert self.disk is not None
        self.host.left_late(self)
        self.disk.content = None
        self._stamp = stamp

    def stay_in_memory(self) -> None:
        """What waits in memory cannot be put on disk."""
        disk = self.disk
        self.in_memory = True
        if disk is not None and self.memory is None and not self.forgotten:
            self.memory = Holding(disk.content, disk.held, disk.charge)
            self.host.take_memory(disk.charge)
        elif disk is not None:
            for start, stop in disk.held:
                self.drop(start, stop)
        self.abandon_disk()

    def _distrust(self, disk: Holding) -> None:
        """Somebody touched the file while it was closed: its blocks are checked again."""
        self.epoch += 1
        self.hashed = Hash()
        for start, stop in disk.held:
            self.trusted.remove(start, stop)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """A thread uses the files: they are not closed meanwhile."""
        self._users += 1
        try:
            yield
        finally:
            self._users -= 1
            if not self._users:
                for holding in self._retired:
                    holding.close()
                self._retired.clear()

    def _retire(self, holding: Holding) -> None:
        """Close a place that is not used any more, once no thread reads it."""
        if self._users:
            self._retired.append(holding)
        else:
            holding.close()

    def finish(self) -> bool:
        """Have all that was written in its file; False if the disk does not take some of it, which
        is not here any more then.
        """
        content = self.disk.content if self.disk is not None else None
        if content is None or not content.writable:
            return True
        try:
            content.finish()
        except OSError as error:
            self.host.trouble(error)
            for start, stop in content.unfinished():
                self._discard(start, min(stop, self.size))
            return False
        return True

    def close(self) -> bool:
        """Close the files; what lay in memory is gone, what lies on disk can be opened again.

        False if the disk did not take the last of it, so that its row is not right any more.
        """
        if self.memory is not None:
            for start, stop in self.memory.held:
                self.drop(start, stop)
            self._drop_memory()
        finished = self.finish()
        if self.disk is not None and self.disk.content is not None:
            self._stamp = self.disk.content.stamp() or UNKNOWN
            self.disk.close()
        self.declared = False
        return finished

    # Its row

    def unsealed(self) -> list[tuple[int, int]]:
        """The runs of whole blocks on disk that have no seal yet; only trusted bytes get one."""
        if self.disk is None or self.disk.content is None:
            return []
        held = Ranges(self.disk.held)
        for start, stop in self.disk.held:
            for gap in self.trusted.missing(start, stop):
                held.remove(*gap)
        return [
            gap
            for start, stop in held
            for gap in self.seals.known.missing(*whole_blocks(start, stop, self.size))
        ]

    def row(self) -> tuple[Row, Ranges]:
        """What to note of it, and the blocks that are on disk and sealed."""
        blocks = Ranges()
        for start, stop in self.disk.held if self.disk else ():
            blocks.add(*whole_blocks(start, stop, self.size))
        for first, last in blocks:
            for gap in self.seals.known.missing(first, last):
                blocks.remove(*gap)
        held = sum(stop - start for start, stop in (bytes_of(*run, self.size) for run in blocks))
        verified = self.verified and not self.accepted and held == self.size
        charge = self.disk.charge if self.disk else 0
        return Row(self.identity, self.size, held, charge, verified), blocks
