"""Whether a whole content is right, and what follows where it is not.

An object that is complete is checked once. Up to ``CHECKED_FIRST`` bytes nothing is given between
its completion and the end of the check, so the read that makes it whole never gets false bytes
for true ones. Where the check fails, all bytes are dropped and fetched once more; a handle that
was given bytes which then turn out different gets no more of the file. What is read through
memory, and so is never complete, is hashed as it passes.
"""

import hashlib
import logging
from typing import TYPE_CHECKING
from zlib import crc32

import trio

from phonofs.checksum import expected
from phonofs.errors import Changed, Corrupt, Unavailable
from phonofs.model import Record
from phonofs.ranges import Ranges
from phonofs.reader.limits import CHECKED_FIRST, KIB, MIB, SMALL

if TYPE_CHECKING:
    from phonofs.reader.open_object import Handle, OpenObject

log = logging.getLogger(__name__)

BLOCK = 128 * KIB
HASH_AHEAD = 8 * MIB
"""So many bytes at a time are hashed while the rest is still on its way, so that the last block
waits for the hash of few."""

AT_ONCE = 1 * MIB
"""Hashed on the event loop at a time: 2 ms."""

Sums = list[int | None]


def provable(record: Record) -> bool:
    """Whether the record has a checksum that can be checked."""
    return expected(record.checksum) is not None


class ContentVerification:
    """Owns the answer for one stream.

    gated    nothing may be given until a check was passed
    running  a check is under way
    failures checks that failed
    Doubted are, after a failed check: the sums of its blocks, and what each handle was given.
    """

    def __init__(self, stream: "OpenObject") -> None:
        self._stream = stream
        self.gated = False
        self.running = False
        self.failures = 0
        self._hashed = 0
        self._hashing = False
        self._catching_up = False
        self._over = trio.Event()
        self._doubted: Sums = []
        self._first: object = None
        self._given: dict[Handle, Ranges] = {}
        self._passing = StreamingHash(stream)

    @property
    def busy(self) -> bool:
        """Whether it has a task that uses the blob."""
        return self.running or self._hashing

    @property
    def sure(self) -> bool:
        """Whether the content is known to be right."""
        return self._stream.blob.verified or self._passing.right

    def completed(self) -> None:
        """All bytes are there: check them, if that was not done."""
        stream = self._stream
        if self.running or self.sure or stream.failure is not None or stream.loose:
            return
        if stream.length.doubtful and not provable(stream.record):
            return
        if not self._doubted and stream.blob.complete and stream.blob.check_now():
            self._cleared([])
            return
        self.gated = stream.size <= CHECKED_FIRST
        stream.context.spawn(self._check)  # may refuse; it begins to run later
        self.running = True
        self._over = trio.Event()

    def doubt(self) -> None:
        """The service names another length than the record: believed once the whole was checked.

        Otherwise two bytes of something else would pass for a whole file that ends there.
        """
        stream = self._stream
        if provable(stream.record) and not self.sure and stream.size <= CHECKED_FIRST:
            self.gated = True

    def passed(self) -> None:
        """New bytes are there; to be called before those who wait for them are woken."""
        if self._catching_up:
            return
        self._judge(self._passing.advance())
        if self._passing.behind and not self.running:
            self._stream.context.spawn(self._catch_up)
            self._catching_up = self.running = self.gated = True
            self._over = trio.Event()
        elif self.sure:
            return
        elif not self._hashing and HASH_AHEAD <= self._stream.size <= CHECKED_FIRST:
            there = self._stream.blob.present.stop_of(0)
            if there - self._hashed >= HASH_AHEAD and there < self._stream.size:
                self._stream.context.spawn(self._hash_ahead)
                self._hashed, self._hashing = there, True

    def _judge(self, verdict: bool | None) -> None:
        if verdict is False:
            self._failed([], self._passing.digest)
        elif verdict:
            self._cleared([])

    async def _catch_up(self) -> None:
        """A gap has closed, and there is much to hash at once: a piece at each turn of the loop."""
        failures = self.failures
        try:
            while self._passing.behind and self._stream.failure is None:
                await trio.lowlevel.checkpoint()
                self._judge(self._passing.advance())
        except Exception:
            log.exception("object %s: a fault of phonofs while hashing", self._stream.record.id)
        finally:
            self._catching_up = self.running = False
            if self.failures == failures:
                stream = self._stream
                self.gated = stream.any_etag and stream.can_be_gated and not self.sure
            self._over.set()
            self._stream.task_ended()

    async def _hash_ahead(self) -> None:
        try:
            await self._stream.blob.check_ahead()
        except Exception:
            log.exception("object %s: a fault of phonofs while hashing", self._stream.record.id)
        finally:
            self._hashing = False
            self._stream.task_ended()

    def keep_unhashed(self, kept: Ranges) -> None:
        """What is in memory goes: hash it to its last byte, and keep what is too much for that."""
        if self._stream.blob.verified:
            self._passing.right = True
        elif not self._catching_up:
            self._judge(self._passing.advance(to_the_end=True))
        if self._passing.behind:
            self._passing.keep(kept)

    def keep(self, kept: Ranges) -> None:
        """Add what the proof still needs to what is kept in memory."""
        self._passing.keep(kept)

    async def settle(self, handle: "Handle", deadline: float) -> None:
        """Wait for the check, bringing what it needs; the caller looks again afterwards."""
        if self.running:
            await self._over.wait()
            return
        if self.sure:
            self._cleared([])
            return
        on_its_way = self._stream.cover(handle, *self._passing.lacks())
        if on_its_way is not None:
            await on_its_way[0].until(on_its_way[1], deadline)
        elif (download := self._stream.open_end(self._stream.size)) is not None:
            await download.over.wait()  # only then the check may begin
        else:
            failures = self.failures
            self.passed()  # another length may have made more of it a whole block
            if not (self.sure or self.running) and failures == self.failures:
                self.completed()
            await trio.lowlevel.checkpoint()  # if no check began, others still get their turn

    async def _check(self) -> None:
        stream = self._stream
        try:
            if await stream.blob.check():
                self._cleared(await self._sums() if self._doubted else [])
            elif stream.failure is None and stream.blob.complete:
                self._failed(await self._sums())
            # else bytes were lost on disk: whoever needs them fetches them, and it begins again
        except MemoryError:
            stream.fail(Unavailable(f"object {stream.record.id}: no memory to check it in"))
        except Exception:
            log.exception("object %s: its check failed by a fault of phonofs", stream.record.id)
            stream.fail(Corrupt(f"object {stream.record.id} could not be checked"))
        finally:
            self.running = False
            self._over.set()
            stream.task_ended()

    def _cleared(self, sums: Sums) -> None:
        """The content is right now; who was given something else before gets no more."""
        if self._doubted:
            false = _differences(self._doubted, sums)
            for handle, given in self._given.items():
                if any(given.missing(a, b) != [(a, b)] for a, b in false):
                    handle.wrong = Corrupt(
                        f"object {self._stream.record.id}: bytes given before were wrong; "
                        "open the file again"
                    )
            self._doubted, self._given = [], {}
        self.gated = False
        self._stream.tell_size(self._stream.size)

    def _is_accepted(self, seen: object) -> bool:
        """Whether a content is given although it does not have its checksum.

        True if ``verify=length`` is set, the length is right, and two fetches gave these bytes.
        ``seen`` stands for the bytes; None if they could not be read.
        """
        stream = self._stream
        if stream.context.limits.verify != "length" or seen is None or stream.length.doubtful:
            return False
        if seen not in (self._first, stream.context.accepted.get(stream.key)):
            return False
        stream.context.accepted[stream.key] = seen
        return True

    def _accept(self, sums: Sums) -> None:
        """Give a content that does not have its checksum."""
        if not sums:
            self._passing.right, self._doubted = True, []
        self._stream.blob.accept()
        self._cleared(sums)

    def _note_difference(self) -> None:
        """Count the content; its type is said once."""
        context, kind = self._stream.context, self._stream.record.type
        context.differing[kind] += 1
        if context.differing[kind] == 1 and context.limits.verify == "length":
            log.warning(
                "contents of type %s do not have the checksums of their records (object %s is "
                "one): they are given where two fetches agree, since verify=length",
                kind,
                self._stream.record.id,
            )

    def _failed(self, sums: Sums, digest: bytes = b"") -> None:
        """The content is wrong: fetch it once more, or tell everybody."""
        stream = self._stream
        seen = digest or (None if None in sums else sums)
        self.failures += 1
        if self._is_accepted(seen):
            if self._first is not None:
                self._note_difference()
            self._accept(sums)
            return
        self._first = seen
        stream.context.counts.wrong += 1
        if stream.any_etag and stream.given:
            stream.fail(Changed(f"object {stream.record.id} changed while it was read"))
            return
        if self.failures > 1:
            self._note_difference()
            log.error("object %s has the wrong content, also when fetched again", stream.record.id)
            stream.fail(Corrupt(f"object {stream.record.id} has the wrong checksum or length"))
            return
        level = logging.INFO if stream.context.limits.verify == "length" else logging.WARNING
        log.log(level, "object %s has the wrong content and is fetched again", stream.record.id)
        self._doubted = sums or [None] * (stream.size // BLOCK + 1)
        self._given = {handle: handle.seen for handle in stream.handles}
        for handle in stream.handles:
            handle.seen = Ranges()
        self.gated = stream.size <= CHECKED_FIRST
        self._hashed = 0
        self._passing.restart()
        stream.restore()
        stream.context.tell(stream.context.on_wrong, stream.ino)

    async def _sums(self) -> Sums:
        """A CRC for each block; None where it cannot be read."""
        sums: Sums = []
        for start in range(0, self._stream.size, BLOCK):
            data = await self._stream.blob.read(start, min(BLOCK, self._stream.size - start))
            sums.append(None if data is None else crc32(data))
        return sums


class StreamingHash:
    """The hash of a content that passes through memory, from its first byte on.

    Owns the hash of ``[0, _position)``. Stalls for good where a byte was dropped unhashed, which
    only says that the content was not read from its start.
    """

    def __init__(self, stream: "OpenObject") -> None:
        self._stream = stream
        self._expected = expected(stream.record.checksum)
        self.restart()

    def restart(self) -> None:
        """Begin at the first byte."""
        self.right = False
        self.behind = False
        self.digest = b""
        self._position = 0
        self._md5 = hashlib.md5(usedforsecurity=False)

    def _wanted(self) -> bool:
        stream = self._stream
        if not stream.blob.in_memory or self._expected is None:
            return False
        return stream.size > SMALL or stream.pressed

    def advance(self, *, to_the_end: bool = False) -> bool | None:
        """Hash at most ``AT_ONCE`` bytes of what is there; ``behind`` says whether there is more.

        Hashes whole blocks only. ``to_the_end`` also hashes the rest of the last one, and up to
        ``SMALL`` bytes at once. Returns whether the whole is right, None if it was not all hashed.
        """
        stream = self._stream
        self.behind = False
        if not self._wanted() or self.right:
            return None
        there = stream.blob.present.stop_of(self._position)
        last = self._position + (SMALL if to_the_end else AT_ONCE)
        least = 1 if to_the_end or there == stream.size else BLOCK
        while there - self._position >= least:
            if self._position >= last:
                self.behind = True
                return None
            data = stream.blob.read_now(self._position, min(BLOCK, there - self._position))
            if data is None:
                return None
            self._md5.update(data)
            self._position += len(data)
        if self._position < stream.size:
            return None
        assert self._expected is not None
        self.digest = self._md5.digest()
        self.right = self._expected.matches(self.digest)
        return self.right

    def lacks(self) -> tuple[int, int]:
        """What to have next, so that the whole can be checked: in memory it need not be there."""
        size = self._stream.size
        if not self._wanted():
            return 0, size
        return self._position, min(size, self._position + AT_ONCE)

    def keep(self, kept: Ranges) -> None:
        """What is there and was not hashed yet."""
        if self._wanted():
            there = self._stream.blob.present.stop_of(self._position) if self.behind else 0
            kept.add(self._position, max(there, self._position + 2 * BLOCK))


def _differences(old: Sums, new: Sums) -> list[tuple[int, int]]:
    """The blocks that were not the same, as intervals of bytes."""
    count = max(len(old), len(new))
    old = old + [None] * (count - len(old))
    new = new + [None] * (count - len(new))
    return [
        (index * BLOCK, (index + 1) * BLOCK)
        for index, (a, b) in enumerate(zip(old, new, strict=True))
        if a is None or a != b
    ]
