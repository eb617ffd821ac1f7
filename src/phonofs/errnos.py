"""Translates errors to errno: the one table, for the kernel and for the clients of the door.

Used by ``fuse/errors.py`` and ``door/``, each of which counts and logs what it answers.
"""

import errno
import logging
from dataclasses import dataclass

from phonofs.errors import (
    Archived,
    CatalogueError,
    Changed,
    Corrupt,
    CrawlerRefused,
    CredentialsRefused,
    CredentialsUnreadable,
    Gone,
    Interrupted,
    IsAFolder,
    JournalError,
    Malformed,
    NoSuchAttribute,
    NoSuchName,
    NotAFolder,
    OffsetRefused,
    PhonofsError,
    ReadOnlyTree,
    Refused,
    StaleInode,
    TooLarge,
    Unavailable,
    UnknownAccount,
    Untrusted,
    WrongAccount,
)


@dataclass(frozen=True, slots=True)
class ErrnoRule:
    """``errno`` for the caller, ``level`` for the log (a level of :mod:`logging`)."""

    errno: int
    level: int


TABLE: dict[type[PhonofsError], ErrnoRule] = {
    NoSuchName: ErrnoRule(errno.ENOENT, logging.DEBUG),
    StaleInode: ErrnoRule(errno.ESTALE, logging.DEBUG),
    NotAFolder: ErrnoRule(errno.ENOTDIR, logging.DEBUG),
    IsAFolder: ErrnoRule(errno.EISDIR, logging.DEBUG),
    NoSuchAttribute: ErrnoRule(errno.ENODATA, logging.DEBUG),
    ReadOnlyTree: ErrnoRule(errno.EROFS, logging.DEBUG),
    Interrupted: ErrnoRule(errno.EINTR, logging.DEBUG),
    CrawlerRefused: ErrnoRule(errno.EACCES, logging.DEBUG),  # it is counted by access.py
    Archived: ErrnoRule(errno.ENODATA, logging.INFO),
    CredentialsRefused: ErrnoRule(errno.EACCES, logging.WARNING),
    CredentialsUnreadable: ErrnoRule(errno.EACCES, logging.WARNING),
    Refused: ErrnoRule(errno.EACCES, logging.WARNING),
    CatalogueError: ErrnoRule(errno.EIO, logging.ERROR),
    JournalError: ErrnoRule(errno.EIO, logging.DEBUG),  # the journal logs it once
    WrongAccount: ErrnoRule(errno.EACCES, logging.DEBUG),  # account.py logs it once
    UnknownAccount: ErrnoRule(errno.EIO, logging.DEBUG),
    Gone: ErrnoRule(errno.ESTALE, logging.WARNING),
    Changed: ErrnoRule(errno.ESTALE, logging.WARNING),
    Unavailable: ErrnoRule(errno.EIO, logging.WARNING),
    Untrusted: ErrnoRule(errno.EIO, logging.WARNING),
    Malformed: ErrnoRule(errno.EIO, logging.WARNING),
    OffsetRefused: ErrnoRule(errno.EIO, logging.WARNING),
    TooLarge: ErrnoRule(errno.EIO, logging.WARNING),
    Corrupt: ErrnoRule(errno.EIO, logging.ERROR),
}

FAULT = ErrnoRule(errno.EIO, logging.ERROR)
"""The rule for any other exception, which is a bug: EIO, and a traceback in the log."""


def errno_for(error: BaseException) -> ErrnoRule:
    """Return the rule for an error, which is that of its nearest base class in the table."""
    for kind in type(error).__mro__:
        if kind in TABLE:
            return TABLE[kind]
    return FAULT
