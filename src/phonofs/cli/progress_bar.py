"""Shows on a terminal how far files are copied. Used by the commands ``export`` and ``fetch``."""

from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)


class ProgressBar:
    """A line on standard error. ``advance`` may be called by any thread."""

    def __init__(self) -> None:
        self._bar = Progress(
            TextColumn("{task.fields[count]}"),
            BarColumn(),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._bar.add_task("", total=None, count="looking")
        self._files = 0
        self._done = 0
        self._size = 0

    def __enter__(self) -> "ProgressBar":
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def listed(self, objects: int) -> None:
        """Show how many objects are known to be chosen."""
        self._bar.update(self._task, count=f"{objects:,} objects")

    def begin(self, files: int, size: int) -> None:
        """Show that so many more files, with so many bytes, are to be copied."""
        self._files += files
        self._size += size
        self._bar.update(self._task, total=self._size, count=self._count())

    def advance(self, size: int) -> None:
        """Show that so many more bytes were copied."""
        self._bar.advance(self._task, size)

    def done(self, files: int) -> None:
        """Show that so many more files are done."""
        self._done += files
        self._bar.update(self._task, count=self._count())

    def _count(self) -> str:
        return f"{self._done:,}/{self._files:,}"
