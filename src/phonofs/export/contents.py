"""Where an export gets content from, and why it cannot.

A mount and a session implement :class:`Contents`. Its methods are called by several threads.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple, Protocol


class Reason(StrEnum):
    """Why an object is missing."""

    ARCHIVED = "archived"
    REFUSED = "refused"
    WITHDRAWN = "withdrawn"
    CHANGED = "changed"
    LENGTH = "wrong length"
    CHECKSUM = "wrong checksum"
    UNAVAILABLE = "unavailable"
    UNWRITABLE = "cannot be written"
    UNKNOWN = "not known"


LASTING = frozenset({Reason.ARCHIVED, Reason.WITHDRAWN, Reason.UNWRITABLE})
"""Reasons for which another try in the same run brings nothing."""


class NotCopied(Exception):
    """An object could not be copied; the message says why in other words than the reason."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class OpenContent(Protocol):
    """An open file."""

    @property
    def size(self) -> int:
        """How many bytes it has, as is known now: of some objects that shows when they are read.

        Raises NotCopied.
        """

    @property
    def mtime_ns(self) -> int:
        """Its time. Raises NotCopied."""

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """Read from an offset; return how many bytes were read, 0 at the end. Raises NotCopied."""

    def close(self) -> None:
        """Close it."""


class TextName(NamedTuple):
    """A text of a day, such as the views show it.

    name      in its folder
    of        the name, in the date tree, of the file that it is a text of; '' if it has none
    """

    name: str
    of: str


class Contents(Protocol):
    """Opens the objects and texts of an account, by their paths in the date tree."""

    def open(self, path: str) -> OpenContent:
        """Open the file of an object. Raises NotCopied."""

    def texts(self, day: str) -> Sequence[TextName]:
        """Return the texts of the calls of a day. Raises NotCopied."""

    def made_from(self, day: str, name: str) -> Sequence[str]:
        """Return the ids of the objects that a text is made from. Raises NotCopied."""

    def text_status(self, day: str, name: str) -> tuple[int, int] | None:
        """Return size and time (ns) of a text; None if there is none. Raises NotCopied."""

    def open_text(self, day: str, name: str) -> OpenContent:
        """Open a text. Raises NotCopied."""
