"""The file system without FUSE: names, attributes, listings, extended attributes, bytes.

Used by ``fuse/`` (which converts and translates errors, nothing else) and by tests. Runs on one
event loop; every plain method is a critical section and answers from the catalogue or memory;
only ``async`` methods may wait, and for nothing but the bytes or the listing they were asked for.

Errors are those of :mod:`phonofs.errors`.
"""

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

import msgspec

from phonofs.catalogue.store import Catalogue, Entry
from phonofs.errors import (
    Archived,
    IsAFolder,
    NoSuchAttribute,
    NoSuchName,
    NotAFolder,
    PhonofsError,
    StaleInode,
)
from phonofs.model import Record, State
from phonofs.reader.handle import Handle
from phonofs.reader.reader import Reader
from phonofs.tree.layout import ROOT, is_folder

STATUS_ATTRIBUTE = "user.phonofs.status"
TAG_PREFIX = "user.phonofs.tag."
ATTRIBUTE_NAME_MAX = 255  # bytes; XATTR_NAME_MAX of linux/limits.h
ATTRIBUTE_SIZE_MAX = 65536  # bytes; XATTR_SIZE_MAX of linux/limits.h


class Listing(Protocol):
    """Brings a folder's contents into the catalogue (``catalogue/lister.py``)."""

    def needs(self, ino: int) -> bool:
        """Whether the service must be asked before this folder can be shown."""

    async def list(self, ino: int) -> None:
        """Ask the service; all callers for one folder share one listing."""

    async def find(self, ino: int, name: str) -> None:
        """Ask the service for what is called ``name`` in a folder."""

    def opened(self, ino: int) -> None:
        """Somebody opens a folder."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What ``statfs`` says: the known objects and their bytes."""

    objects: int
    size: int


class FolderHandle:
    """An opened folder: the listing taken when it was opened, so that cookies never shift."""

    __slots__ = ("entries", "ino")

    def __init__(self, ino: int, entries: Sequence[Entry]) -> None:
        self.ino = ino
        self.entries = entries


class Vfs:
    """The tree over a catalogue, a lister and a reader. Owns nothing but the wiring."""

    def __init__(
        self,
        catalogue: Catalogue,
        lister: Listing,
        reader: Reader,
        *,
        cached_bytes: Callable[[Record], int],
        status: Callable[[], dict[str, object]],
    ) -> None:
        self._catalogue = catalogue
        self._lister = lister
        self._reader = reader
        self._cached_bytes = cached_bytes
        self._status = status
        self._refusal: PhonofsError | None = None

    # whose it is

    def refuse(self, refusal: PhonofsError | None) -> None:
        """Answer everything with this error from now on, but for the root itself; None: no more."""
        self._refusal = refusal

    def check(self) -> None:
        """Raise the error that everything is answered with, if there is one."""
        if self._refusal is not None:
            raise copy.copy(self._refusal)  # a raised one gathers the tracebacks of all

    # names and attributes

    async def lookup(self, parent: int, name: str) -> Entry:
        """The entry ``name`` of a folder; asks the service only where it was never listed."""
        self.check()
        entry = self._catalogue.lookup(parent, name)
        if entry is None and not name.startswith(".") and self._lister.needs(parent):
            await self._lister.find(parent, name)
            entry = self._catalogue.lookup(parent, name)
        if entry is None:
            raise NoSuchName(f"{name!r} is not in this folder")
        return entry

    def entry(self, ino: int) -> Entry:
        """The attributes of a file or folder."""
        if ino != ROOT:
            self.check()
        entry = self._catalogue.entry(ino)
        if entry is None:
            raise StaleInode(f"inode {ino} is not in the tree any more")
        return entry

    def parent(self, ino: int) -> Entry:
        """The folder that holds ``ino``; the root is its own."""
        return self.entry(self._catalogue.parent(ino))

    def usage(self) -> Usage:
        """Known objects and bytes, from memory."""
        if self._refusal is not None:
            return Usage(0, 0)
        return Usage(*self._catalogue.totals())

    # folders

    def needs_listing(self, ino: int) -> bool:
        """Whether opening this folder will ask the service."""
        return self._lister.needs(ino)

    async def open_folder(self, ino: int, *, pid: int = 0) -> FolderHandle:
        """List a folder, asking the service first where that is needed.

        ``pid`` is the process that lists, 0 where it isn't known.
        """
        self.check()
        if not self.entry(ino).folder:
            raise NotAFolder(f"inode {ino} is a file")
        needs = self._lister.needs(ino)
        self._lister.opened(ino)
        if needs:
            await self._lister.list(ino)
            self.check()
        entries = self._catalogue.children(ino)
        if pid and entries and not entries[0].folder:
            self._reader.listed(pid, (entries[0].ino, min(entry.ino for entry in entries)))
        return FolderHandle(ino, entries)

    # files

    def open(self, ino: int, *, pid: int = 0) -> Handle:
        """Open a file for reading; archived objects fail at once.

        ``pid`` is the process that opens, 0 where it isn't known: who reads one file of a
        folder after another finds the next ones on their way.
        """
        self.check()
        if is_folder(ino) and self.entry(ino).folder:
            raise IsAFolder(f"inode {ino} is a folder")
        try:
            record = self._catalogue.record(ino)
        except NoSuchName:
            raise StaleInode(f"inode {ino} is not in the tree any more") from None
        if record.state == State.ARCHIVED:
            raise Archived(
                f"object {record.id} is archived; `phonofs restore` asks for it back, "
                "which takes up to 24 hours"
            )
        return self._reader.open(record, ino, pid=pid)

    def read_now(self, handle: Handle, offset: int, size: int) -> bytes | None:
        """Bytes that can be had without waiting, else None. See :meth:`read`."""
        self.check()
        return self._reader.read_now(handle, offset, size)

    def lend_now(self, handle: Handle, offset: int, size: int) -> bytes | memoryview | None:
        """The same without a copy where there are many: to be used up before anything else."""
        self.check()
        return self._reader.lend_now(handle, offset, size)

    def peek(self, handle: Handle, offset: int, size: int) -> bytes | None:
        """Checked bytes that are there, not counted as read; None where one would wait."""
        self.check()
        return self._reader.peek(handle, offset, size)

    async def read(self, handle: Handle, offset: int, size: int) -> bytes:
        """Exactly ``min(size, file size - offset)`` bytes, or an error."""
        self.check()
        data = await self._reader.read(handle, offset, size)
        self.check()
        return data

    def release(self, handle: Handle) -> None:
        """Close a file. What is on its way for nobody else ends soon after."""
        self._reader.release(handle)

    # extended attributes

    def attribute(self, ino: int, name: str) -> bytes:
        """The value of one extended attribute."""
        for known, value in self._attributes(ino):
            if known == name:
                return value()
        raise NoSuchAttribute(f"there is no attribute {name}")

    def attributes(self, ino: int) -> list[str]:
        """The names of the extended attributes of a file or folder."""
        return [name for name, _ in self._attributes(ino)]

    def _attributes(self, ino: int) -> Iterable[tuple[str, Callable[[], bytes]]]:
        if ino == ROOT:
            return [(STATUS_ATTRIBUTE, lambda: msgspec.json.encode(self._status()))]
        if self.entry(ino).folder:
            return []
        record = self._catalogue.record(ino)
        texts = _record_attributes(record)
        texts["user.phonofs.cached"] = str(self._cached_bytes(record))
        values = {name: text.encode("utf-8", "replace") for name, text in texts.items()}
        values["user.phonofs.json"] = record.source
        return [
            (name, lambda value=value: value)  # type: ignore[misc]
            for name, value in values.items()
            if len(name.encode("utf-8", "replace")) <= ATTRIBUTE_NAME_MAX
            and len(value) <= ATTRIBUTE_SIZE_MAX
        ]


def _record_attributes(record: Record) -> dict[str, str]:
    """Attribute name to text; a tag whose key cannot be a name is left to the JSON."""
    texts = {
        "user.phonofs.id": record.id,
        "user.phonofs.region": record.region,
        "user.phonofs.type": record.type,
        "user.phonofs.state": record.state,
        "user.phonofs.checksum": record.checksum,
        "user.phonofs.object_name": record.object_name,
        "user.phonofs.created": _iso(record.created_ms),
        "user.phonofs.updated": _iso(record.updated_ms),
        "user.mime_type": record.mime_type,
    }
    for key, value in record.tags.items():
        if key and "\0" not in key:
            texts[TAG_PREFIX + key] = value
    return texts


def _iso(epoch_ms: int) -> str:
    """UTC, to the second, with the zone said: ``2022-11-01T21:22:22Z``."""
    return datetime.fromtimestamp(epoch_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
