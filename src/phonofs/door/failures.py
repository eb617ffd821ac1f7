"""Answers errors: an errno's name and a sentence for the client, and what counts as a fault."""

import errno
import logging
from collections import Counter

from phonofs.door import protocol
from phonofs.errnos import FAULT, errno_for
from phonofs.errors import PhonofsError, unwrap

log = logging.getLogger(__name__)

LONGEST = 1000
"""Characters of a sentence: it may repeat a path, which may have a megabyte."""


class RequestError(PhonofsError):
    """A request that cannot be fulfilled, with an errno that only clients of the door get."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.number = number


class Failures:
    """Counts the errors that clients got, by the name of their errno.

    The client gets the sentence, so the log has only what is a fault of phonofs.
    """

    def __init__(self) -> None:
        self.errnos: Counter[str] = Counter()

    def answer(self, operation: str, error: BaseException) -> protocol.Error:
        """Count and, if it is a fault, log ``error``; return what the client is told."""
        cause = unwrap(error)
        if isinstance(cause, MemoryError):
            log.error("%s failed for want of memory", operation)
            return self._counted(FAULT.errno, "there is no memory for this")
        if not isinstance(cause, PhonofsError):
            log.error("%s failed through a fault of phonofs", operation, exc_info=cause)
            return self._counted(FAULT.errno, "phonofs failed through a fault of its own")
        log.debug("%s: %s", operation, cause)
        number = cause.number if isinstance(cause, RequestError) else errno_for(cause).errno
        return self._counted(number, str(cause))

    def _counted(self, number: int, message: str) -> protocol.Error:
        name = errno.errorcode[number]
        self.errnos[name] += 1
        sayable = message[:LONGEST].encode(errors="replace").decode()
        return protocol.Error(name, sayable)
