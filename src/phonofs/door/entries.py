"""Converts entries of the file system for clients of the door."""

from collections.abc import Sequence

import msgspec

from phonofs.catalogue.catalogue import Details, Entry
from phonofs.catalogue.types import Listed
from phonofs.door import protocol
from phonofs.model import Record
from phonofs.open_files import is_link, text_type
from phonofs.vfs import Vfs
from phonofs.view_tree.listings import ViewEntry


def converted(vfs: Vfs, entries: Sequence[Entry], prefix: str = "") -> list[protocol.Entry]:
    """Return entries of one directory as clients get them, with ``prefix`` before each name."""
    details = vfs.details(entries)
    return [_converted(entry, prefix + entry.name, details.get(entry.ino)) for entry in entries]


def of_day(region: str, listed: Sequence[Listed], prefix: str = "") -> list[protocol.Entry]:
    """Return the objects of a day as clients get them, with ``prefix`` before each name."""
    made = protocol.Entry
    return [
        made(
            prefix + name, "file", size, mtime_ms, ctime_ms, created_ms, ino,
            fingerprint, id, region, "", "", state,
        )
        for ino, name, size, mtime_ms, ctime_ms, created_ms, id, state, fingerprint in listed
    ]  # fmt: skip


def of_object(entry: Entry, details: Details | None, record: Record) -> protocol.Entry:
    """Return the entry of an object with all that is known of it."""
    made = _converted(entry, entry.name, details)
    return msgspec.structs.replace(made, object_type=record.type, mime_type=record.mime_type)


def of_text(name: str, entry: Entry, fingerprint: str) -> protocol.Entry:
    """Return the entry of a text, of which the size is known."""
    made = _converted(entry, name, None)
    return msgspec.structs.replace(
        made, fingerprint=fingerprint, object_type="text", mime_type=text_type(name)
    )


def _converted(entry: Entry, name: str, details: Details | None) -> protocol.Entry:
    if entry.is_directory or is_link(entry):
        times = (entry.mtime_ms, entry.ctime_ms, 0)
        return protocol.Entry(name, "directory", 0, *times, entry.ino)
    size = -1 if isinstance(entry, ViewEntry) and entry.text and not entry.sure else entry.size
    if details is None:
        return protocol.Entry(name, "file", size, entry.mtime_ms, entry.ctime_ms, 0, entry.ino)
    return protocol.Entry(
        name,
        "file",
        size,
        entry.mtime_ms,
        entry.ctime_ms,
        details.created_ms,
        entry.ino,
        details.fingerprint,
        details.id,
        details.region,
        "",
        "",
        details.state,
    )
