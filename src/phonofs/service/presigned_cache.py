"""URLs outside the service that stand for an object's content, reused while they live."""

from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

MOST_LINKS = 4096
"""About 1 KB each."""

Key = tuple[str, str, str]
"""Region, id and what stands for the content."""


@dataclass(frozen=True, slots=True)
class PresignedUrl:
    """A URL that may be used until ``until`` (trio's clock)."""

    url: str = field(repr=False)
    until: float


class PresignedUrlCache:
    """The links of objects, at most :data:`MOST_LINKS`, the least recently used go first.

    Owns them, and for each object whose link is being asked for, a lock: only one asks.
    """

    def __init__(self) -> None:
        self._links: OrderedDict[Key, PresignedUrl] = OrderedDict()
        self._locks: dict[Key, trio.Lock] = {}

    def get(self, key: Key) -> PresignedUrl | None:
        """The link of an object, if there is one that lives."""
        link = self._links.get(key)
        if link is not None and trio.current_time() >= link.until:
            del self._links[key]
            return None
        if link is not None:
            self._links.move_to_end(key)
        return link

    def put(self, key: Key, link: PresignedUrl) -> None:
        """Remember a link."""
        self._links[key] = link
        self._links.move_to_end(key)
        while len(self._links) > MOST_LINKS:
            self._links.popitem(last=False)

    def drop(self, key: Key, link: PresignedUrl) -> None:
        """Forget a link that is no longer accepted, unless another took its place."""
        if self._links.get(key) is link:
            del self._links[key]

    @asynccontextmanager
    async def turn(self, key: Key) -> AsyncIterator[None]:
        """One at a time for each object."""
        lock = self._locks.setdefault(key, trio.Lock())
        async with lock:
            try:
                yield
            finally:
                if not lock.statistics().tasks_waiting:
                    self._locks.pop(key, None)
