"""What the reader needs of the rooms below: a service that gives content, a cache that keeps it.

Protocols only, so that tests put small fakes in their place.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from phonofs.model import Record
from phonofs.priority import Priority
from phonofs.ranges import Ranges

Chunk = bytes | bytearray | memoryview
"""Bytes of a body; valid only until the next one is asked for."""


class Body(Protocol):
    """Content on its way.

    start   offset of the first byte that comes; 0 where only whole streams are to be had
    stop    offset after the last promised byte, or None
    total   the object's whole length where the service said it
    etag    the version given, '' where unknown
    sent_at when the request was sent (trio's clock), after all waiting for leave to send it
    framed  whether its end shows; otherwise only the connection's end ends it, maybe early
    Ends early with :class:`~phonofs.errors.Unavailable`.
    """

    @property
    def start(self) -> int: ...  # noqa: D102
    @property
    def stop(self) -> int | None: ...  # noqa: D102
    @property
    def total(self) -> int | None: ...  # noqa: D102
    @property
    def etag(self) -> str: ...  # noqa: D102
    @property
    def sent_at(self) -> float: ...  # noqa: D102
    @property
    def framed(self) -> bool: ...  # noqa: D102
    def __aiter__(self) -> AsyncIterator[Chunk]: ...


class ContentService(Protocol):
    """Gives bytes of objects: one try a call, errors of :mod:`phonofs.errors`."""

    def content(
        self,
        record: Record,
        start: int,
        stop: int | None,
        *,
        urgent: bool | Priority,
        etag: str | None = None,
    ) -> AbstractAsyncContextManager[Body]:
        """The bytes ``[start, stop)``; ``urgent`` while a reader waits for them."""
        ...

    def whole_content(
        self, record: Record, *, urgent: bool | Priority
    ) -> AbstractAsyncContextManager[Body]:
        """All of an object, asked for without a range."""
        ...

    def seekable(self, region: str) -> bool | None:
        """Whether parts can be asked for in this region; None while that is not known."""
        ...


class Blob(Protocol):
    """The bytes of one object as far as they are here."""

    @property
    def size(self) -> int: ...  # noqa: D102
    @property
    def present(self) -> Ranges: ...  # noqa: D102
    @property
    def complete(self) -> bool: ...  # noqa: D102
    @property
    def verified(self) -> bool: ...  # noqa: D102
    @property
    def in_memory(self) -> bool: ...  # noqa: D102

    @property
    def memory_bytes(self) -> int:
        """What it takes in memory."""
        ...

    def write(self, offset: int, data: Chunk) -> None:
        """Put bytes in; they are ``present`` afterwards."""

    def read_now(self, offset: int, n: int) -> bytes | None:
        """The bytes, where that does not block; else None."""
        ...

    def lend_now(self, offset: int, n: int) -> bytes | memoryview | None:
        """The same; a view holds until bytes are lent again, by whatever blob."""
        ...

    async def read(self, offset: int, n: int) -> bytes | None:
        """The bytes, or None where they turned out not to be there (any more)."""
        ...

    def keep(self, ranges: Ranges) -> None:
        """Of bytes in memory all but these may be dropped."""

    def check_now(self) -> bool:
        """True where it is quickly found that the content is right; else :meth:`check` says."""
        ...

    async def check_ahead(self) -> None:
        """Hash what is there from the start on, so that the check has less left to do."""

    async def check(self) -> bool:
        """Whether the complete content is right; then ``verified`` is true."""
        ...

    def accept(self) -> None:
        """Take the complete content for right in this run, whatever its checksum."""

    async def check_parts(self) -> bool:
        """Whether the complete content has its multipart checksum; False says nothing."""
        ...

    def reset(self) -> None:
        """Forget every byte."""

    def resize(self, n: int) -> None:
        """The real length of the object, in bytes."""


class Cache(Protocol):
    """Keeps blobs; one that was given out stays until it is released."""

    def blob(self, record: Record) -> Blob:
        """The bytes of this object, pinned."""
        ...

    def release(self, blob: Any) -> None:
        """Give a blob back, one of this cache's."""


class Siblings(Protocol):
    """Which files stand after another in its folder."""

    def __call__(self, ino: int, n: int, *, by_inode: bool = False) -> Sequence[tuple[int, Record]]:
        """At most ``n`` readable files after ``ino``, by name or by inode; cheap.

        Raises Unavailable where the catalogue cannot be read.
        """
        ...
