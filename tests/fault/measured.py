"""phonofs in a process whose event loop is watched: how long one task held it, in CPU time.

``python -m tests.fault.measured REPORT COMMAND…`` runs a command of phonofs; the test maps the
file REPORT and reads it (or sets it back) while the process runs. ``COMMAND`` may be ``record
URL ID``, since no command asks for a single record.
"""

import mmap
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from struct import pack_into, unpack_from
from typing import Any

import trio
import trio.abc

SIZE = 4096
_LONGEST, _BASE, _WHERE = 0, 8, 16


class Report:
    """What a measured process has to say. Shared memory: of the process and of the test."""

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), SIZE)

    @classmethod
    def create(cls, path: Path) -> "Report":
        """A report of nothing so far."""
        path.write_bytes(bytes(SIZE))
        return cls(path)

    @property
    def longest_s(self) -> float:
        """The longest step of a task, in seconds of the thread's CPU."""
        longest: float = unpack_from("d", self._memory, _LONGEST)[0]
        return longest

    @property
    def where(self) -> str:
        """The task of that step."""
        return bytes(self._memory[_WHERE:]).rstrip(b"\0").decode()

    @property
    def base_bytes(self) -> int:
        """The memory of the process before its event loop began."""
        base: int = unpack_from("q", self._memory, _BASE)[0]
        return base

    def begin(self, base_bytes: int) -> None:
        """Measure from here on."""
        pack_into("q", self._memory, _BASE, base_bytes)
        self.note(0.0, "")

    def note(self, longest_s: float, where: str) -> None:
        """A new longest step."""
        name = where.encode()[: SIZE - _WHERE]
        self._memory[_WHERE:] = name.ljust(SIZE - _WHERE, b"\0")
        pack_into("d", self._memory, _LONGEST, longest_s)


class Longest(trio.abc.Instrument):
    """Notes the longest step between two moments at which other tasks may run."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._began_s = 0.0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._began_s = time.thread_time()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        spent_s = time.thread_time() - self._began_s
        if spent_s > self._report.longest_s:
            self._report.note(spent_s, task.name)


def memory_bytes(pid: int) -> int:
    """What a process holds now: its resident memory, and its memfd files."""
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
    """Every event loop begun in here is watched."""
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
    """Run the command, watched."""
    report = Report(Path(sys.argv[1]))
    sys.argv = ["phonofs", *sys.argv[2:]]
    with _watched(report):
        if sys.argv[1] == "record":
            _record(*sys.argv[2:])
        else:
            from phonofs.cli import main as command

            command()


def _record(url: str, id: str) -> None:
    """Ask for one record as the rest of phonofs would."""
    from phonofs.cli.account import ask, credentials_of
    from phonofs.cli.settings import load
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
