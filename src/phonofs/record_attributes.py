"""The extended attributes that a file has from its record. Pure; used by ``vfs.py``."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from phonofs.attributes import JSON_ATTRIBUTE, TAG_PREFIX
from phonofs.model import Record

NAME_MAX = 255  # bytes; XATTR_NAME_MAX of linux/limits.h

LISTED_MAX = 3584
"""Bytes for all listed attributes of a file. ext4 has 4 KiB for them, and programs that copy them
add attributes of their own (overlayfs, rsync --fake-super)."""

_LENIENT = ("utf-8", "replace")

OF_RECORD: Mapping[str, Callable[[Record], str]] = {
    "user.phonofs.id": lambda record: record.id,
    "user.phonofs.region": lambda record: record.region,
    "user.phonofs.type": lambda record: record.type,
    "user.phonofs.state": lambda record: record.state,
    "user.phonofs.checksum": lambda record: record.checksum,
    "user.phonofs.created": lambda record: _iso(record.created_ms),
    "user.phonofs.updated": lambda record: _iso(record.updated_ms),
    "user.mime_type": lambda record: record.mime_type,
    "user.phonofs.object_name": lambda record: record.object_name,
}
"""The attributes that every file has, from its record."""


def listed_names(record: Record) -> list[str]:
    """Return the names of the attributes that a copy or a backup may keep.

    Left out are the record itself, which repeats the others, and tags that do not fit into
    ``LISTED_MAX``. They can still be read by name.
    """
    of_record = {name: of(record).encode(*_LENIENT) for name, of in OF_RECORD.items()}
    tags = {TAG_PREFIX + key: value.encode(*_LENIENT) for key, value in record.tags.items()}
    by_cost = sorted(tags.items(), key=lambda tag: (_kept_bytes(*tag), tag[0]))
    names, room = [], LISTED_MAX
    for name, value in (*of_record.items(), *by_cost):
        cost = _kept_bytes(name, value)
        if cost <= room and name != TAG_PREFIX and _is_name(name):
            names.append(name)
            room -= cost
    return names


def value_of(record: Record, name: str) -> bytes | None:
    """Return the value of an attribute; None if the record has no such one."""
    if name == JSON_ATTRIBUTE:
        return record.source
    of = OF_RECORD.get(name)
    if of is not None:
        return of(record).encode(*_LENIENT)
    key = name.removeprefix(TAG_PREFIX)
    if not key or key == name or key not in record.tags:
        return None
    return record.tags[key].encode(*_LENIENT)


def _is_name(name: str) -> bool:
    """Return whether this can be an attribute's name; other tags are only in the JSON."""
    try:
        return "\0" not in name and len(name.encode()) <= NAME_MAX
    except UnicodeEncodeError:
        return False


def _kept_bytes(name: str, value: bytes) -> int:
    """Return the bytes of an attribute in ext4: its entry, and name and value padded to 4 bytes.

    Source: EXT4_XATTR_LEN and EXT4_XATTR_SIZE in fs/ext4/xattr.h. ext4 does not store the prefix
    ``user.``; it is counted here as a margin.
    """
    return 16 + -(-len(name.encode(*_LENIENT)) // 4) * 4 + -(-len(value) // 4) * 4


def _iso(epoch_ms: int) -> str:
    """Return a time in UTC, to the second: ``2022-11-01T21:22:22Z``."""
    return datetime.fromtimestamp(epoch_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
