"""Reads the files of a journal, and finds whether a line was changed, moved or removed.

Used by ``phonofs journal``. Only reads, so a mount may write meanwhile. Whoever can write the files
can also make a whole new chain; only a hash that was kept elsewhere shows that.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from phonofs.errors import UsageError
from phonofs.journal.folder import Chain, load_chain, months
from phonofs.journal.lines import ChainEnd, Event, Line, digest, parse


@dataclass(frozen=True, slots=True)
class Raw:
    """A line of a file: its bytes without line end, and whether it has one."""

    month: str
    number: int
    data: bytes
    whole: bool

    @property
    def where(self) -> str:
        """Where it is, for a message."""
        return f"{self.month}.jsonl, line {self.number}"


@dataclass(frozen=True, slots=True)
class Report:
    """What was found.

    lines     how many lines there are
    months    how many files
    first     the number of the first line
    end       the last line
    gaps      the lines that tell of a gap, which break nothing
    findings  what is wrong, a sentence each
    """

    lines: int
    months: int
    first: int
    end: ChainEnd
    gaps: Sequence[Line]
    findings: Sequence[str]


def lines_of(path: Path) -> Iterator[Raw]:
    """Yield all lines of a profile's journal, the oldest first. Raises UsageError."""
    try:
        for month in months(path):
            with month.open("rb") as file:
                for number, data in enumerate(file, 1):
                    whole = data.endswith(b"\n")
                    yield Raw(month.stem, number, data.removesuffix(b"\n"), whole)
    except FileNotFoundError:
        raise UsageError(f"there is no journal at {path}") from None
    except OSError as error:
        raise UsageError(f"the journal {path} cannot be read: {error.strerror}") from None


def verify(path: Path, kept: str = "") -> Report:
    """Check a profile's journal; ``kept`` is a hash that one of its lines must have.

    Raises UsageError.
    """
    chain = load_chain(path)  # before the lines: there may be more of them by the end
    check = _Check(chain or Chain(), kept)
    for raw in lines_of(path):
        check.take(raw)
    if chain is None:
        check.say(f"{path}/chain.json is not there, or cannot be read")
    return check.close()


class _Check:
    """Follows a chain.

    _end         the last line that was looked at
    _unreadable  that line, if it is none: a gap must follow
    _wanted      the hash that one of the lines must have, '' once one has
    """

    def __init__(self, chain: Chain, wanted: str) -> None:
        self._chain = chain
        self._wanted = wanted
        self._lines = self._first = 0
        self._months: list[str] = []
        self._end = ChainEnd()
        self._unreadable: Raw | None = None
        self._gaps: list[Line] = []
        self._findings: list[str] = []

    def say(self, finding: str) -> None:
        """Add a finding."""
        self._findings.append(finding)

    def take(self, raw: Raw) -> None:
        """Look at the next line."""
        line = parse(raw.data)
        if raw.month not in self._months[-1:]:
            self._begin_month(raw, line)
        if line is None:
            self._say_unreadable()
            self._unreadable = raw
        else:
            self._follow(raw, line)
            self._unreadable = None
        self._end = ChainEnd(line.n if line else self._end.n + 1, digest(raw.data))
        self._lines += 1
        if self._end.hash == self._wanted:
            self._wanted = ""

    def close(self) -> Report:
        """Look at the end, and return what was found."""
        last = self._unreadable
        if last is not None and not last.whole:
            self.say(f"{last.where} is not whole: it is being written, or was cut")
        else:
            self._say_unreadable()
        known = self._chain.end
        if not self._months:  # all were moved away
            known = self._end
        if known.n > self._end.n:
            self._say_missing(known.n, "at the end")
        elif known.n == self._end.n and known.hash != self._end.hash:
            self.say(f"the last line, {known.n}, is not the one that was written")
        if self._wanted:
            self.say(f"no line has the hash {self._wanted}")
        return Report(
            self._lines, len(self._months), self._first, self._end, self._gaps, self._findings
        )

    def _begin_month(self, raw: Raw, line: Line | None) -> None:
        """Look at how a month follows the one before, which may have been moved away."""
        before = self._chain.months.get(raw.month)
        if not self._months:
            if before is None:
                before = ChainEnd(line.n - 1, line.prev) if line else ChainEnd()
            self._end, self._first = before, before.n + 1
        elif before is not None and before != self._end:
            if before.n > self._end.n:
                self._say_missing(before.n, f"before {raw.month}.jsonl")
            else:
                self.say(f"before {raw.month}.jsonl are other lines than were written")
            self._end = before
        self._months.append(raw.month)

    def _follow(self, raw: Raw, line: Line) -> None:
        if line.event == Event.GAP:
            self._gaps.append(line)
        else:
            self._say_unreadable()
        if line.prev != self._end.hash:
            self.say(
                f"{raw.where} does not follow the line before it: one of them was changed, moved "
                "or put in, or lines between them were removed"
            )
        elif line.n != self._end.n + 1:
            self.say(f"{raw.where} has the number {line.n}, not {self._end.n + 1}")

    def _say_unreadable(self) -> None:
        if self._unreadable is not None:
            self.say(f"{self._unreadable.where} cannot be read")

    def _say_missing(self, last: int, where: str) -> None:
        self.say(f"lines {self._end.n + 1} to {last} are missing {where}")
