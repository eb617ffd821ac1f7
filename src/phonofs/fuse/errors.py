"""Translates our errors to errno: one table, and a decorator that guards the handlers.

Only FUSEError (and trio's Cancelled) may leave a handler; any other exception ends
``pyfuse3.main`` and with it the whole mount.
"""

import errno
import functools
import logging
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, cast

import trio
from pyfuse3 import FUSEError

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
    unwrap,
)
from phonofs.fuse.memory_pressure import MemoryReserve
from phonofs.fuse.outage import OutageLog

log = logging.getLogger(__name__)


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


class ErrorStats:
    """Counts and logs the errors that handlers answer. Owned by Operations.

    errnos         how often each errno was answered, by name
    last_error     the last error of level WARNING or above, '' before the first
    last_error_at  when that was (epoch seconds), None before the first
    outage         the present outage of the service
    reserve        the address space that is given up if memory is short
    """

    def __init__(self) -> None:
        self.errnos: Counter[str] = Counter()
        self.last_error = ""
        self.last_error_at: float | None = None
        self.outage = OutageLog()
        self.reserve = MemoryReserve()

    def answer(self, operation: str, error: BaseException) -> FUSEError:
        """Log and count ``error``; return the FUSEError to raise for it."""
        if isinstance(error, MemoryError):
            self.reserve.give_up()
            log.error("%s failed for want of memory", operation)
            return self._count(FAULT.errno, f"{operation}: no memory")
        if not isinstance(error, PhonofsError):
            log.error("%s failed through a fault of phonofs", operation, exc_info=error)
            return self._count(FAULT.errno, f"{operation}: {type(error).__name__}")
        outcome = errno_for(error)
        if isinstance(error, Unavailable):
            line = self.outage.failed(error)
            if line is not None:
                log.warning("%s: %s", operation, line)
        else:
            log.log(outcome.level, "%s: %s", operation, error)
        noted = f"{operation}: {error}" if outcome.level >= logging.WARNING else ""
        return self._count(outcome.errno, noted)

    def worked(self) -> None:
        """Note that an operation that needed the service succeeded."""
        line = self.outage.worked()
        if line is not None:
            log.warning("%s", line)

    def _count(self, number: int, noted: str) -> FUSEError:
        self.errnos[errno.errorcode.get(number, str(number))] += 1
        if noted:
            self.last_error, self.last_error_at = noted, time.time()
        return FUSEError(number)


class Guarded(Protocol):
    """The attribute that a class with guarded handlers must have."""

    error_stats: ErrorStats


S = TypeVar("S", bound=Guarded)
P = ParamSpec("P")
R = TypeVar("R")


def guarded(
    handler: Callable[Concatenate[S, P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate[S, P], Coroutine[Any, Any, R]]:
    """Let FUSEError and Cancelled pass; translate any other exception to an errno by ``TABLE``."""
    operation = handler.__name__

    @functools.wraps(handler)
    async def inner(self: S, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return await handler(self, *args, **kwargs)
        except (FUSEError, trio.Cancelled):
            raise
        except Exception as error:  # noqa: BLE001 - the purpose of the guard
            cause = unwrap(error)
            if isinstance(cause, FUSEError):
                raise cause from None
            raise _answered(self.error_stats, operation, cause) from None

    return cast(Callable[Concatenate[S, P], Coroutine[Any, Any, R]], inner)


def _answered(error_stats: ErrorStats, operation: str, error: BaseException) -> FUSEError:
    """Return the FUSEError for ``error``, even if there is no memory to log or count it."""
    try:
        return error_stats.answer(operation, error)
    except Exception:  # noqa: BLE001 - an exception that leaves here ends the mount
        return FUSEError(FAULT.errno)


def refused(operation: str) -> Any:
    """Return a handler that answers EROFS, for a request that would change the tree."""

    async def handler(self: Guarded, *args: object, **kwargs: object) -> Any:
        self.error_stats.errnos["EROFS"] += 1
        raise FUSEError(errno.EROFS)

    handler.__name__ = operation
    return handler
