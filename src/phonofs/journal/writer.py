"""Appends lines to the files of a journal, and goes on with the chain after whatever happened.

Used by ``journal.py``. Synchronous: a call waits for the disk. ``append`` of a writer that is ready
only copies bytes into the kernel's memory; all else belongs into a thread. One call at a time, but
``sync`` may run while a writer that is ready appends.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from msgspec import UNSET

from phonofs.journal.folder import Chain, claim, load_chain, months, save_chain, sync_folder
from phonofs.journal.lines import ChainEnd, Event, Line, digest, month_of, parse
from phonofs.journal.month_file import MonthFile

TORN = "a line is not whole"
NOT_STOPPED = "phonofs was not stopped: what the disk had not taken yet is missing"
MISSING = "lines that were written are missing"
NOT_WRITTEN = "the journal could not be written"


class Writer:
    """Owns the open file, the lock of the folder, and the end of the chain.

    path    the folder of the profile
    end     the last line written
    _file   None before the first line
    _broken whether something failed, so that the end of the file must be looked at first
    _opens  files that were opened while nothing could be written
    """

    def __init__(self, path: Path) -> None:
        """Lock the folder. Raises UsageError, JournalError."""
        self.path = path
        self._lock = claim(path)
        self._chain = load_chain(path) or Chain()
        self.end = self._chain.end
        self._file: MonthFile | None = None
        self._broken = False
        self._opens = 0

    @property
    def file(self) -> Path:
        """The file that is written to, or else the folder."""
        return self._file.path if self._file is not None else self.path

    @property
    def reserve_bytes(self) -> int:
        """Bytes that can still be written whatever else fills the disk."""
        return self._file.reserve_bytes if self._file is not None else 0

    def ready(self, at: str) -> bool:
        """Return whether a line of this time is appended without more ado."""
        return self._file is not None and not self._broken and not self._is_past(self._file, at)

    def mark_broken(self, opens: int = 0) -> None:
        """Look at the end of the file first, the next time; ``opens`` were not recorded."""
        self._broken = True
        self._opens += opens

    def append(self, lines: Sequence[Line]) -> int:
        """Append lines in one write; return the number of the first. Raises OSError."""
        at, before = lines[-1].at, list[Line]()
        if self._file is None or self._broken:
            before = self._resumed(at)
        assert self._file is not None
        if self._is_past(self._file, at):
            self._turn(at)
        end, written = self.end, list[bytes]()
        for line in (*before, *lines):
            raw = line.follow(end)
            end = end.after(raw)
            written.append(raw)
        try:
            self._file.append(b"\n".join(written) + b"\n")
        except OSError:
            self._broken = True
            raise
        self.end = end
        if before:
            self._broken, self._opens = False, 0
        return end.n - len(lines) + 1

    def sync(self) -> str:
        """Wait until what was appended is on disk; return why no space can be reserved, or ''.

        Raises OSError if it is not on disk.
        """
        file = self._file
        if file is None:
            return ""
        file.sync()
        try:
            file.reserve()
        except OSError as error:
            return error.strerror or str(error)
        return ""

    def save(self) -> None:
        """Note where the chain ends, which must be on disk. Raises OSError."""
        self._chain = Chain(self.end, self._chain.months)
        save_chain(self.path, self._chain)

    def close(self) -> None:
        """Give back reserved space and the lock; no line is written any more."""
        if self._file is not None:
            self._file.give_back()
            self._file.close()
            self._file = None
        os.close(self._lock)

    # the file of the month

    @staticmethod
    def _is_past(file: MonthFile, at: str) -> bool:
        """Return whether a file's month is over. A clock that was set back turns no page back."""
        return month_of(at) > file.month

    def _turn(self, at: str) -> None:
        """Go on in the file of another month."""
        if self._file is not None:
            self._file.sync()
            self._file.give_back()
        self._open(self.path / f"{month_of(at)}.jsonl")
        self._begin_month()

    def _begin_month(self) -> None:
        """Note which line comes before the first one of the file."""
        assert self._file is not None
        self._chain = Chain(self.end, {**self._chain.months, self._file.month: self.end})
        save_chain(self.path, self._chain)

    def _open(self, path: Path) -> None:
        file = MonthFile(path)
        if self._file is not None:
            self._file.close()
        self._file = file
        sync_folder(self.path)

    # going on

    def _resumed(self, at: str) -> list[Line]:
        """Do as :meth:`_resume`; a first time that failed counts as none. Raises OSError."""
        is_first = self._file is None
        try:
            return self._resume(at)
        except OSError:
            if is_first and self._file is not None:
                self._file.close()
                self._file = None
            raise

    def _resume(self, at: str) -> list[Line]:
        """Find the end of the chain; return the line that tells of what is not known, if any."""
        reasons = [NOT_WRITTEN] if self._broken else []
        files = months(self.path)
        if files:
            self._open(files[-1])
            reasons += self._found(files)
            if self._file is not None and not self._file.size:
                self._begin_month()
        else:
            self._turn(at)
        if not reasons and not self._opens:
            return []
        opens = self._opens or UNSET
        return [Line(at=at, event=Event.GAP, reason="; ".join(reasons), opens=opens)]

    def _found(self, files: Sequence[Path]) -> list[str]:
        """Take the end of the chain from the files; return what is wrong with it."""
        assert self._file is not None
        reasons, known = [], self.end
        raw, whole = self._file.last_line()
        if not raw:
            return self._found_before(files)
        if not whole:
            self._file.append(b"\n")
        line = parse(raw)
        if line is None:
            reasons.append(TORN)
            found = ChainEnd(self._number_of_last(), digest(raw))
        else:
            found = ChainEnd(line.n, digest(raw))
            if line.event != Event.STOP and not self._broken:
                reasons.append(NOT_STOPPED)
        if found.n > known.n:
            self.end = found
        elif found != known:
            reasons.append(MISSING)
        return reasons

    def _found_before(self, files: Sequence[Path]) -> list[str]:
        """Do as :meth:`_found` if the newest file is empty: a kill came between it and a line."""
        if self._file is None or len(files) < 2 or self._broken:
            return []
        newest = self._file.path
        self._open(files[-2])
        reasons = self._found(files[:-1])
        self._open(newest)
        return reasons

    def _number_of_last(self) -> int:
        """Return the number of the last line of the file, which cannot be parsed."""
        assert self._file is not None
        before = self._chain.months.get(self._file.month, ChainEnd())
        number = before.n
        with self._file.path.open("rb") as file:
            for raw in file:
                line = parse(raw.rstrip(b"\n"))
                number = line.n if line is not None else number + 1
        return number
