"""Verifies the checksum of a whole content, and withholds its bytes until then.

A content is checked once it is complete. Up to ``CHECKED_FIRST`` bytes, not all of it is given
before the end of the check: the bytes that are still to be given by then are withheld, or some of
them, whoever reads them. So nobody has the whole before it is known to be right.
If the check fails, all bytes are dropped and fetched once more; a handle that was given bytes
which then turn out to differ gets no more of the file. A content that is read through memory is
never complete: it is hashed as it passes.
"""

import hashlib
import logging
from typing import Protocol
from zlib import crc32

import trio

from phonofs.cache.entry import CacheEntry
from phonofs.checksum import expected
from phonofs.errors import Changed, Corrupt, ServiceError, Unavailable
from phonofs.model import Record
from phonofs.ranges import Ranges
from phonofs.reader.context import ReaderContext, content_key
from phonofs.reader.limits import CHECKED_FIRST, KIB, MIB, SMALL

log = logging.getLogger(__name__)

BLOCK = 128 * KIB
HASHED_AHEAD = 1 * MIB
"""Objects of this size and more are hashed while they are downloaded, so that the read that
completes them waits for little: 1 MiB takes 1.3 to 1.7 ms."""

HASH_AHEAD = 256 * KIB
"""Hashing begins once so much has come, and goes on with what comes meanwhile."""

AT_ONCE = 1 * MIB
"""Bytes hashed at a time on the event loop: 2 ms."""

Sums = list[int | None]
"""A CRC for each block; None if the block could not be read."""

Span = tuple[int, int]


def provable(record: Record) -> bool:
    """Whether the record has a checksum that can be checked."""
    return expected(record.checksum) is not None


class Verified(Protocol):
    """What the verification needs of an open object, and what it has the object do."""

    @property
    def failure(self) -> ServiceError | None: ...  # noqa: D102
    @property
    def open_ended(self) -> bool: ...  # noqa: D102
    @property
    def length_doubtful(self) -> bool: ...  # noqa: D102

    def passed(self, false: list[Span]) -> None:
        """The content is right; of what was given before, these intervals were wrong."""

    def refetch(self) -> None:
        """The content is wrong: drop it and fetch it once more."""

    def fail(self, error: ServiceError) -> None:
        """The content is wrong for good."""

    def task_ended(self) -> None:
        """A task of the verification is over."""


class ContentVerification:
    """Verifies one content.

    gated    nothing may be given until the content was verified
    end_gated  of a complete content, not all may be given until it was verified
    running  a check is under way
    failures how many checks failed
    required ETags say nothing of this content: only the checksum can show that it is of one version
    given    whether a handle was given bytes that were not verified
    After a failed check, ``_doubted`` has the checksums of the blocks of the wrong content.
    """

    def __init__(
        self, record: Record, entry: CacheEntry, context: ReaderContext, content: Verified
    ) -> None:
        self._record = record
        self._entry = entry
        self._context = context
        self._content = content
        self.gated = False
        self.end_gated = False
        self.running = False
        self.required = False
        self.given = False
        self.failures = 0
        self._hashed = 0
        self._hashing = False
        self._catching_up = False
        self._over = trio.Event()
        self._doubted: Sums = []
        self._first: object = None
        self.reopen()
        for start, stop in entry.present:  # the kernel may have pages of it, and of all before
            self._given.add(start, stop)
        self._passing = StreamingHash(record, entry)

    def reopen(self) -> None:
        """Find again what was given, which is forgotten of what was opened long ago."""
        self._given = self._context.given_of(content_key(self._record))

    @property
    def busy(self) -> bool:
        """Whether it has a task that uses the entry."""
        return self.running or self._hashing

    @property
    def sure(self) -> bool:
        """Whether the content is known to be right."""
        return self._entry.verified or self._passing.right

    @property
    def can_gate(self) -> bool:
        """Whether the content is small enough to be verified before any byte of it is given."""
        return self._entry.size <= (SMALL if self._entry.in_memory else CHECKED_FIRST)

    @property
    def pressed(self) -> bool:
        """Whether the content had to give memory back, so that it may never be there as a whole."""
        return self._passing.pressed

    # what happens to the content

    def require(self) -> None:
        """From now on only the checksum shows that the content is of one version."""
        self.required = True
        if self.can_gate:
            self.gated = True

    def note_given(self, start: int, stop: int) -> None:
        """A handle is given bytes that are not verified."""
        self.given = True
        self._given.add(start, stop)

    def withholds(self, start: int, stop: int) -> bool:
        """Whether ``[start, stop)`` must not be given until the content was verified.

        While a complete content is checked for the first time, this is so for the bytes with which
        all of it would have been given.
        """
        if self.gated or not self.end_gated:
            return self.gated
        gaps = self._given.missing(0, self._entry.size)
        return all(start <= a and b <= stop for a, b in gaps)

    def completed(self) -> None:
        """All bytes are there: verify them unless that was done."""
        content = self._content
        if self.sure:
            self._note_sure()
            return
        if self.running or content.failure is not None or content.open_ended:
            return
        if content.length_doubtful and not provable(self._record):
            return
        if not self._doubted and self._entry.complete and self._entry.check_now():
            self._pass([])
            return
        if self._entry.size <= CHECKED_FIRST:
            self.end_gated = True
            self.gated = self.gated or content.length_doubtful
        self._context.spawn(self._check)  # may refuse; it begins to run later
        self.running = True
        self._over = trio.Event()

    def length_changed(self) -> None:
        """The service states another length than the record: withhold until the whole is verified.

        Otherwise two bytes of an error page would pass for a whole file that ends there.
        """
        if provable(self._record) and not self.sure and self._entry.size <= CHECKED_FIRST:
            self.gated = True

    def expect(self) -> None:
        """The first bytes were requested: hash them as they come."""
        begun = self._hashing or self._hashed or self.running or self.sure
        if self._hashes_ahead and not begun:
            self._context.spawn(self._hash_ahead)
            self._hashing = True

    @property
    def _hashes_ahead(self) -> bool:
        return self.can_gate and self._entry.size >= HASHED_AHEAD

    def arrived(self) -> None:
        """New bytes are there. Must be called before their waiters are woken."""
        if self._catching_up:
            return
        self._judge(self._passing.advance())
        if self._passing.behind and not self.running:
            self._context.spawn(self._catch_up)
            self._catching_up = self.running = self.gated = True
            self._over = trio.Event()
        elif self.sure:
            return
        elif not self._hashing and self._hashes_ahead:
            there = self._entry.present.stop_of(0)
            if there - self._hashed >= HASH_AHEAD and there < self._entry.size:
                self._context.spawn(self._hash_ahead)
                self._hashed, self._hashing = there, True

    def keep(self, kept: Ranges) -> None:
        """Add what the verification still needs to what is kept in memory."""
        self._passing.keep(kept)

    def keep_unhashed(self, kept: Ranges) -> None:
        """Memory is short: hash what is there, and add what is too much for that to ``kept``."""
        self._passing.press()
        if self._entry.verified:
            self._passing.trust()
        elif not self._catching_up:
            self._judge(self._passing.advance(to_the_end=True))
        if self._passing.behind:
            self._passing.keep(kept)

    # for reads that wait

    async def over(self) -> None:
        """Wait for the check that is under way."""
        await self._over.wait()

    def confirm(self) -> None:
        """The content is known to be right: nothing is withheld any more."""
        self._pass([])

    def lacks(self) -> Span:
        """The bytes to have next, so that the whole can be verified."""
        return self._passing.lacks()

    def recheck(self) -> None:
        """All bytes are there and no check is under way: begin one, if there is cause."""
        failures = self.failures
        self.arrived()  # another length may have completed a block
        if not (self.sure or self.running) and failures == self.failures:
            self.completed()

    # tasks

    async def _catch_up(self) -> None:
        """A gap was filled, and there is much to hash: hash a piece per turn of the event loop."""
        failures = self.failures
        try:
            while self._passing.behind and self._content.failure is None:
                await trio.lowlevel.checkpoint()
                self._judge(self._passing.advance())
        except Exception:
            log.exception("object %s: a fault of phonofs while hashing", self._record.id)
        finally:
            self._catching_up = self.running = False
            if self.failures == failures:
                self.gated = self.required and self.can_gate and not self.sure
            self._over.set()
            self._content.task_ended()

    async def _hash_ahead(self) -> None:
        try:
            await self._entry.check_ahead()
        except MemoryError:
            pass  # the check of the whole hashes it
        except Exception:
            log.exception("object %s: a fault of phonofs while hashing", self._record.id)
        finally:
            self._hashing = False
            self._hashed = self._entry.present.stop_of(0)
            self._content.task_ended()

    async def _check(self) -> None:
        entry, content, name = self._entry, self._content, self._record.id
        try:
            if await entry.check():
                self._pass(await self._sums() if self._doubted else [])
            elif content.failure is None and entry.complete:
                self._failed(await self._sums())
            # else bytes were lost on disk: whoever needs them fetches them, and it begins again
        except MemoryError:
            content.fail(Unavailable(f"object {name}: no memory to check it in"))
        except Exception:
            log.exception("object %s: its check failed by a fault of phonofs", name)
            content.fail(Corrupt(f"object {name} could not be checked"))
        finally:
            self.running = False
            self._over.set()
            content.task_ended()

    async def _sums(self) -> Sums:
        sums: Sums = []
        for start in range(0, self._entry.size, BLOCK):
            data = await self._entry.read(start, min(BLOCK, self._entry.size - start))
            sums.append(None if data is None else crc32(data))
        return sums

    # verdicts

    def _judge(self, right: bool | None) -> None:
        if right is False:
            self._failed([], self._passing.digest)
        elif right:
            self._pass([])

    def _pass(self, sums: Sums) -> None:
        """The content was found right; a handle that was given other bytes before gets no more."""
        false = _differences(self._doubted, sums) if self._doubted else []
        self._doubted = []
        self.gated = self.end_gated = False
        self._note_sure()
        self._content.passed(false)

    def _note_sure(self) -> None:
        """Any of it may be given from now on, which nobody counts.

        So if the cache loses some of it, nothing is given of what comes instead before its check.
        """
        self._given.add(0, self._entry.size)

    def _failed(self, sums: Sums, digest: bytes = b"") -> None:
        """The content is wrong: fetch it once more, or give it up."""
        content, name = self._content, self._record.id
        seen = digest or (None if None in sums else sums)
        self.failures += 1
        if self._is_accepted(seen):
            if self._first is not None:
                self._note_difference()
            self._accept(sums)
            return
        self._first = seen
        self._context.counts.wrong += 1
        if self.required and self.given:
            content.fail(Changed(f"object {name} changed while it was read"))
        elif self.failures > 1:
            self._note_difference()
            log.error("object %s has the wrong content, also when fetched again", name)
            content.fail(Corrupt(f"object {name} has the wrong checksum or length"))
        else:
            level = logging.INFO if self._context.limits.verify == "length" else logging.WARNING
            log.log(level, "object %s has the wrong content and is fetched again", name)
            self._begin_again(sums)

    def _begin_again(self, sums: Sums) -> None:
        self._doubted = sums or [None] * (self._entry.size // BLOCK + 1)
        self.gated = self._entry.size <= CHECKED_FIRST
        self._hashed = 0
        self._passing.restart()
        self._content.refetch()

    def _is_accepted(self, seen: object) -> bool:
        """Whether a content is given although it does not have its checksum.

        True if ``verify=length`` is set, the length is right, and two fetches gave these bytes.
        ``seen`` stands for the bytes; None if they could not be read.
        """
        limits, accepted = self._context.limits, self._context.accepted
        if limits.verify != "length" or seen is None or self._content.length_doubtful:
            return False
        key = content_key(self._record)
        if seen not in (self._first, accepted.get(key)):
            return False
        accepted[key] = seen
        return True

    def _accept(self, sums: Sums) -> None:
        """Give a content that does not have its checksum."""
        if not sums:
            self._passing.trust()
            self._doubted = []
        self._entry.accept()
        self._pass(sums)

    def _note_difference(self) -> None:
        """Count the content; log its type once."""
        context, kind = self._context, self._record.type
        context.differing[kind] += 1
        if context.differing[kind] == 1 and context.limits.verify == "length":
            log.warning(
                "contents of type %s do not have the checksums of their records (object %s is "
                "one): they are given where two fetches agree, since verify=length",
                kind,
                self._record.id,
            )


class StreamingHash:
    """The hash of a content that passes through memory, from its first byte on.

    ``_md5`` has hashed ``[0, _position)``. The hash never ends if a byte was dropped unhashed:
    then the content was not read from its start.

    right   the whole was hashed, and has its checksum
    behind  there is more to hash than may be hashed at once
    digest  the hash of the whole, once it is known
    pressed the content had to give memory back, so it may never be in memory as a whole
    """

    def __init__(self, record: Record, entry: CacheEntry) -> None:
        self._entry = entry
        self._expected = expected(record.checksum)
        self.pressed = False
        self.restart()

    def restart(self) -> None:
        """Begin at the first byte."""
        self.right = False
        self.behind = False
        self.digest = b""
        self._position = 0
        self._md5 = hashlib.md5(usedforsecurity=False)

    def trust(self) -> None:
        """The content counts as right without its hash."""
        self.right = True

    def press(self) -> None:
        """The content had to give memory back: hash it even if it is small."""
        self.pressed = True

    def _wanted(self) -> bool:
        if not self._entry.in_memory or self._expected is None:
            return False
        return self._entry.size > SMALL or self.pressed

    def advance(self, *, to_the_end: bool = False) -> bool | None:
        """Hash at most ``AT_ONCE`` bytes of what is there; ``behind`` says whether there is more.

        Hashes whole blocks only. ``to_the_end`` also hashes the rest of the last one, and up to
        ``SMALL`` bytes at once. Returns whether the whole is right, None if it was not all hashed.
        """
        entry = self._entry
        self.behind = False
        if not self._wanted() or self.right:
            return None
        there = entry.present.stop_of(self._position)
        last = self._position + (SMALL if to_the_end else AT_ONCE)
        least = 1 if to_the_end or there == entry.size else BLOCK
        while there - self._position >= least:
            if self._position >= last:
                self.behind = True
                return None
            data = entry.read_now(self._position, min(BLOCK, there - self._position))
            if data is None:
                return None
            self._md5.update(data)
            self._position += len(data)
        if self._position < entry.size:
            return None
        assert self._expected is not None
        self.digest = self._md5.digest()
        self.right = self._expected.matches(self.digest)
        return self.right

    def lacks(self) -> Span:
        """The bytes to have next, so that the whole can be verified."""
        size = self._entry.size
        if not self._wanted():
            return 0, size
        return self._position, min(size, self._position + AT_ONCE)

    def keep(self, kept: Ranges) -> None:
        """Add what is there and was not hashed yet."""
        if self._wanted():
            there = self._entry.present.stop_of(self._position) if self.behind else 0
            kept.add(self._position, max(there, self._position + 2 * BLOCK))


def _differences(old: Sums, new: Sums) -> list[tuple[int, int]]:
    """The blocks that differ, as intervals of bytes."""
    count = max(len(old), len(new))
    old = old + [None] * (count - len(old))
    new = new + [None] * (count - len(new))
    return [
        (index * BLOCK, (index + 1) * BLOCK)
        for index, (a, b) in enumerate(zip(old, new, strict=True))
        if a is None or a != b
    ]
