"""The constants of the reader, each with its reason. Pure."""

from dataclasses import dataclass

from phonofs.errors import Malformed, Unavailable, Untrusted

KIB = 1024
MIB = 1024 * KIB

SMALL = 4 * MIB
"""Objects up to this size are requested as a whole: at 50 ms latency and 40 MB/s a second request
costs as much as 2 MiB more in the first, and most recordings are smaller."""

CHECKED_FIRST = 64 * MIB
"""Objects up to this size are verified before the bytes that complete them are given."""

SLACK = 1 * MIB
"""A read this near the expected offset is still sequential: the kernel reads up to 1 MiB ahead
with several requests in flight, which may change places."""

INITIAL_READAHEAD = 384 * KIB
"""Extra bytes requested after a seek: with the kernel's 128 KiB they make 512 KiB, 13 ms at
40 MB/s, so that a reader that goes on finds the next blocks."""

HEADER = 2 * MIB
"""Who reads less from an object's start may only want its header. Until then ``LEAST_AHEAD`` is
received ahead: with what the kernel reads by itself less than 1 MiB."""

LEAST_AHEAD = 768 * KIB
FIRST_OF_EACH = 112 * KIB
"""Received ahead over each of eight connections before more was read than the kernel reads by
itself: less than 1 MiB over all of them."""

LEAST_PART = 256 * KIB
MOST_AHEAD = 64 * MIB
AHEAD_OF_MANY = 4 * MIB
"""The largest window while there is but one connection for each handle. A larger one would have
this process receive what one reader wants later, before what others wait for. Not if there is less
than one: then who has one had better be done with it."""

MOST_PART = 8 * MIB
"""At 50 ms, 16 parallel downloads of 8 MiB made 421 MB/s, of 4 MiB 358 MB/s; larger ones only
make readers further back wait."""

MOST_PARALLEL = 8
MOST_STARTING = 14
"""Connections for a file that is read on over a line where each starts slowly: 8 bring 32 MiB in 9
round trips, 10 to 18 in 8. Over 14, more comes before the last of them, and is hashed by then."""

FIRST_WINDOW = 14_000
"""What a new connection brings in its first round trip, ten segments (RFC 6928, 2); twice as much
in each further one while it starts."""

LINGER_S = 5.0
"""A player that closes a file and opens it again within this time finds its downloads."""

MOST_LINGERING = 64
"""Closed objects kept in case they are opened again; beyond it the oldest goes at once."""

RUN_OUT = 512 * KIB
"""A download that lacks no more than this is not given up: a new connection costs more."""

TURN_S = 1.0
"""A download that was received for this long is given up if a reader waits for a connection."""

WORTH_CUTTING = 2 * MOST_PART
"""A response is cut for others to follow only if they bring more than this: what is in its socket
by then comes twice."""

QUIET_S = 1.0
"""After a failed download, nothing is read ahead for this long; reads still start downloads."""

PATIENCE_S = 5.0
"""A download that nobody reads on from keeps its connection this long, then ends."""

LONG_PATIENCE_S = 20.0
"""The same while a reader is near: one that plays a recording takes a block every few seconds.
Object stores close a connection that takes nothing for longer."""

MOST_CHANGES = 2
"""How often a content may come under another ETag, with its record unchanged, before its ETags are
ignored and its checksum decides."""

BACKOFF_S = 0.1
MOST_BACKOFF_S = 5.0
MALFORMED_TRIES = 4
"""Unusable responses in a row before the read fails; one more than the client needs to see that a
region no longer honours ranges."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What reading may use.

    read_deadline_s  the longest time a read waits
    cache_bytes      size of the cache on disk; 0: none
    memory_bytes     what all open files without a disk cache hold, besides what reads wait for
    connections      to the service in total; read-ahead leaves two of them free
    verify           ``checksum``, or ``length``: a content with another checksum is given if
                     its length is right and two fetches of it agree
    """

    read_deadline_s: float = 60.0
    cache_bytes: int = 10 * 1024 * MIB
    memory_bytes: int = 32 * MIB
    connections: int = 16
    verify: str = "checksum"

    @property
    def background(self) -> int:
        """How many downloads nobody waits for run at a time."""
        return max(1, self.connections - 2)

    def most_ahead(self, in_memory: bool, active_handles: int) -> int:
        """The largest window in bytes while ``active_handles`` handles are being read."""
        if in_memory:
            return max(LEAST_AHEAD, self.memory_bytes // (2 * max(1, active_handles)))
        one_for_each = self.background // 2 < active_handles <= self.connections
        most = AHEAD_OF_MANY if one_for_each and active_handles > 1 else MOST_AHEAD
        return max(LEAST_AHEAD, min(most, self.cache_bytes // 4))


def backoff_s(error: Unavailable | Malformed, failures: int, draw: float) -> float | None:
    """The pause after ``failures`` in a row, the last one ``error``; None if a retry is pointless.

    At least as long as the service asked for; ``draw`` in [0, 1) spreads it over half of it.
    """
    if isinstance(error, Untrusted):
        return None
    longest: float = min(MOST_BACKOFF_S, BACKOFF_S * 2 ** min(failures - 1, 16))
    pause_s = longest * (0.5 + draw / 2)
    if isinstance(error, Malformed):
        return pause_s if failures < MALFORMED_TRIES else None
    return max(pause_s, error.retry_after_s or 0.0)
