"""The contents of a daemon without a mount, for ``phonofs export``: read through its door.

So the daemon sees who opens what, and what it has in its cache is not downloaded again.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from phonofs.attributes import MADE_FROM_ATTRIBUTE
from phonofs.cli.mount_contents import REASONS
from phonofs.client.client import Client
from phonofs.client.open_file import OpenFile
from phonofs.export.contents import NotCopied, OpenContent, Reason, TextName
from phonofs.export.day_texts import text_names, texts_in
from phonofs.views.places import BY_DAY


class _OpenFile:
    """A file that is open at the daemon."""

    def __init__(self, file: OpenFile, mtime_ns: int) -> None:
        self._file = file
        self.mtime_ns = mtime_ns

    @property
    def size(self) -> int:
        """How many bytes it has."""
        return self._file.size

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """Read from an offset. Raises NotCopied."""
        wanted = min(len(buffer), self._file.size - offset)
        if wanted <= 0:
            return 0
        with _explained():
            buffer[:wanted] = self._file.read(offset, wanted)
        return wanted

    def close(self) -> None:
        """Close it."""
        self._file.close()


class DoorContents:
    """Opens files of a daemon. ``views`` is the name of the folder of the views, or ''."""

    def __init__(self, client: Client, views: str) -> None:
        self._client = client
        self._views = views

    def open(self, path: str) -> OpenContent:
        """Open the file of an object, or a text. Raises NotCopied."""
        with _explained():
            entry = self._client.info(path)
            file = OpenFile(self._client, path, entry.fingerprint)
            file.open()
        return _OpenFile(file, entry.mtime_ms * 1_000_000)

    def texts(self, day: str) -> Sequence[TextName]:
        """Return the texts of the calls of a day. Raises NotCopied."""
        if not self._views:
            return []
        texts = texts_in(self._entries(self._view(day)))
        return text_names(texts, self._entries(day)) if texts else []

    def made_from(self, day: str, name: str) -> Sequence[str]:
        """Return the ids of the objects that a text is made from. Raises NotCopied."""
        with _explained():
            found = self._client.attribute(f"{self._view(day)}/{name}", MADE_FROM_ATTRIBUTE)
        return found.decode().split(" ")

    def text_status(self, day: str, name: str) -> tuple[int, int] | None:
        """Return size and time (ns) of a text; None if there is none. Raises NotCopied."""
        with _explained():
            try:
                entry = self._client.info(f"{self._view(day)}/{name}")
            except FileNotFoundError:
                return None
        return entry.size, entry.mtime_ms * 1_000_000

    def open_text(self, day: str, name: str) -> OpenContent:
        """Open a text. Raises NotCopied."""
        return self.open(f"{self._view(day)}/{name}")

    def _view(self, day: str) -> str:
        """Return the folder of the view that shows a day; it stands beside the years."""
        *region, _, _, name = day.split("/")
        return "/".join((*region, self._views, BY_DAY, name))

    def _entries(self, folder: str) -> list[tuple[str, int]]:
        """Return the names in a folder with their inode numbers."""
        with _explained():
            return [(entry.name, entry.ino) for entry in self._client.ls(folder)]


@contextmanager
def _explained() -> Iterator[None]:
    """Raise NotCopied for an error of the daemon."""
    try:
        yield
    except OSError as error:
        reason = REASONS.get(error.errno or 0, Reason.UNAVAILABLE)
        raise NotCopied(reason, f"the daemon says: {error.strerror or error}") from None
