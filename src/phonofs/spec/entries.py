"""Entries as fsspec has them, and the errors of what is not there or cannot be written. Pure."""

import errno
import os
from typing import Any

from phonofs.door.protocol import Entry

Info = dict[str, Any]
"""What fsspec knows of a file or directory: name, size, type, and more."""

ABSENT = (FileNotFoundError, NotADirectoryError)
"""The only errors that say that something is not there."""


def info_of(name: str, entry: Entry) -> Info:
    """Return an entry as fsspec has it: times in seconds; None for a size that is not known."""
    info: Info = {
        "name": name,
        "size": None if entry.size < 0 else entry.size,
        "type": entry.type,
        "mtime": entry.mtime_ms / 1000,
        "ctime": entry.ctime_ms / 1000,
        "created": entry.created_ms / 1000,
        "ino": entry.ino,
    }
    if entry.type == "file":
        info |= {
            "fingerprint": entry.fingerprint,
            "id": entry.id,
            "region": entry.region,
            "object_type": entry.object_type,
            "mime_type": entry.mime_type,
            "state": entry.state,
        }
    return info


def directory(name: str) -> Info:
    """Return a directory of which only its name is known."""
    return {"name": name, "size": 0, "type": "directory"}


def basename(info: Info) -> str:
    """Return the name in its directory."""
    name: str = info["name"].rpartition("/")[2]
    return name


def read_only(path: Any) -> OSError:
    """Return the error for whatever would write."""
    return OSError(errno.EROFS, os.strerror(errno.EROFS), path if isinstance(path, str) else None)


def absent(path: str) -> OSError:
    """Return the error for a path that nothing can have."""
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
