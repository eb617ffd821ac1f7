"""Files brought ahead, kept until somebody opens them or nobody came for a while."""

from collections.abc import Callable
from math import inf

from phonofs.model import Record
from phonofs.reader.directory_readahead import weight
from phonofs.reader.open_object import OpenObject

HOLD_S = 20.0
"""A reader that takes longer over the files before it finds the file in the cache on disk, if
it was not evicted; what is held in memory must not stay for longer."""


class PrefetchedFiles:
    """Owns the streams that are kept for a reader expected soon, and until when.

    Invariant: each stream here has one of its ``holds`` from here, and the bytes they were
    begun with are at most ``most_bytes`` together.
    """

    def __init__(
        self,
        stream: Callable[[Record, int], OpenObject],
        idle: Callable[[OpenObject], None],
        most_bytes: int,
    ) -> None:
        self._stream = stream
        self._idle = idle
        self._most_bytes = most_bytes
        self._held: dict[OpenObject, tuple[float, int]] = {}
        self._bytes = 0

    def bring(self, record: Record, ino: int, now: float) -> bool:
        """Begin to fetch a file nobody has open, unless that were too much; whether it was."""
        size = weight(record)
        if self._bytes + size > self._most_bytes:
            return False
        stream = self._stream(record, ino)
        stream.prefetch_holds += 1
        self._held[stream] = now + HOLD_S, size
        self._bytes += size
        stream.prefetch(size)
        if not stream.busy:
            self._let_go(stream)  # it was there already
        return True

    def drop(self, stream: OpenObject) -> None:
        """Somebody opened it: the hold is over."""
        held = self._held.pop(stream, None)
        if held is not None:
            self._bytes -= held[1]
            stream.prefetch_holds -= 1

    def expire(self, now: float) -> float:
        """Let go of what nobody came for; the time the next one is due, or infinity."""
        for stream in [stream for stream, (until, _) in self._held.items() if until <= now]:
            self._let_go(stream)
        return min((until for until, _ in self._held.values()), default=inf)

    def _let_go(self, stream: OpenObject) -> None:
        self.drop(stream)
        self._idle(stream)

    def statistics(self) -> dict[str, int]:
        """How many files are held and how many bytes they were begun with."""
        return {"held": len(self._held), "held_bytes": self._bytes}
