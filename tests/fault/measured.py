"""Runs phonofs and measures the longest CPU time for which one task held the event loop.

``python -m tests.fault.measured REPORT COMMAND…`` runs a command of phonofs; the test maps the
file REPORT and reads it (or resets it) while the process runs. ``COMMAND`` may be ``record
URL ID``, since no command asks for a single record.
"""

import mmap
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from struct import pack_into, unpack_from
from typing import Any

import trio

from tests.support.timing import LongestStep

SIZE = 4096
_LONGEST, _BASE, _WHERE = 0, 8, 16


class Report:
    """The measurements of a process, in memory that it shares with the test."""

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), SIZE)

    @classmethod
    def create(cls, path: Path) -> "Report":
        """Create an empty report."""
        path.write_bytes(bytes(SIZE))
        return cls(path)

    @property
    def longest_s(self) -> float:
        """The longest step of a task, in seconds of the thread's CPU time."""
        longest: float = unpack_from("d", self._memory, _LONGEST)[0]
        return longest

    @property
    def where(self) -> str:
        """The task that took the longest step."""
        return bytes(self._memory[_WHERE:]).rstrip(b"\0").decode()

    @property
    def base_bytes(self) -> int:
        """The memory of the process before its event loop began."""
        base: int = unpack_from("q", self._memory, _BASE)[0]
        return base

    def begin(self, base_bytes: int) -> None:
        """Start measuring."""
        pack_into("q", self._memory, _BASE, base_bytes)
        self.note(0.0, "")

    def note(self, longest_s: float, where: str) -> None:
        """Record a new longest step."""
        name = where.encode()[: SIZE - _WHERE]
        self._memory[_WHERE:] = name.ljust(SIZE - _WHERE, b"\0")
        pack_into("d", self._memory, _LONGEST, longest_s)


class Longest(LongestStep):
    """Writes the longest time between two points at which other tasks may run to a report."""

    def __init__(self, report: Report) -> None:
        super().__init__()
        self._report = report

    def note(self, spent_s: float, task: trio.lowlevel.Task) -> None:
        if spent_s > self._report.longest_s:
            self._report.note(spent_s, task.name)


def memory_bytes(pid: int) -> int:
    """Return the memory of a process now: its resident memory and its memfd files."""
    fields = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )
    own = int(fields["RssAnon"].split()[0]) * 1024
    return own + sum(_memfd_bytes(pid))


def _memfd_bytes(pid: int) -> Iterator[int]:
    folder = f"/proc/{pid}/fd"
    for name in os.listdir(folder):
        try:
            if os.readlink(f"{folder}/{name}").startswith("/memfd:"):
                yield os.stat(f"{folder}/{name}").st_blocks * 512
        except FileNotFoundError:
            continue


@contextmanager
def _watched(report: Report) -> Iterator[None]:
    """Measure every event loop started within the block."""
    run = trio.run

    def watched(*arguments: Any, instruments: Any = (), **options: Any) -> Any:
        report.begin(memory_bytes(os.getpid()))
        return run(*arguments, instruments=[*instruments, Longest(report)], **options)

    trio.run = watched  # type: ignore[assignment]
    try:
        yield
    finally:
        trio.run = run


def main() -> None:
    """Run the command and measure it."""
    report = Report(Path(sys.argv[1]))
    sys.argv = ["phonofs", *sys.argv[2:]]
    with _watched(report):
        if sys.argv[1] == "record":
            _record(*sys.argv[2:])
        else:
            from phonofs.cli import main as command

            command()


def _record(url: str, id: str) -> None:
    """Request one record as the rest of phonofs would."""
    from phonofs.cli.account import ask, credentials_of
    from phonofs.config.load import load
    from phonofs.errors import PhonofsError

    async def work(account: Any) -> None:
        await account.client.record("us-east", id)

    settings = load("default", [f"api_url={url}"])
    try:
        ask(settings, credentials_of(settings), work)
    except PhonofsError as error:
        print(error, file=sys.stderr)


if __name__ == "__main__":
    main()
