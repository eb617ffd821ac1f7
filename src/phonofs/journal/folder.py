"""The folder of a journal: one a profile, below the folder that the option ``journal`` names.

::

    JOURNAL/PROFILE/       mode 0700
        2026-11.jsonl      a file a month (UTC), mode 0600
        chain.json         where the chain ended last, and where each month begins in it
        search.key         the key of the hashes that stand for the words of searches, mode 0600
        lock               locked with flock while a mount writes

Months may be moved away. ``chain.json`` stays, so that the chain goes on from what is not here any
more, and so that ``verify`` notices if lines are missing at an end.
"""

import errno
import fcntl
import os
import re
import secrets
from contextlib import suppress
from pathlib import Path

import msgspec

from phonofs.errors import JournalError, UsageError
from phonofs.journal.lines import ChainEnd
from phonofs.trusted_path import check_trusted

CHAIN = "chain.json"
LOCK = "lock"
SEARCH_KEY = "search.key"
KEY_BYTES = 32
_MONTH = re.compile(r"\d{4}-\d\d\.jsonl", re.ASCII)


class Chain(msgspec.Struct, frozen=True):
    """What ``chain.json`` says.

    end     the last line that was written when it was saved; there may be later ones
    months  for each month, the line before its first one
    """

    end: ChainEnd = ChainEnd()
    months: dict[str, ChainEnd] = {}


def check_apart(path: Path, cache_dir: Path) -> None:
    """Raise UsageError if a journal lies in the cache folder, which may be removed at any time."""
    if Path(os.path.realpath(path)).is_relative_to(os.path.realpath(cache_dir)):
        raise UsageError(
            f"the journal {path} lies in the cache folder {cache_dir}, which may be emptied; "
            "set journal to another folder"
        )


def claim(path: Path) -> int:
    """Create or open the folder of a profile, and lock it; return the descriptor of the lock.

    Raises UsageError if it must not be used, JournalError if it cannot be.
    """
    check_trusted(path, "the journal", groups=False)
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)
        os.chmod(path, 0o700)
        lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise JournalError(f"the journal {path} cannot be used: {error.strerror}") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise UsageError(f"the journal {path} is in use by another process of phonofs") from None
    except OSError as error:
        os.close(lock)
        raise JournalError(f"the journal {path} cannot be locked: {error.strerror}") from None
    return lock


def months(path: Path) -> list[Path]:
    """Return the files of the months, the oldest first. Raises OSError."""
    return sorted(each for each in path.iterdir() if _MONTH.fullmatch(each.name))


def load_chain(path: Path) -> Chain | None:
    """Return what ``chain.json`` says; None if it is not there or cannot be read."""
    with suppress(OSError, msgspec.DecodeError, msgspec.ValidationError):
        return msgspec.json.decode((path / CHAIN).read_bytes(), type=Chain)
    return None


def save_chain(path: Path, chain: Chain) -> None:
    """Write ``chain.json``, as a whole or not at all. Raises OSError."""
    _replace(path / CHAIN, msgspec.json.encode(chain))


def read_search_key(path: Path) -> bytes:
    """Return the key of the words of searches. Raises OSError, also if it is damaged."""
    key = (path / SEARCH_KEY).read_bytes()
    if len(key) != KEY_BYTES:
        raise OSError(errno.EINVAL, f"{path / SEARCH_KEY} is no key")
    return key


def search_key(path: Path) -> bytes:
    """Return the key of the words of searches; make it if there is none. Raises OSError."""
    try:
        return read_search_key(path)
    except FileNotFoundError:
        key = secrets.token_bytes(KEY_BYTES)
        _replace(path / SEARCH_KEY, key)
        return key


def _replace(path: Path, content: bytes) -> None:
    """Write a file, as a whole or not at all. Raises OSError."""
    made = path.with_name(f"{path.name}.new")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    with open(os.open(made, flags, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    made.replace(path)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Have the names in a folder survive a power cut. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
