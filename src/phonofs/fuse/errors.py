"""Answers the errors of handlers: counts and logs them; a decorator that guards the handlers.

Only FUSEError (and trio's Cancelled) may leave a handler; any other exception ends
``pyfuse3.main`` and with it the whole mount.
"""

import errno
import functools
import logging
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, cast

import trio
from pyfuse3 import FUSEError

from phonofs.errnos import FAULT, errno_for
from phonofs.errors import PhonofsError, Unavailable, unwrap
from phonofs.fuse.memory_pressure import MemoryReserve
from phonofs.fuse.outage import OutageLog

log = logging.getLogger(__name__)


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
