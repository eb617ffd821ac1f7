"""Files that a client has open, and the paths by which it opens them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from phonofs.access import How, Opener
from phonofs.cache.stored_blocks import StoredRange
from phonofs.catalogue.catalogue import Entry
from phonofs.door import protocol
from phonofs.door.entries import converted, is_text, of_object, of_text
from phonofs.errors import IsAFolder, NoSuchName, StaleInode
from phonofs.reader.open_object import Handle
from phonofs.vfs import Vfs
from phonofs.view_tree.open_text import OpenText


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


class Paths:
    """Finds what clients name by path.

    ``pid`` is the process of the client, 0 if it is not known; ``uid`` its user.
    """

    def __init__(self, vfs: Vfs, pid: int = 0, uid: int | None = None) -> None:
        self._vfs = vfs
        self._pid = pid
        self._uid = uid

    async def find(self, path: str) -> Entry:
        """Return the entry at a path. Raises NoSuchName, NotAFolder, errors of the service."""
        first, _, rest = path.partition("/")
        if first != protocol.BY_ID:
            return await self._vfs.walk(path, pid=self._pid)
        region, _, name = rest.partition("/")
        if not name or "/" in name:
            raise NoSuchName(f"an object is called {protocol.BY_ID}/REGION/ID, not {path!r}")
        return await self._by_id(region, name)

    async def _by_id(self, region: str, name: str) -> Entry:
        """Return an object by its identifier, to which any extension may be added."""
        id, dot, _ = name.rpartition(".")
        if dot and id and not self._vfs.knows(region, name):
            return await self._vfs.by_id(region, id)
        return await self._vfs.by_id(region, name)

    async def info(self, path: str) -> protocol.Entry:
        """Return the entry at a path, with all that is known of it. Raises as :meth:`find`."""
        with gone_is_missing(path):
            entry = await self.find(path)
            name = entry.name if path else ""
            if is_text(entry):
                known = await self._vfs.text_entry(entry.ino)
                fingerprint = await self._vfs.text_fingerprint(entry.ino, known.size)
                return of_text(name, known, fingerprint)
            if entry.is_directory:
                return converted(self._vfs, [entry])[0]
            details = self._vfs.details([entry]).get(entry.ino)
            return of_object(entry, details, self._vfs.record(entry.ino))

    async def open(self, path: str, *, in_order: bool = True) -> OpenFile:
        """Open a file. Raises as ``Vfs.open`` and :meth:`find` do.

        ``in_order``: whether the client may be reading the files of a directory in order.
        """
        opener = Opener(self._uid, self._pid, How.DOOR, in_order)
        with gone_is_missing(path):
            entry = await self.find(path)
            if entry.is_directory:
                raise IsAFolder(f"{path!r} is a folder")
            if is_text(entry):
                return TextFile(self._vfs, await self._vfs.open_text(entry.ino, opener))
            handle = await self._vfs.open(entry.ino, opener)
            try:
                if handle.doubtful:  # as the kernel's open: its size must not be a wrong one
                    await self._vfs.read(handle, 0, 1)
                details = self._vfs.details([entry]).get(entry.ino)
            except BaseException:
                self._vfs.release(handle)
                raise
            return ObjectFile(self._vfs, handle, details.fingerprint if details else "")

    async def record(self, path: str) -> bytes:
        """Return the record of an object: its JSON, as received. Raises as :meth:`find` does."""
        with gone_is_missing(path):
            entry = await self.find(path)
            if entry.is_directory:
                raise IsAFolder(f"{path!r} is a folder")
            if is_text(entry):
                raise NoSuchName(f"{path!r} is made of objects, and has no record of its own")
            return self._vfs.record(entry.ino).source

    async def attribute(self, path: str, name: str) -> bytes:
        """Return an extended attribute. Raises NoSuchAttribute, and as :meth:`find` does."""
        with gone_is_missing(path):
            entry = await self.find(path)
            if is_text(entry):
                return await self._vfs.text_attribute(entry.ino, name)
            return self._vfs.attribute(entry.ino, name)


@contextmanager
def gone_is_missing(path: str) -> Iterator[None]:
    """Raise NoSuchName for what goes while its path is looked at, as the kernel would."""
    try:
        yield
    except StaleInode:
        raise NoSuchName(f"{path!r} is not there any more") from None
