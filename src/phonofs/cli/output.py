"""Standard output of the commands: what it cannot take is an error in one sentence."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from phonofs.errors import PhonofsError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

OUTPUT = 1
"""The descriptor of standard output."""


class OutputFailed(PhonofsError):
    """Standard output takes no more, such as a file on a full disk."""


class _Output(io.BufferedWriter):
    """The buffer of the descriptor. A pipe that nobody reads stays a BrokenPipeError.

    Not the descriptor itself: if Ctrl-C came in a ``write`` of ours that has written, the buffer
    would write the same again.
    """

    def write(self, data: "ReadableBuffer", /) -> int:
        """Write bytes. Raises OutputFailed, BrokenPipeError."""
        with _named():
            return super().write(data)

    def flush(self) -> None:
        """Write what is left. Raises OutputFailed, BrokenPipeError."""
        with _named():
            super().flush()


@contextmanager
def _named() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputFailed(f"the output cannot be written: {error.strerror}") from None


def name_failures() -> None:
    """Have errors of standard output tell that they are; leave alone what a caller put there."""
    stream = sys.stdout
    if stream is not sys.__stdout__ or not isinstance(stream, io.TextIOWrapper):
        return
    sys.stdout = io.TextIOWrapper(
        _Output(io.FileIO(OUTPUT, "w", closefd=False)),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def drop_output() -> None:
    """Drop what could not be written, or Python would try again when it ends, and complain."""
    with suppress(OSError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, OUTPUT)
        os.close(null)
