"""The bytes of one object in one place, a file on disk or memory, and what they cost there."""

from collections.abc import Callable

from phonofs.cache.blocks import page_ceil, page_floor
from phonofs.cache.shelf import Content
from phonofs.ranges import Ranges

Spread = Callable[[int, int], tuple[int, int]]


class Counters:
    """Bytes in and out since the start, for statistics. Owner: the cache."""

    def __init__(self) -> None:
        self.read_bytes = 0
        self.written_bytes = 0
        self.lost_bytes = 0
        self.refused_bytes = 0


class Holding:
    """Which bytes of an object lie in one place. Owner: the blob.

    content   the open file, or None while it is closed
    held      the bytes that were written there, whether or not they were checked
    charge    bytes it costs, in whole pages

    Invariants: ``held`` lies within the pages charged for; a page is charged for once.
    """

    __slots__ = ("_pages", "_spread", "charge", "content", "held")

    def __init__(
        self,
        content: Content | None,
        held: Ranges | None = None,
        charge: int = 0,
        spread: Spread = Content.spread,
    ) -> None:
        """``spread``: where bytes lie in the file, if ``content`` is not there to say it."""
        self.content = content
        self.held = held or Ranges()
        self._spread = content.spread if content is not None else spread
        self._pages = Ranges(self._pages_of(a, b) for a, b in self.held)
        self.charge = max(charge, self._pages.total())

    def cost(self, start: int, stop: int) -> int:
        """Bytes that writing ``[start, stop)`` would charge for."""
        gaps = self._pages.missing(*self._pages_of(start, stop))
        return sum(b - a for a, b in gaps)

    def charge_for(self, start: int, stop: int, cost: int) -> None:
        """``[start, stop)`` is going to be written, at the cost :meth:`cost` said."""
        self._pages.add(*self._pages_of(start, stop))
        self.charge += cost

    def _pages_of(self, start: int, stop: int) -> tuple[int, int]:
        """The pages of the file that these bytes may take."""
        first, last = self._spread(start, stop)
        return page_floor(first), page_ceil(last)

    def drop(self, start: int, stop: int) -> int:
        """Forget ``[start, stop)``; the bytes no longer charged for, because they were freed."""
        self.held.remove(start, stop)
        first, last = page_ceil(start), page_floor(stop)
        if self.content is None or first >= last or not self.content.writable:
            return 0
        freed = last - first - sum(b - a for a, b in self._pages.missing(first, last))
        if not freed or not self.content.punch(first, last):
            return 0
        self._pages.remove(first, last)
        self.charge -= freed
        return freed

    def release(self) -> int:
        """Nothing of it is charged for any more; the bytes that were, so that they are given back
        once however often this is asked.
        """
        charge, self.charge = self.charge, 0
        self._pages = Ranges()
        return charge

    def close(self) -> None:
        """Close the file; what is held stays known."""
        if self.content is not None:
            self.content.close()
            self.content = None


class View:
    """Some bytes of an object across the places they lie in, for a thread to read.

    ``parts`` are ``(start, stop, content)``, in order and without gaps.
    """

    __slots__ = ("_parts",)

    def __init__(self, parts: list[tuple[int, int, Content]]) -> None:
        self._parts = parts

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Fill ``buffer`` from ``offset`` on; how many bytes there were."""
        done = 0
        for start, stop, content in self._parts:
            at = offset + done
            if start <= at < stop and done < len(buffer):
                want = min(stop - at, len(buffer) - done)
                got = content.read_into(at, buffer[done : done + want])
                done += got
                if got < want:
                    break
        return done

    def read(self, start: int, stop: int) -> bytes | None:
        """The bytes ``[start, stop)``, or None where they are not all there."""
        for first, last, content in self._parts:
            if first <= start and stop <= last:
                data = content.read(start, stop - start)
                return data if len(data) == stop - start else None
        buffer = bytearray(stop - start)
        whole = self.read_into(start, memoryview(buffer)) == len(buffer)
        return bytes(buffer) if whole else None
