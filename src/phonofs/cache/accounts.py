"""The accounts that have used a cache directory, and where each has its catalogue and content.

::

    CACHE_DIR/
        lock                         locked while a mount or a command uses the directory
        accounts.json                which key (a hash of it) belongs to which account
        catalogue.sqlite, content/   of the account that used the directory first
        accounts/ID/                 catalogue and content of each other account

Only its own keys open an account. What other accounts left is *set aside*: it stays where it is,
counts in ``cache_size`` and is evicted first. Nothing is ever moved, so a kill at any moment leaves
each account what it had. If ``accounts.json`` is missing or damaged, the accounts are found by
their files, and the service is asked about every key.

Used by ``app.py``, ``account.py`` and ``phonofs cache``. Synchronous.
"""

import contextlib
import hashlib
import logging
import os
import re
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from phonofs.cache.directory import (
    CONTENT,
    closed_on_error,
    lock_folder,
    open_own,
    read_file,
    write_file,
)
from phonofs.cache.index_file import key_id_of
from phonofs.cache.removal import remove_tree, size_of

log = logging.getLogger(__name__)

NOTE = "accounts.json"
OTHERS = "accounts"
CATALOGUE = "catalogue.sqlite"

MOST_ACCOUNTS = 8
"""Accounts kept in one directory. An agency has a profile, and with it a directory, for each
customer, so that more than a few accounts come from keys no longer used."""

MOST_KEYS = 1000
"""Keys that are remembered, the newest ones; a key is rotated every few months."""

LARGEST_NOTE = 1 << 20

_ID = re.compile(r"[0-9a-f]{32}")
_TOP = "0" * 32
"""The id of the account at the top of a directory if ``accounts.json`` does not name it."""


def key_hash(api_url: str, key: str) -> str:
    """Return a hash of an API key and its service: 32 hex digits that do not reveal the key."""
    text = f"{api_url.rstrip('/')}\0{key}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=16, person=b"phonofs key").hexdigest()


class Account(msgspec.Struct):
    """One account that has used the directory.

    id         32 hex digits
    top        whether its files are at the top of the directory, or else in ``accounts/ID``
    api_url    the service of the account; empty if unknown
    used       increases with each use of the directory: the largest was used last
    customers  the ``customerId`` of its records when it was closed, for messages
    bytes      bytes it took on disk when it was closed; -1 if it was not closed
    """

    id: str
    top: bool
    api_url: str = ""
    used: int = 0
    customers: list[str] = []
    bytes: int = -1

    def use(self, count: int, api_url: str) -> None:
        """Note that the account is in use; ``count`` is the number of this use."""
        self.used = count
        self.api_url = api_url
        self.bytes = -1

    def name(self, customers: frozenset[str]) -> None:
        """Note the customers of its records."""
        self.customers = sorted(customers)

    def measure(self, size: int) -> None:
        """Note how many bytes it takes on disk; -1 if that is unknown."""
        self.bytes = size


class _Note(msgspec.Struct):
    """The content of ``accounts.json``."""

    version: int
    accounts: list[Account] = []
    keys: dict[str, str] = {}


class Accounts:
    """The accounts of one cache directory, which is locked until :meth:`close`.

    Owns ``accounts.json``. ``keys`` has the account's id by the hash of a key, oldest first. If the
    disk cannot be written, the directory is still used, and ``accounts.json`` does not change.
    """

    def __init__(self, path: Path, folder_fd: int, lock_fd: int) -> None:
        """Use :meth:`open`."""
        self.path = path
        self._fds = [fd for fd in (folder_fd, lock_fd) if fd >= 0]
        self._folder = folder_fd
        self._writing = threading.Lock()
        note = _read(folder_fd) if folder_fd >= 0 else None
        self._accounts = {one.id: one for one in note.accounts} if note else {}
        self._keys = dict(note.keys) if note else {}
        self._find()

    @classmethod
    def open(cls, path: Path) -> "Accounts":
        """Create or open the directory and lock it. Raises UsageError if it must not be used.

        If the disk is full, read-only or failing, what exists is used.
        """
        try:
            folder = open_own(path)
        except OSError as error:
            log.warning("the cache folder %s cannot be used: %s", path, error.strerror)
            return cls(path, -1, -1)
        with closed_on_error(folder):
            return cls(path, folder, lock_folder(folder, path))

    def close(self) -> None:
        """Unlock and close the directory."""
        for fd in self._fds:
            os.close(fd)
        self._fds = []

    # Accounts and keys

    def all(self) -> list[Account]:
        """Return all accounts, the last used first."""
        return sorted(self._accounts.values(), key=lambda one: -one.used)

    def of_key(self, hashed: str) -> Account | None:
        """Return the account that a key is known to belong to."""
        return self._accounts.get(self._keys.get(hashed, ""))

    @property
    def keys(self) -> Mapping[str, str]:
        """The id of the account by the hash of each known key."""
        return self._keys

    def keys_of(self, account: Account) -> list[str]:
        """Return the hashes of the keys that are known to belong to an account."""
        return [key for key, id in self._keys.items() if id == account.id]

    def home(self, account: Account) -> Path:
        """Return the directory with the catalogue and the content of an account."""
        return self.path if account.top else self.path / OTHERS / account.id

    def add(self, hashed: str, api_url: str) -> Account:
        """Add an account with this key; beyond MOST_ACCOUNTS, the least recently used go."""
        top = not any(one.top for one in self._accounts.values())
        taken = hashed in self._accounts  # by an account that this key shared with other keys
        made = Account(os.urandom(16).hex() if taken else hashed, top, api_url.rstrip("/"))
        self._accounts[made.id] = made
        self.admit(hashed, made)
        others = [one for one in self.all() if one is not made]
        for old in others[MOST_ACCOUNTS - 1 :]:
            self.remove_or_say(old)
        return made

    def admit(self, hashed: str, account: Account) -> None:
        """Note that a key belongs to an account."""
        self._keys.pop(hashed, None)
        self._keys[hashed] = account.id
        for old in list(self._keys)[:-MOST_KEYS]:
            del self._keys[old]
        self._write()

    def begin(self, account: Account, api_url: str) -> bool:
        """Note that the account is in use; return whether another one was used last."""
        last = next(iter(self.all()), account)
        account.use(last.used + 1, api_url.rstrip("/"))
        self._write()
        return last is not account

    def end(self, account: Account, customers: frozenset[str], content_bytes: int | None) -> None:
        """Note that the account is no longer in use.

        ``content_bytes`` is what its content takes on disk, None if that is unknown.
        """
        account.name(customers)
        if content_bytes is not None:
            with contextlib.suppress(OSError):  # then the next mount counts
                account.measure(content_bytes + sum(map(size_of, self._paths(account)[1:])))
        self._write()

    # Removing

    def remove(self, account: Account) -> None:
        """Remove what an account left, and forget its keys.

        Raises OSError if something cannot be removed; then the account is not forgotten.
        """
        for _ in self.pieces(account):
            pass
        self.forget(account)

    def remove_or_say(self, account: Account) -> None:
        """Remove what an account left; if that fails, log it and forget nothing."""
        try:
            self.remove(account)
        except OSError as error:
            log.warning("%s cannot be emptied: %s", self.home(account), error.strerror)

    def forget(self, account: Account) -> None:
        """Forget an account that has no files any more."""
        self._accounts.pop(account.id, None)
        self._keys = {key: id for key, id in self._keys.items() if id != account.id}
        self._write()

    def pieces(self, account: Account) -> Iterator[int]:
        """Remove an account file by file, its content first; yield the bytes of each file.

        Raises OSError for the first file that cannot be removed.
        """
        for path in self._paths(account):
            yield from remove_tree(path)
        if not account.top:
            with contextlib.suppress(OSError):
                self.home(account).rmdir()
                (self.path / OTHERS).rmdir()

    def remove_damaged(self) -> None:
        """Remove the catalogues that were set aside because they were damaged. Raises OSError."""
        for account in self.all():
            for path in self._paths(account):
                if os.path.basename(path).startswith(f"{CATALOGUE}.damaged-"):
                    Path(path).unlink(missing_ok=True)

    def drop_content(self, account: Account) -> None:
        """Remove the content that an account left; its catalogue stays. Raises OSError."""
        account.measure(-1)
        for _ in remove_tree(str(self.home(account) / CONTENT)):
            pass

    def size(self, account: Account) -> int:
        """Return the bytes that an account takes on disk; 0 if they cannot be counted."""
        if account.bytes < 0:
            with contextlib.suppress(OSError):
                account.measure(sum(map(size_of, self._paths(account))))
        return max(0, account.bytes)

    def has_content(self, account: Account) -> bool:
        """Return whether an account left the content of any object."""
        return any(True for _ in (self.home(account) / CONTENT).glob("??/*"))

    def key_id(self, account: Account) -> int:
        """Return the ``key_id`` of the codec of its content: 0 for none, -1 without an index."""
        return key_id_of(self.home(account) / CONTENT)

    def _paths(self, account: Account) -> list[str]:
        """Return the paths of an account's content and of all files of its catalogue.

        Raises OSError if they cannot be listed.
        """
        home = self.home(account)
        with contextlib.suppress(FileNotFoundError):
            names = sorted(name for name in os.listdir(home) if name.startswith(CATALOGUE))
            return [str(home / name) for name in (CONTENT, *names)]
        return []

    # accounts.json

    def _find(self) -> None:
        """Add the accounts that have files but are not in ``accounts.json``."""
        if not any(one.top for one in self._accounts.values()):
            with contextlib.suppress(OSError):
                if any(n == CONTENT or n.startswith(CATALOGUE) for n in os.listdir(self.path)):
                    self._accounts[_TOP] = Account(_TOP, top=True)
        with contextlib.suppress(OSError):
            for name in os.listdir(self.path / OTHERS):
                if _ID.fullmatch(name) and name not in self._accounts:
                    self._accounts[name] = Account(name, top=False)

    def _write(self) -> None:
        if self._folder < 0:
            return
        new = f"{NOTE}.new"
        with self._writing:
            note = _Note(1, list(self._accounts.values()), dict(self._keys))
            try:
                write_file(self._folder, new, msgspec.json.encode(note))
                os.rename(new, NOTE, src_dir_fd=self._folder, dst_dir_fd=self._folder)
            except OSError as error:  # the next mount asks the service whose the key is
                log.warning("%s cannot be written: %s", self.path / NOTE, error.strerror)


def _read(folder: int) -> _Note | None:
    """Read ``accounts.json``; None if it is missing or damaged."""
    try:
        text = read_file(folder, NOTE, LARGEST_NOTE)
        note = msgspec.json.decode(text or b"", type=_Note)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError):
        log.warning("%s in the cache folder is damaged; the service is asked whose it is", NOTE)
        return None
    ids = [one.id for one in note.accounts]
    sound = len(set(ids)) == len(ids) and all(map(_ID.fullmatch, ids))
    tops = sum(one.top for one in note.accounts)
    return note if note.version == 1 and sound and tops <= 1 else None
