"""What can go wrong, in one tree. Every room raises these; the edges translate them.

::

    PhonofsError
    ├── UsageError           wrong usage or configuration             exit 1
    ├── MountFailed          the mount could not be made              exit 32
    ├── CatalogueError       the catalogue cannot be read or written  exit 1, EIO
    ├── WrongAccount         the key is another account's             exit 2, EACCES
    ├── ServiceError         what the service, or the way to it, did
    │   ├── CredentialsRefused   the token endpoint says no           exit 2, EACCES
    │   │   └── CredentialsUnreadable  there is no key or secret to ask with  exit 1, EACCES
    │   ├── Unavailable          unreachable, throttled, 5xx, late    exit 3, EIO
    │   │   └── Untrusted        its certificate cannot be verified   exit 3, EIO
    │   ├── UnknownAccount       nobody can tell whose a new key is   exit 3, EIO
    │   ├── Refused              401 after a fresh token, 403         exit 2, EACCES
    │   ├── Gone                 the object is no more                ESTALE
    │   ├── Changed              other content than when it was opened ESTALE
    │   ├── Archived             in cold storage, not readable        ENODATA
    │   ├── Malformed            an answer that cannot be used        EIO
    │   │   ├── OffsetRefused    a search goes on no further          EIO
    │   │   └── TooLarge         an answer larger than it may be      EIO
    │   └── Corrupt              wrong length or checksum, twice      EIO
    └── TreeError            what the tree does not have or allow
        ├── NoSuchName                                                ENOENT
        │   └── StaleInode           what had this number is gone     ESTALE
        ├── NotAFolder                                                ENOTDIR
        ├── IsAFolder                                                 EISDIR
        ├── NoSuchAttribute                                           ENODATA
        ├── ReadOnlyTree                                              EROFS
        └── Interrupted          the caller has a signal pending      EINTR

The message of each is one sentence for a person: it names the thing and, where there is one,
the remedy. It never holds a secret, a token or the query of a URL.
"""

from typing import TypeVar

_Error = TypeVar("_Error", bound=BaseException)


class PhonofsError(Exception):
    """The root of the tree; ``exit_status`` is what a command that fails of it returns."""

    exit_status = 1


class UsageError(PhonofsError):
    """Wrong usage or configuration."""


class MountFailed(PhonofsError):
    """The mount could not be made, or not be taken down (exit status as mount(8))."""

    exit_status = 32


class CatalogueError(PhonofsError):
    """The catalogue on this machine cannot be read or written: its disk or its file, never the
    service.
    """


class WrongAccount(PhonofsError):
    """The API key belongs to another account than the one that is mounted."""

    exit_status = 2


class ServiceError(PhonofsError):
    """What the service, or the way to it, did."""

    exit_status = 3


class CredentialsRefused(ServiceError):
    """The token endpoint does not accept the key and the secret."""

    exit_status = 2


class CredentialsUnreadable(CredentialsRefused):
    """The key or the secret cannot be read: a locked keyring, a file that others can read.

    What mends it is wrong configuration; what it means for a reader is that nothing is granted.
    """

    exit_status = 1


class Unavailable(ServiceError):
    """The service cannot be reached, throttles, fails, or was too slow.

    ``retry_after_s`` is the pause in seconds that the service asked for, if it did.
    """

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Untrusted(Unavailable):
    """The certificate of the service cannot be verified; trying again does not help."""


class UnknownAccount(ServiceError):
    """The API key is a new one, and the service does not say whose it is."""


class Refused(ServiceError):
    """The service does not allow it: 403, or 401 even with a fresh token."""

    exit_status = 2


class Gone(ServiceError):
    """The service answered that the object does not exist (any more)."""


class Changed(ServiceError):
    """The object has other content than when it was opened.

    ``by_etag``: only its ETag says so.
    """

    def __init__(self, message: str, *, by_etag: bool = False) -> None:
        super().__init__(message)
        self.by_etag = by_etag


class Archived(ServiceError):
    """The object lies in cold storage and must be restored before it can be read."""


class Malformed(ServiceError):
    """The service answered with something that cannot be used."""


class OffsetRefused(Malformed):
    """The service refuses a search at this offset, though it answers at offset 0."""


class TooLarge(Malformed):
    """An answer is larger, holds more values or is nested deeper than it may be.

    ``start`` is how it begins (at most 64 KiB).
    """

    def __init__(self, message: str, start: bytes = b"") -> None:
        super().__init__(message)
        self.start = start


class Corrupt(ServiceError):
    """The content has the wrong length or checksum, also after a second fetch."""


class TreeError(PhonofsError):
    """What the tree does not have or does not allow."""


class NoSuchName(TreeError):
    """There is no such file or folder."""


class StaleInode(NoSuchName):
    """What had this inode number is not in the tree any more.

    ESTALE and not ENOENT: the kernel asks so on behalf of a file that is open, whose reader is
    to learn that it is gone; where a path led here it looks the name up again, and gets ENOENT.
    """


class NotAFolder(TreeError):
    """A folder was asked for, and it is a file."""


class IsAFolder(TreeError):
    """A file was asked for, and it is a folder."""


class NoSuchAttribute(TreeError):
    """There is no such extended attribute."""


class ReadOnlyTree(TreeError):
    """Something that would change the tree."""


class Interrupted(TreeError):
    """The caller has a signal pending, so it is not kept waiting."""


def forget_frames(error: _Error) -> _Error:
    """The same error, to be kept: without the frames that it and its causes came through.

    Frames hold their variables, those of a request half a megabyte of received bytes.
    """
    waiting: list[BaseException | None] = [error]
    seen: set[int] = set()
    while waiting:
        each = waiting.pop()
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            each.__traceback__ = None
            waiting += (each.__cause__, each.__context__)
    return error


def unwrap(error: BaseException) -> BaseException:
    """Return the first error inside an exception group, or else the error itself.

    pyfuse3 does not look into groups, so a FUSEError in one would end the mount.
    """
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
