"""Opens files of the tree for clients that are not the kernel. Used by both doors."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from phonofs.access import Opener
from phonofs.cache.stored_blocks import StoredRange
from phonofs.catalogue.catalogue import Entry
from phonofs.errors import IsAFolder, NoSuchName, StaleInode
from phonofs.model import Record
from phonofs.reader.open_object import Handle
from phonofs.vfs import Vfs
from phonofs.view_tree.listings import ViewEntry
from phonofs.view_tree.open_text import OpenText
from phonofs.views.names import text_of_ino
from phonofs.views.places import VIEW_BIT

TEXT_TYPES = {
    "csv": "text/csv",
    "jsonl": "application/x-ndjson",
    "srt": "application/x-subrip",
    "txt": "text/plain",
}
"""The media types of what the views make, by extension; all else of them is plain text."""


def text_type(name: str) -> str:
    """Return the media type of a text by its name."""
    return TEXT_TYPES.get(name.rpartition(".")[2], "text/plain")


def is_text(entry: Entry) -> bool:
    """Return whether an entry is a text that the views make, or one of their lists."""
    return entry.ino >= VIEW_BIT and not entry.is_directory and text_of_ino(entry.ino) is not None


def is_link(entry: Entry) -> bool:
    """Return whether an entry is a link."""
    return isinstance(entry, ViewEntry) and bool(entry.target)


class OpenFile(Protocol):
    """A file that is open for a client."""

    @property
    def size(self) -> int:
        """Its length in bytes, as far as it is known."""

    @property
    def fingerprint(self) -> str:
        """What identifies its content."""

    def lend_now(self, offset: int, size: int) -> bytes | memoryview | None:
        """Return bytes if that needs no waiting; a view is valid until any file is read again."""

    def lend_stored(self, offset: int, size: int) -> StoredRange | None:
        """Return bytes that can be sent from a file of the cache, if there are such, else None."""

    async def read(self, offset: int, size: int) -> bytes:
        """Return exactly ``min(size, length - offset)`` bytes, or raise an error."""

    def close(self) -> None:
        """Close it. Its other methods must not be called any more."""


class ObjectFile:
    """An open object. Owns its handle."""

    def __init__(self, vfs: Vfs, handle: Handle, fingerprint: str) -> None:
        self._vfs = vfs
        self._handle = handle
        self.fingerprint = fingerprint

    @property
    def size(self) -> int:
        """Its length in bytes, as far as it is known."""
        return self._handle.size

    def lend_now(self, offset: int, size: int) -> bytes | memoryview | None:
        """Return bytes, or None, as ``Vfs.lend_now`` does."""
        return self._vfs.lend_now(self._handle, offset, size)

    def lend_stored(self, offset: int, size: int) -> StoredRange | None:
        """Return bytes that lie in the cache, or None, as ``Vfs.lend_stored`` does."""
        return self._vfs.lend_stored(self._handle, offset, size)

    async def read(self, offset: int, size: int) -> bytes:
        """Return bytes, as ``Vfs.read`` does."""
        return await self._vfs.read(self._handle, offset, size)

    def close(self) -> None:
        """Close it."""
        self._vfs.release(self._handle)


class TextFile:
    """An open text of the views. Owns it."""

    def __init__(self, vfs: Vfs, text: OpenText) -> None:
        self._vfs = vfs
        self._text = text
        self.size = len(text.content)
        self.fingerprint = text.fingerprint

    def lend_now(self, offset: int, size: int) -> bytes:
        """Return bytes. Raises Gone."""
        self._vfs.check()
        return self._text.read(offset, size)

    def lend_stored(self, offset: int, size: int) -> None:
        """Return None: its bytes are in memory."""

    async def read(self, offset: int, size: int) -> bytes:
        """Return bytes. Raises Gone."""
        return self.lend_now(offset, size)

    def close(self) -> None:
        """Close it."""
        self._vfs.close_text(self._text)


async def open_file(vfs: Vfs, entry: Entry, opener: Opener) -> OpenFile:
    """Open a file. Raises IsAFolder, and as ``Vfs.open`` and ``Vfs.open_text`` do."""
    if entry.is_directory:
        raise IsAFolder(f"{entry.name!r} is a folder")
    if is_text(entry):
        return TextFile(vfs, await vfs.open_text(entry.ino, opener))
    handle = await vfs.open(entry.ino, opener)
    try:
        if handle.doubtful:  # as the kernel's open: its size must not be a wrong one
            await vfs.read(handle, 0, 1)
        fingerprint = fingerprint_of(vfs, entry, handle.content.record)
    except BaseException:
        vfs.release(handle)
        raise
    return ObjectFile(vfs, handle, fingerprint)


def fingerprint_of(vfs: Vfs, entry: Entry, record: Record) -> str:
    """Return what identifies the content of an object, as listings have it; '' if it has gone.

    Without a checksum that is the size and time of its record as they were when it came.
    """
    if record.checksum:
        return record.checksum
    details = vfs.details([entry]).get(entry.ino)
    return details.fingerprint if details else ""


@contextmanager
def gone_is_missing(path: str) -> Iterator[None]:
    """Raise NoSuchName for what goes while its path is looked at, as the kernel would."""
    try:
        yield
    except StaleInode:
        raise NoSuchName(f"{path!r} is not there any more") from None
