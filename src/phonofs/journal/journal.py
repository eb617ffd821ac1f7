"""The journal that a mount writes: each open has a line before it is answered.

Used by ``access.py``. Runs on one event loop. While no sync is under way, a line is written at
once: that only copies it into the kernel's memory, which survives a kill of this process. What may
wait for the disk is done in threads: syncs, the beginning of a month, and writes during a sync. All
opens that wait meanwhile are written together, and share a sync. Lines that nobody waits for, such
as those of closes, go with the next open, or with the next sync.
"""

import logging
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

import trio

from phonofs import __version__
from phonofs.errors import JournalError
from phonofs.journal.disk_thread import in_thread
from phonofs.journal.entry import Entry, all_lines, granted, now_text
from phonofs.journal.folder import search_key
from phonofs.journal.lines import Event, Line, keyed_hash
from phonofs.journal.writer import Writer
from phonofs.units import format_size

log = logging.getLogger(__name__)

WRITE_S = 10.0
"""How long an open waits for its line; a disk that takes longer counts as one that failed."""

RETRY_S = 1.0
"""After a failure, opens fail at once for that long before the disk is tried again."""


class Journal:
    """Owns the writer and the lines that wait for it.

    _writing, _syncing  whether a thread does that now
    _hangs    whether such a thread was left alone as this ended: it still has the file
    _stuck    whether an open has waited for that thread in vain: until it ends, no other waits
    _missed   opens without a line meanwhile, of which the writer is told when it can be; None if
              no line is missing
    _disk     held by whatever must not happen beside a sync
    _synced   the number of the last line that is on disk
    _error    why lines cannot be written now, '' if they can
    _key      of the words of searches; None if there is none
    waits     how many opens have waited for their lines
    """

    def __init__(self, writer: Writer, *, sync_s: float, allow: bool) -> None:
        """``allow``: files can be opened while no line can be written."""
        self._writer = writer
        self._sync_s = sync_s
        self._allow = allow
        self._key: bytes | None = None
        self._pending: list[Entry] = []
        self._wake, self._unsynced = trio.Event(), trio.Event()
        self._writing = self._syncing = self._stuck = self._hangs = False
        self._missed: int | None = None
        self._disk = trio.Lock()
        self._sync_waiters = trio.lowlevel.ParkingLot()
        self._synced = 0
        self._error = self._no_reserve = ""
        self._retry_at_s = 0.0
        self._lines = self._failures = self._unrecorded = 0
        self.waits = 0

    @classmethod
    def open(cls, path: Path, *, sync_s: float, allow: bool) -> "Journal":
        """Lock the folder of a profile, and write the first line.

        Waits for the disk. Raises UsageError, and JournalError unless ``allow``.
        """
        journal = cls(Writer(path), sync_s=sync_s, allow=allow)
        try:
            journal._start()
        except OSError as error:
            failed = journal._failed(error)
            if not allow:
                journal._writer.close()
                raise failed from None
        journal._load_key()
        return journal

    def _start(self) -> None:
        start = Line(at=now_text(), event=Event.START, version=__version__)
        self._synced = self._writer.append([start])
        self._lines += 1
        self._tell_reserve(self._writer.sync())
        self._writer.save()

    def _load_key(self) -> None:
        try:
            self._key = search_key(self._writer.path)
        except OSError as error:
            why = error.strerror or str(error)
            log.warning("the journal %s has no words of searches (%s)", self._writer.path, why)

    # lines

    async def record(self, lines: Sequence[Line]) -> int:
        """Write lines; return the number of the first, 0 if ``allow`` and they were not written.

        They survive a kill of this process when this returns, and a power cut too if the option
        ``journal_sync`` is 0. Raises JournalError.
        """
        entry = Entry(lines)
        try:
            await self._record(entry)
        except BaseException:  # an open that nobody waits for any more
            self._give_up(entry)
            raise
        if entry.error is None:
            return entry.number
        if not self._allow:
            self._give_up(entry)
            raise entry.error
        self._unrecorded += granted([entry])
        return 0

    async def _record(self, entry: Entry) -> None:
        if self._stuck:
            self._miss(entry, self._unwritable())
            return
        self._pending.append(entry)
        if self._writer_is_free(entry.lines[-1].at):
            self._write_now()
        else:
            await self._wait_for(entry)
        if self._sync_s == 0 and entry.error is None:
            self.waits += 1
            entry.settle(entry.number, await self._on_disk(entry.number))

    async def _wait_for(self, entry: Entry) -> None:
        self.waits += 1
        self._wake.set()
        if not await entry.wait(WRITE_S):
            error = self._overdue()
            if entry in self._pending:
                self._pending.remove(entry)
                self._miss(entry, error)
            else:  # the thread has it: it may still be written
                entry.settle(0, error)

    def _miss(self, entry: Entry, error: JournalError) -> None:
        """Note that lines are not written, which the writer cannot be told now."""
        entry.settle(0, error)
        self._missed = (self._missed or 0) + self._unrecorded_opens([entry])

    def _give_up(self, entry: Entry) -> None:
        """Have lines that open nothing not written, or else ended."""
        if entry in self._pending:
            self._pending.remove(entry)
        for line in entry.give_up():
            self.note(line)

    def _overdue(self) -> JournalError:
        self._stuck = self._writing or self._syncing
        return self._failed(TimeoutError(0, f"no answer within {WRITE_S:g} s"))

    def _thread_ended(self) -> None:
        """Let opens wait again."""
        self._stuck = False
        if self._missed is not None:
            self._writer.mark_broken(self._missed)
            self._missed = None

    def _unrecorded_opens(self, entries: Sequence[Entry]) -> int:
        """Return how many files are opened though these lines are not written."""
        return granted(entries) if self._allow else 0

    def note(self, line: Line) -> None:
        """Have a line written that nobody waits for, within the option ``journal_sync``."""
        self._pending.append(Entry([line]))
        self._unsynced.set()

    def hashed(self, words: Iterable[str]) -> list[str] | None:
        """Return what stands for the words of a search in its line; None if there is no key."""
        key = self._key
        return None if key is None else [keyed_hash(key, word) for word in words]

    def _writer_is_free(self, at: str) -> bool:
        return not self._writing and not self._syncing and self._writer.ready(at)

    def _take(self) -> list[Entry]:
        taken, self._pending = self._pending, []
        return taken

    def _write_now(self) -> None:
        """Write what waits, on the event loop."""
        entries = self._take()
        number, error = 0, None
        try:
            number = self._writer.append(all_lines(entries))
        except OSError as failure:
            error = self._failed(failure)
        self._told(entries, number, error)

    def _told(self, entries: Sequence[Entry], number: int, error: JournalError | None) -> None:
        """Take the outcome of a write, and pass it on to who waits for it."""
        if error is not None:
            self._writer.mark_broken(self._unrecorded_opens(entries))
            for entry in entries:
                entry.settle(0, error)
            return
        if self._error:
            self._worked()
        for entry in entries:
            entry.settle(number, None)
            if entry.given_up:
                self._pending += [Entry([line]) for line in entry.ends()]
            number += len(entry.lines)
            self._lines += len(entry.lines)
        self._unsynced.set()

    # tasks

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write and sync until cancelled; go on with what an earlier run has left."""
        if self._pending:
            self._wake.set()
        if self._synced < self._writer.end.n:
            self._unsynced.set()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_writing)
            nursery.start_soon(self._keep_syncing)
            task_status.started()

    async def _keep_writing(self) -> None:
        """Write in a thread what could not be written at once."""
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            while self._pending:
                if self._error and trio.current_time() < self._retry_at_s:
                    self._told(self._take(), 0, self._unwritable())
                elif self._writer.ready(self._pending[-1].lines[-1].at):
                    await self._write()
                else:
                    async with self._disk:
                        await self._write()

    async def _write(self) -> None:
        entries = self._take()
        append = partial(self._writer.append, all_lines(entries))
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
        except trio.Cancelled:
            self._pending[:0] = [each for each in entries if not each.given_up]
            raise
        number, error = 0, None
        self._writing = True
        try:
            number = await in_thread(append, WRITE_S)
        except OSError as failure:
            error = self._failed(failure)
        except trio.Cancelled:
            self._hangs = True
            raise
        finally:
            self._writing = False
        self._thread_ended()
        self._told(entries, number, error)

    async def _keep_syncing(self) -> None:
        """Sync ``journal_sync`` after the first line that was written since the last sync."""
        while True:
            await self._unsynced.wait()
            await trio.sleep(self._sync_s)
            if self._pending and self._writer_is_free(self._pending[-1].lines[-1].at):
                self._write_now()
            async with self._disk:
                self._unsynced = trio.Event()
                await self._sync()
            self._sync_waiters.unpark_all()
            if self._pending:
                self._wake.set()

    async def _sync(self) -> None:
        number = self._writer.end.n
        self._syncing = True
        try:
            why = await in_thread(self._writer.sync, WRITE_S)
        except OSError as error:
            self._writer.mark_broken()
            self._failed(error)
        except trio.Cancelled:
            self._hangs = True
            raise
        else:
            self._synced = number
            self._tell_reserve(why)
        finally:
            self._syncing = False
        self._thread_ended()

    async def _on_disk(self, number: int) -> JournalError | None:
        """Wait until a line is on disk; return why it is not."""
        failures = self._failures
        with trio.move_on_after(WRITE_S):
            while self._synced < number:
                if self._failures > failures:
                    return self._unwritable()
                await self._sync_waiters.park()
            return None
        return self._overdue()

    # failures

    def _failed(self, error: OSError) -> JournalError:
        self._failures += 1
        why = error.strerror or str(error)
        if not self._error:
            log.error("%s", self._sentence(why))
        self._error = why
        self._retry_at_s = _loop_time() + RETRY_S
        return self._unwritable()

    def _worked(self) -> None:
        log.warning("the journal %s is written again", self._writer.file)
        self._error = ""

    def _unwritable(self) -> JournalError:
        return JournalError(self._sentence(self._error))

    def _sentence(self, why: str) -> str:
        said = "opens are not recorded" if self._allow else "nothing is opened"
        return f"the journal {self._writer.file} cannot be written ({why}): {said} until it can"

    def _tell_reserve(self, why: str) -> None:
        """Say once that no more space can be reserved."""
        if why and not self._no_reserve:
            log.warning("%s", self._shortage(why))
        self._no_reserve = why

    def _shortage(self, why: str) -> str:
        left = format_size(self._writer.reserve_bytes)
        return f"the disk of the journal {self._writer.file} is short ({why}): {left} are reserved"

    # what it says of itself

    def condition(self) -> str:
        """Return what is wrong, in one sentence; '' if nothing is."""
        if self._error:
            return self._sentence(self._error)
        return self._shortage(self._no_reserve) if self._no_reserve else ""

    def statistics(self) -> dict[str, object]:
        """Return the gauges and counts, by their names in ``phonofs status --json``."""
        end = self._writer.end
        return {
            "state": "failing" if self._error else "on",
            "error": self._error,
            "file": str(self._writer.file),
            "lines": self._lines,
            "last": end.n,
            "last_hash": end.hash,
            "failures": self._failures,
            "unrecorded": self._unrecorded,
            "reserve_bytes": self._writer.reserve_bytes,
        }

    async def aclose(self) -> None:
        """Do as :meth:`close`, but wait for no more than WRITE_S, also if cancelled."""
        ended = False
        if not self._hangs:
            with trio.move_on_after(WRITE_S, shield=True):
                await trio.to_thread.run_sync(self.close, abandon_on_cancel=True)
                ended = True
        if not ended:
            log.error("the journal %s has no last line: the disk is too slow", self._writer.file)

    def close(self) -> None:
        """Write what waits and the last line. Waits for the disk."""
        stop = Line(at=now_text(), event=Event.STOP)
        try:
            self._writer.append([*all_lines(self._take()), stop])
            self._writer.sync()
            self._writer.save()
        except OSError as error:
            log.error("the journal %s has no last line: %s", self._writer.file, error.strerror)
        self._writer.close()


def _loop_time() -> float:
    """Return trio's clock, or 0 before the loop runs."""
    try:
        return trio.current_time()
    except RuntimeError:
        return 0.0
