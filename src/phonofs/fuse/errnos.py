"""The ONE table from what happened to what the caller and the log are told. Pure."""

import errno
import logging
from dataclasses import dataclass

from phonofs import errors


@dataclass(frozen=True, slots=True)
class ErrnoRule:
    """``errno`` for the caller, ``level`` for the log (a level of :mod:`logging`)."""

    errno: int
    level: int


TABLE: dict[type[errors.PhonofsError], ErrnoRule] = {
    errors.NoSuchName: ErrnoRule(errno.ENOENT, logging.DEBUG),
    errors.StaleInode: ErrnoRule(errno.ESTALE, logging.DEBUG),
    errors.NotAFolder: ErrnoRule(errno.ENOTDIR, logging.DEBUG),
    errors.IsAFolder: ErrnoRule(errno.EISDIR, logging.DEBUG),
    errors.NoSuchAttribute: ErrnoRule(errno.ENODATA, logging.DEBUG),
    errors.ReadOnlyTree: ErrnoRule(errno.EROFS, logging.DEBUG),
    errors.Interrupted: ErrnoRule(errno.EINTR, logging.DEBUG),
    errors.Archived: ErrnoRule(errno.ENODATA, logging.INFO),
    errors.CredentialsRefused: ErrnoRule(errno.EACCES, logging.WARNING),
    errors.CredentialsUnreadable: ErrnoRule(errno.EACCES, logging.WARNING),
    errors.Refused: ErrnoRule(errno.EACCES, logging.WARNING),
    errors.CatalogueError: ErrnoRule(errno.EIO, logging.ERROR),
    errors.WrongAccount: ErrnoRule(errno.EACCES, logging.DEBUG),  # said once, where it is found out
    errors.UnknownAccount: ErrnoRule(errno.EIO, logging.DEBUG),
    errors.Gone: ErrnoRule(errno.ESTALE, logging.WARNING),
    errors.Changed: ErrnoRule(errno.ESTALE, logging.WARNING),
    errors.Unavailable: ErrnoRule(errno.EIO, logging.WARNING),
    errors.Untrusted: ErrnoRule(errno.EIO, logging.WARNING),
    errors.Malformed: ErrnoRule(errno.EIO, logging.WARNING),
    errors.OffsetRefused: ErrnoRule(errno.EIO, logging.WARNING),
    errors.TooLarge: ErrnoRule(errno.EIO, logging.WARNING),
    errors.Corrupt: ErrnoRule(errno.EIO, logging.ERROR),
}

FAULT = ErrnoRule(errno.EIO, logging.ERROR)
"""Anything else is a fault of ours: EIO, and the log gets the traceback."""


def errno_for(error: BaseException) -> ErrnoRule:
    """What to tell of ``error``; the nearest class of the table counts."""
    for kind in type(error).__mro__:
        if kind in TABLE:
            return TABLE[kind]
    return FAULT


def unwrap(error: BaseException) -> BaseException:
    """The error inside an exception group of one branch; the first of several.

    pyfuse3 does not look into groups, so a FUSEError in one would end the mount.
    """
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


class OutageLog:
    """Says once that the service is away, and how much failed when it is back.

    Owns the count. ``failed`` and ``worked`` return the line to log, or None.
    """

    def __init__(self) -> None:
        self._failures = 0

    def failed(self, error: errors.Unavailable) -> str | None:
        """An operation failed for want of the service."""
        self._failures += 1
        if self._failures > 1:
            return None
        return f"{error}; what is cached goes on working, further failures are counted"

    def worked(self) -> str | None:
        """An operation that needed the service went well."""
        failures, self._failures = self._failures, 0
        if not failures:
            return None
        return f"the service answers again; {failures} operations had failed"

    @property
    def failures(self) -> int:
        """Operations that failed in the present outage; 0 when there is none."""
        return self._failures
