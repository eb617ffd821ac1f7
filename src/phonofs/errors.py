"""All errors, in one tree. Every package raises these; ``cli`` and ``fuse`` translate them.

::

    PhonofsError
    ├── UsageError           wrong usage or configuration             exit 1
    │   └── CacheInUse           another process uses the cache folder    exit 1
    ├── MountFailed          the mount could not be made              exit 32
    ├── CatalogueError       the catalogue cannot be read or written  exit 1, EIO
    ├── JournalError         the access journal cannot be written     exit 1, EIO
    ├── WrongAccount         the key is another account's             exit 2, EACCES
    ├── ServiceError         a failure of the service or on the way to it
    │   ├── CredentialsRefused   the token endpoint refused them      exit 2, EACCES
    │   │   └── CredentialsUnreadable  key or secret cannot be read   exit 1, EACCES
    │   ├── Unavailable          unreachable, throttled, 5xx, late    exit 3, EIO
    │   │   └── Untrusted        its certificate cannot be verified   exit 3, EIO
    │   ├── UnknownAccount       the account of a new key is unknown  exit 3, EIO
    │   ├── Refused              401 after a fresh token, 403         exit 2, EACCES
    │   ├── Gone                 the object does not exist any more   ESTALE
    │   ├── Changed              other content than at open           ESTALE
    │   ├── Archived             in cold storage, not readable        ENODATA
    │   ├── Malformed            a response that cannot be used       EIO
    │   │   ├── OffsetRefused    a search refused beyond an offset    EIO
    │   │   └── TooLarge         a response larger than allowed       EIO
    │   └── Corrupt              wrong length or checksum, twice      EIO
    └── TreeError            what the tree does not have or allow
        ├── NoSuchName                                                ENOENT
        │   └── StaleInode           the inode no longer exists       ESTALE
        ├── NotAFolder                                                ENOTDIR
        ├── IsAFolder                                                 EISDIR
        ├── NoSuchAttribute                                           ENODATA
        ├── ReadOnlyTree                                              EROFS
        ├── CrawlerRefused       a program of the option `crawlers`   EACCES
        └── Interrupted          the caller has a signal pending      EINTR

Each message is one sentence for the user: it names the subject and, if there is one, the remedy.
It never contains a secret, a token or the query of a URL.
"""

from collections.abc import Iterator
from typing import TypeVar

_Error = TypeVar("_Error", bound=BaseException)


class PhonofsError(Exception):
    """The root of the tree; ``exit_status`` is the status of a command that fails with it."""

    exit_status = 1


class UsageError(PhonofsError):
    """Wrong usage or configuration."""


class CacheInUse(UsageError):
    """Another process uses the cache folder: a mount, a ``serve``, or a command for a moment."""


class MountFailed(PhonofsError):
    """A mount could not be made or unmounted (exit status as in mount(8))."""

    exit_status = 32


class CatalogueError(PhonofsError):
    """The catalogue on this machine cannot be read or written. The cause is its disk or its file,
    never the service.
    """


class JournalError(PhonofsError):
    """The access journal cannot be written, so that nothing may be opened."""


class WrongAccount(PhonofsError):
    """The API key does not belong to the mounted account."""

    exit_status = 2


class ServiceError(PhonofsError):
    """A failure of the service, or on the way to it."""

    exit_status = 3


class CredentialsRefused(ServiceError):
    """The token endpoint does not accept the key and the secret."""

    exit_status = 2


class CredentialsUnreadable(CredentialsRefused):
    """The key or the secret cannot be read: a locked keyring, a file that others can read.

    The cause is wrong configuration, so the exit status is 1; a reader gets EACCES, as if the
    credentials were refused.
    """

    exit_status = 1


class Unavailable(ServiceError):
    """The service cannot be reached, throttles, fails, or is too slow.

    ``retry_after_s`` is the pause in seconds that the service asked for, if it did.
    """

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Untrusted(Unavailable):
    """The certificate of the service cannot be verified; a retry does not help."""


class UnknownAccount(ServiceError):
    """The API key is a new one, and the service does not tell which account it belongs to."""


class Refused(ServiceError):
    """The service refuses the request: 403, or 401 even with a fresh token."""

    exit_status = 2


class Gone(ServiceError):
    """The service answered that the object does not exist, or does not exist any more."""


class Changed(ServiceError):
    """The object has other content than when it was opened.

    ``by_etag`` is true if only its ETag shows that.
    """

    def __init__(self, message: str, *, by_etag: bool = False) -> None:
        super().__init__(message)
        self.by_etag = by_etag


class Archived(ServiceError):
    """The object is in cold storage and must be restored before it can be read."""


class Malformed(ServiceError):
    """The service sent a response that cannot be used."""


class OffsetRefused(Malformed):
    """The service refuses a search at this offset, though it answers at offset 0."""


class TooLarge(Malformed):
    """A response is larger, has more values or is nested deeper than allowed.

    ``start`` is its beginning (at most 64 KiB).
    """

    def __init__(self, message: str, start: bytes = b"") -> None:
        super().__init__(message)
        self.start = start


class Corrupt(ServiceError):
    """The content has the wrong length or checksum, even after a second download."""


class TreeError(PhonofsError):
    """What the tree does not have or does not allow."""


class NoSuchName(TreeError):
    """There is no such file or directory."""


class StaleInode(NoSuchName):
    """The inode with this number is not in the tree any more.

    The errno is ESTALE, not ENOENT. If the file is open, its reader must learn that the file is
    gone. If the kernel came here by a path, it looks the name up again and then gets ENOENT.
    """


class NotAFolder(TreeError):
    """An operation on a directory was requested, but the inode is a file."""


class IsAFolder(TreeError):
    """An operation on a file was requested, but the inode is a directory."""


class NoSuchAttribute(TreeError):
    """There is no such extended attribute."""


class ReadOnlyTree(TreeError):
    """An operation would change the tree, which is read-only."""


class CrawlerRefused(TreeError):
    """A program that the option ``crawlers`` names wants to open a file."""


class Interrupted(TreeError):
    """The caller has a signal pending, so its wait was ended."""


def forget_frames(error: _Error) -> _Error:
    """Remove the tracebacks of an error and of its causes, so that it can be kept; return it.

    The frames of a traceback keep their variables alive, for a request half a megabyte of
    received bytes.
    """
    for each in chain_of(error):
        each.__traceback__ = None
    return error


def chain_of(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, its causes and contexts, and those within exception groups, each once."""
    waiting: list[BaseException | None] = [error]
    seen: set[int] = set()
    while waiting:
        each = waiting.pop()
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            yield each
            waiting += (each.__context__, each.__cause__)
            if isinstance(each, BaseExceptionGroup):
                waiting += each.exceptions


def unwrap(error: BaseException) -> BaseException:
    """Return the first error inside an exception group, or else the error itself.

    pyfuse3 does not look into groups, so a FUSEError in one would end the mount.
    """
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
