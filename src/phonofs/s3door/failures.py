"""Counts the errors that S3 clients got, and logs those that are a fault of phonofs."""

import logging
from collections import Counter

from phonofs.errors import PhonofsError, unwrap
from phonofs.s3door.errors import S3Error, s3_error

log = logging.getLogger(__name__)


class Failures:
    """Counts errors by their code. The client gets the sentence, so the log has only faults."""

    def __init__(self) -> None:
        self.codes: Counter[str] = Counter()

    def counted(self, error: BaseException) -> S3Error:
        """Count an error; return what the client is told."""
        cause, failure = unwrap(error), s3_error(error)
        self.codes[failure.code] += 1
        if isinstance(cause, MemoryError):
            log.error("a request of an S3 client failed for want of memory")
        elif not isinstance(cause, PhonofsError):
            log.error("a request failed through a fault of phonofs", exc_info=cause)
        else:
            log.debug("%s: %s", failure.code, cause)
        return failure
