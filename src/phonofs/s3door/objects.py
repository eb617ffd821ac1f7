"""Finds, describes and opens the objects that S3 clients name. Used by ``answers``."""

import logging

import msgspec

from phonofs.access import How, Opener
from phonofs.catalogue.catalogue import Entry
from phonofs.errors import Changed, NoSuchName, NotAFolder
from phonofs.http_dates import http_date
from phonofs.model import Record
from phonofs.open_files import (
    OpenFile,
    fingerprint_of,
    gone_is_missing,
    is_text,
    open_file,
    text_type,
)
from phonofs.s3door.errors import S3Error
from phonofs.s3door.keys import Key
from phonofs.s3door.permissions import permits_type
from phonofs.tree.layout import ROOT
from phonofs.vfs import Vfs
from phonofs.views.places import VIEW_BIT

log = logging.getLogger(__name__)

NO_TYPE = "application/octet-stream"


class Described(msgspec.Struct, frozen=True):
    """An object, or a text of the views, as a HEAD describes it.

    size         bytes, as far as they are known without opening it
    mtime_ms     when it changed last, UTC epoch ms
    fingerprint  identifies the content; the ETag without its quotes
    media_type   as its record gives it
    archived     whether it has to be restored before it can be read
    fields       the header fields that tell of its content and its time
    record       None of a text
    """

    path: str
    entry: Entry
    size: int
    mtime_ms: int
    fingerprint: str
    media_type: str
    fields: tuple[tuple[str, str], ...]
    archived: bool = False
    record: Record | None = None

    @property
    def etag(self) -> str:
        """The fingerprint as an ETag."""
        return f'"{self.fingerprint}"'


FOLDERS_KEPT = 1000
"""Folders whose inode numbers are kept, 200 bytes each."""

DESCRIBED_KEPT = 1024
"""Objects whose description is kept until their entry or record changes, as many as there are
records in memory, and 1 KB each: clients ask for the head of an object first, and for parts."""


class Objects:
    """The objects that a key may open.

    Owns the inode numbers of folders that objects were found in. These are permanent, so that what
    is looked up in one that has gone is not there, and each GET costs one look instead of four.
    Owns the descriptions of the objects found last, by their paths.
    """

    def __init__(self, vfs: Vfs) -> None:
        self._vfs = vfs
        self._folders: dict[str, int] = {}
        self._described: dict[str, Described] = {}

    async def find(self, key: Key, path: str) -> Described:
        """Return what is at a path. Raises S3Error (AccessDenied), NoSuchName, ServiceError.

        Whether there is anything that the key may not open is not told: outside of its prefixes
        everything is denied, and within them what has another type is not there, as in listings.
        """
        if not key.covers(path):
            raise S3Error("AccessDenied", "this key does not open that")
        try:
            entry = await self._walk(path)
            if not entry.is_directory and permits_type(self._vfs, key, entry):
                if is_text(entry):
                    return await self._text(path, entry)
                return self._object(path, entry)
        except (NoSuchName, NotAFolder):
            log.debug("an S3 client asks for what is not there")
        raise S3Error("NoSuchKey", "there is no such key")

    async def _walk(self, path: str) -> Entry:
        """Return the entry at a path, as ``Vfs.walk`` does."""
        folder, _, name = path.rpartition("/")
        above = self._folders.get(folder)
        if above is not None and name:
            return await self._vfs.lookup(above, name)
        entry = await self._vfs.walk(path)
        if entry.ino < VIEW_BIT:
            above = self._vfs.parent(entry.ino).ino
            if folder == self._path(above):
                if len(self._folders) >= FOLDERS_KEPT:
                    self._folders.clear()
                self._folders[folder] = above
        return entry

    def _path(self, ino: int) -> str:
        """Return the path of a folder. Another one to it has a link, which may lead elsewhere."""
        names: list[str] = []
        while ino != ROOT:
            names.append(self._vfs.entry(ino).name)
            ino = self._vfs.parent(ino).ino
        return "/".join(reversed(names))

    async def _text(self, path: str, entry: Entry) -> Described:
        known = await self._vfs.text_entry(entry.ino)
        fingerprint = await self._vfs.text_fingerprint(entry.ino, known.size)
        fields = _fields(fingerprint, known.mtime_ms)
        return Described(
            path, known, known.size, known.mtime_ms, fingerprint, text_type(path), fields
        )

    def _object(self, path: str, entry: Entry) -> Described:
        record = self._vfs.record(entry.ino)
        found = self._described.get(path)
        if found is not None and found.record is record and found.entry == entry:
            return found
        if len(self._described) >= DESCRIBED_KEPT and found is None:
            del self._described[next(iter(self._described))]
        fingerprint = fingerprint_of(self._vfs, entry, record)
        found = self._described[path] = Described(
            path,
            entry,
            entry.size,
            entry.mtime_ms,
            fingerprint,
            _header_value(record.mime_type) or NO_TYPE,
            _fields(fingerprint, entry.mtime_ms),
            entry.archived,
            record,
        )
        return found

    async def open(self, key: Key, found: Described) -> OpenFile:
        """Open what was found, once that is recorded by the name of the key.

        Raises Archived, Changed, JournalError, ServiceError.
        """
        opener = Opener(how=How.S3, in_order=False, key=key.name)
        with gone_is_missing(found.path):
            file = await open_file(self._vfs, found.entry, opener)
        if file.fingerprint != found.fingerprint:
            file.close()
            raise Changed(f"{found.path!r} changed while it was opened")
        return file


def _fields(fingerprint: str, mtime_ms: int) -> tuple[tuple[str, str], ...]:
    return ("ETag", f'"{fingerprint}"'), ("Last-Modified", http_date(mtime_ms / 1000))


def _header_value(text: str) -> str:
    """Return a text of a record if it can stand in a header, or ''."""
    return text if text.isascii() and text.isprintable() and len(text) < 200 else ""
