"""The contents of a daemon without a mount, for ``phonofs export``: read through its door.

So the daemon sees who opens what, and what it has in its cache is not downloaded again.
"""

from collections.abc import Sequence

from phonofs.attributes import MADE_FROM_ATTRIBUTE
from phonofs.cli.mount_contents import explained
from phonofs.client.client import Client
from phonofs.client.open_file import OpenFile
from phonofs.export.contents import OpenContent, TextName
from phonofs.export.day_texts import text_names, texts_in, view_of


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
        with explained("the daemon"):
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
        with explained("the daemon"):
            entry = self._client.info(path)
            file = OpenFile(self._client, path, entry.fingerprint)
            file.open()
        return _OpenFile(file, entry.mtime_ms * 1_000_000)

    def texts(self, day: str) -> Sequence[TextName]:
        """Return the texts of the calls of a day. Raises NotCopied."""
        if not self._views:
            return []
        texts = texts_in(self._entries(view_of(day, self._views)))
        return text_names(texts, self._entries(day)) if texts else []

    def made_from(self, day: str, name: str) -> Sequence[str]:
        """Return the ids of the objects that a text is made from. Raises NotCopied."""
        with explained("the daemon"):
            found = self._client.attribute(
                f"{view_of(day, self._views)}/{name}", MADE_FROM_ATTRIBUTE
            )
        return found.decode().split(" ")

    def text_status(self, day: str, name: str) -> tuple[int, int] | None:
        """Return size and time (ns) of a text; None if there is none. Raises NotCopied."""
        with explained("the daemon"):
            try:
                entry = self._client.info(f"{view_of(day, self._views)}/{name}")
            except FileNotFoundError:
                return None
        return entry.size, entry.mtime_ms * 1_000_000

    def open_text(self, day: str, name: str) -> OpenContent:
        """Open a text. Raises NotCopied."""
        return self.open(f"{view_of(day, self._views)}/{name}")

    def _entries(self, folder: str) -> list[tuple[str, int]]:
        """Return the names in a folder with their inode numbers."""
        with explained("the daemon"):
            return [(entry.name, entry.ino) for entry in self._client.ls(folder)]
