"""The contents of a running mount, for ``phonofs export``: they are read as any program reads them.

So the mount sees who opens what, and what the kernel has need not be read again.
"""

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from phonofs.attributes import MADE_FROM_ATTRIBUTE
from phonofs.export.contents import NotCopied, OpenContent, Reason, TextName
from phonofs.export.day_texts import text_names, texts_in, view_of

REASONS = {
    errno.ENODATA: Reason.ARCHIVED,
    errno.EACCES: Reason.REFUSED,
    errno.ENOENT: Reason.WITHDRAWN,
    errno.ESTALE: Reason.CHANGED,
}
"""What the errnos of a mount mean (``errnos.py``); any other is UNAVAILABLE."""


class OpenFile(NamedTuple):
    """An open file of a mount."""

    descriptor: int

    @property
    def size(self) -> int:
        """How many bytes it has, as the mount knows now. Raises NotCopied."""
        return self._status().st_size

    @property
    def mtime_ns(self) -> int:
        """Its time. Raises NotCopied."""
        return self._status().st_mtime_ns

    def _status(self) -> os.stat_result:
        with explained("the mount"):
            return os.fstat(self.descriptor)

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """Read from an offset. Raises NotCopied."""
        with explained("the mount"):
            return os.preadv(self.descriptor, [buffer], offset)

    def close(self) -> None:
        """Close it."""
        os.close(self.descriptor)


class MountContents:
    """Opens files below a mount point. ``views`` is the name of the folder of the views, or ''."""

    def __init__(self, point: str, views: str) -> None:
        self._point = point.rstrip("/")
        self._views = views

    def open(self, path: str) -> OpenContent:
        """Open the file of an object. Raises NotCopied."""
        return self._opened(f"{self._point}/{path}")

    def texts(self, day: str) -> Sequence[TextName]:
        """Return the texts of the calls of a day. Raises NotCopied."""
        if not self._views:
            return []
        texts = texts_in(self._entries(self._view(day)))
        return text_names(texts, self._entries(f"{self._point}/{day}")) if texts else []

    def made_from(self, day: str, name: str) -> Sequence[str]:
        """Return the ids of the objects that a text is made from. Raises NotCopied."""
        with explained("the mount"):
            found = os.getxattr(f"{self._view(day)}/{name}", MADE_FROM_ATTRIBUTE)
        return found.decode().split(" ")

    def text_status(self, day: str, name: str) -> tuple[int, int] | None:
        """Return size and time (ns) of a text; None if there is none. Raises NotCopied."""
        with explained("the mount"):
            try:
                found = os.stat(f"{self._view(day)}/{name}")
            except FileNotFoundError:
                return None
        return found.st_size, found.st_mtime_ns

    def open_text(self, day: str, name: str) -> OpenContent:
        """Open a text. Raises NotCopied."""
        return self._opened(f"{self._view(day)}/{name}")

    def _view(self, day: str) -> str:
        return f"{self._point}/{view_of(day, self._views)}"

    @staticmethod
    def _entries(folder: str) -> list[tuple[str, int]]:
        """Return the names in a folder with their inode numbers, which costs no stat(2)."""
        with explained("the mount"), os.scandir(folder) as entries:
            return [(each.name, each.inode()) for each in entries]

    @staticmethod
    def _opened(path: str) -> OpenContent:
        with explained("the mount"):
            return OpenFile(os.open(path, os.O_RDONLY | os.O_CLOEXEC))


@contextmanager
def explained(who: str) -> Iterator[None]:
    """Raise NotCopied for an error of a mount, or of the door, whose errnos are the same."""
    try:
        yield
    except OSError as error:
        reason = REASONS.get(error.errno or 0, Reason.UNAVAILABLE)
        raise NotCopied(reason, f"{who} says: {error.strerror or error}") from None
