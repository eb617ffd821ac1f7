"""Converts entries of the file system for clients of the door."""

from collections.abc import Sequence

import msgspec

from phonofs.catalogue.catalogue import Details, Entry
from phonofs.door import protocol
from phonofs.model import Record
from phonofs.vfs import Vfs
from phonofs.view_tree.listings import ViewEntry
from phonofs.views.names import text_of_ino
from phonofs.views.places import VIEW_BIT

TEXT_TYPES = {
    "csv": "text/csv",
    "jsonl": "application/x-ndjson",
    "srt": "application/x-subrip",
    "txt": "text/plain",
}
"""The media types of what the views make, by extension; all else of them is plain text."""


def is_text(entry: Entry) -> bool:
    """Return whether an entry is a text that the views make, or one of their lists."""
    return entry.ino >= VIEW_BIT and not entry.is_directory and text_of_ino(entry.ino) is not None


def is_link(entry: Entry) -> bool:
    """Return whether an entry is a link."""
    return isinstance(entry, ViewEntry) and bool(entry.target)


def converted(vfs: Vfs, entries: Sequence[Entry], prefix: str = "") -> list[protocol.Entry]:
    """Return entries of one directory as clients get them, with ``prefix`` before each name."""
    details = vfs.details(entries)
    return [_converted(entry, prefix + entry.name, details.get(entry.ino)) for entry in entries]


def of_object(entry: Entry, details: Details | None, record: Record) -> protocol.Entry:
    """Return the entry of an object with all that is known of it."""
    made = _converted(entry, entry.name, details)
    return msgspec.structs.replace(made, object_type=record.type, mime_type=record.mime_type)


def of_text(name: str, entry: Entry, fingerprint: str) -> protocol.Entry:
    """Return the entry of a text, of which the size is known."""
    made = _converted(entry, name, None)
    mime_type = TEXT_TYPES.get(name.rpartition(".")[2], "text/plain")
    return msgspec.structs.replace(
        made, fingerprint=fingerprint, object_type="text", mime_type=mime_type
    )


def _converted(entry: Entry, name: str, details: Details | None) -> protocol.Entry:
    if entry.is_directory or is_link(entry):
        times = (entry.mtime_ms, entry.ctime_ms, 0)
        return protocol.Entry(name, "directory", 0, *times, entry.ino)
    size = -1 if isinstance(entry, ViewEntry) and not entry.sure else entry.size
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
