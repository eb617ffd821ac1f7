"""Copies files side by side and brings them into place. Used by ``run`` and ``day_texts``."""

from collections.abc import Callable, Iterable, Iterator
from enum import Enum, auto
from typing import Literal, NamedTuple, Protocol

from phonofs.export.batch import Batch
from phonofs.export.contents import NotCopied
from phonofs.export.copying import Staged
from phonofs.export.destination import Destination
from phonofs.export.ledger import File, Key, Ledger, now_text
from phonofs.export.workers import Workers


class Display(Protocol):
    """Shows how far an export is. ``advance`` is called by several threads."""

    def listed(self, objects: int) -> None:
        """Show how many objects are known to be chosen."""

    def begin(self, files: int, size: int) -> None:
        """Show that so many more files, with so many bytes, are to be copied."""

    def advance(self, size: int) -> None:
        """Show that so many more bytes were copied."""

    def done(self, files: int) -> None:
        """Show that so many more files are done."""


class NoDisplay:
    """Shows nothing."""

    def listed(self, objects: int) -> None:
        """Do nothing."""

    def begin(self, files: int, size: int) -> None:
        """Do nothing."""

    def advance(self, size: int) -> None:
        """Do nothing."""

    def done(self, files: int) -> None:
        """Do nothing."""


class Without(Enum):
    """Why a task has nothing to copy."""

    UNCHANGED = auto()
    ABSENT = auto()


class Task(NamedTuple):
    """A file to copy.

    path         of the file, below the destination
    key          of the object that it is, or that it is a text of
    work         copies it into the staging folder, in another thread. Raises NotCopied, OSError
    fingerprint  of its content; empty for a text
    """

    path: str
    key: Key
    work: Callable[[], Staged | Without]
    kind: Literal["object", "text"] = "object"
    fingerprint: str = ""


Outcome = NotCopied | Without | None
"""What became of a task: why it failed, why nothing was copied, or None if the file is in place."""


class Copier:
    """Owns the batch of files that are copied and not in place yet."""

    def __init__(
        self, destination: Destination, ledger: Ledger, workers: Workers, display: Display
    ) -> None:
        self._batch = Batch(destination, ledger)
        self._workers = workers
        self._display = display
        self._staged: dict[str, Task] = {}
        self._at = now_text()

    def run(self, tasks: Iterable[Task]) -> Iterator[tuple[Task, Outcome]]:
        """Copy files; yield what became of each. Raises OSError of the destination."""
        for done in self._workers.run(tasks, lambda task: task.work()):
            try:
                result = done.result()
            except NotCopied as error:
                yield done.task, error
            else:
                if isinstance(result, Without):
                    yield done.task, result
                else:
                    self._add(done.task, result)
            self._display.done(1)
            if self._batch.is_full:
                yield from self.commit()
        yield from self.commit()

    def commit(self) -> list[tuple[Task, Outcome]]:
        """Bring into place what was copied; return what became of it. Raises OSError."""
        failed = {file.path: error for file, error in self._batch.commit()}
        staged, self._staged = self._staged, {}
        return [(task, failed.get(path)) for path, task in staged.items()]

    def _add(self, task: Task, staged: Staged) -> None:
        region, id = task.key
        self._staged[task.path] = task
        file = File(
            path=task.path,
            region=region,
            id=id,
            bytes=staged.bytes,
            mtime_ns=staged.mtime_ns,
            check=staged.check,
            sha256=staged.sha256,
            at=self._at,
            kind=task.kind,
            fingerprint=task.fingerprint,
        )
        self._batch.add(staged.staged, file)
