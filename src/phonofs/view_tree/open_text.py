"""A text that is open, and one that is being made. Used by ``text_files``, which owns them."""

import trio

from phonofs.errors import Gone, PhonofsError
from phonofs.texts import render
from phonofs.views.calls import hash_of
from phonofs.views.names import Manifest, Text

Made = Text | Manifest
"""What is made here: a text of contents, or a list of records."""


class OpenText:
    """A text that a process has open, with its bytes.

    withdrawn    whether what it was made of has gone or changed: then it gives no more bytes
    given_bytes  how many bytes it gave; those that it gave twice count twice
    """

    def __init__(self, text: Made, content: bytes) -> None:
        self.text = text
        self.content = content
        self.withdrawn = False
        self.given_bytes = 0

    @property
    def fingerprint(self) -> str:
        """Identifies the bytes: of what, how, and how many were made."""
        return fingerprint_of(self.text, len(self.content))

    def withdraw(self) -> None:
        """Give no more bytes."""
        self.withdrawn = True

    def read(self, offset: int, size: int) -> bytes:
        """Return exactly ``min(size, length - offset)`` bytes. Raises Gone."""
        if self.withdrawn:
            raise Gone("what this text was made of was taken away or changed; open it again")
        given = self.content[offset : offset + size]
        self.given_bytes += len(given)
        return given


class Making:
    """A text that is being made, for all who wait for it.

    outdated  whether what it is made of has gone or changed meanwhile
    """

    def __init__(self, text: Made) -> None:
        self.text = text
        self.outdated = False
        self.over = trio.Event()
        self.content: bytes | None = None
        self.error: PhonofsError | None = None

    def outdate(self) -> None:
        """Give the text to nobody."""
        self.outdated = True

    def end(self, content: bytes | None, error: PhonofsError | None) -> None:
        """Let those who wait have the text, None for none, or the error."""
        self.content, self.error = content, error
        self.over.set()


def version_of(text: Made) -> int:
    """Return what identifies of what a text is made, and how."""
    return hash_of(render.VERSION, text.version)


def fingerprint_of(text: Made, size: int) -> str:
    """Return what identifies the content of a text of this size."""
    return f"{version_of(text)}-{size}"
