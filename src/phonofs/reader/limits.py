"""The numbers of reading, each with its reason. Pure."""

from dataclasses import dataclass

KIB = 1024
MIB = 1024 * KIB

SMALL = 4 * MIB
"""Objects up to this size come whole, in one request: at 50 ms latency and 40 MB/s a second
request costs as much as 2 MiB more in the first, and most recordings are below."""

CHECKED_FIRST = 64 * MIB
"""Objects up to this size are checked before the bytes that complete them are given."""

SLACK = 1 * MIB
"""A read this near the expected offset is still sequential: the kernel reads up to 1 MiB ahead
with several requests in flight, which may change places."""

INITIAL_READAHEAD = 384 * KIB
"""What the first request after a seek brings beyond what was asked for: with the kernel's
128 KiB it makes 512 KiB, 13 ms at 40 MB/s, so that whoever reads on finds the next blocks."""

LEAST_AHEAD = 512 * KIB
LEAST_PART = 256 * KIB
MOST_AHEAD = 64 * MIB
MOST_PART = 8 * MIB
"""At 50 ms, 16 parts of 8 MiB side by side made 421 MB/s, of 4 MiB 358; larger ones only make
readers further back wait."""

MOST_PARALLEL = 8
LINGER_S = 5.0
"""A player that closes and opens again within this time finds its stream."""

MOST_LINGERING = 64
"""Closed streams that wait to be opened again; beyond it the oldest goes at once."""

RUN_OUT = 256 * KIB
"""A part with no more than this to come is not cancelled: a new connection costs more."""

QUIET_S = 1.0
"""After read-ahead failed, nothing is read ahead for this long; what is waited for still is."""

PATIENCE_S = 5.0
"""A whole stream nobody reads on from holds its connection this long, then ends."""

MOST_CHANGES = 2
"""So often a content may come under another ETag, with its record unchanged, until ETags are not
asked for any more, and its checksum decides."""

BACKOFF_S = 0.1
MOST_BACKOFF_S = 5.0
MALFORMED_TRIES = 4
"""Answers that cannot be used, one after another, until a reader is told; one more than the
client takes to see that a region no longer honours ranges."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What reading may use.

    read_deadline_s  the longest any read waits
    cache_bytes      size of the cache on disk; 0: none
    memory_bytes     what all open files hold that are not on disk, besides what reads wait for
    connections      to the service, all in all; read-ahead leaves two of them free
    verify           ``checksum``, or ``length``: a content with another checksum is given where
                     its length is right and two fetches of it agree
    """

    read_deadline_s: float = 60.0
    cache_bytes: int = 10 * 1024 * MIB
    memory_bytes: int = 32 * MIB
    connections: int = 16
    verify: str = "checksum"

    @property
    def background_limit(self) -> int:
        """How many requests nobody waits for may be under way."""
        return max(1, self.connections - 2)

    def most_ahead(self, in_memory: bool, sharers: int) -> int:
        """The largest window in bytes, where ``sharers`` streams are being read."""
        if in_memory:
            return max(LEAST_AHEAD, self.memory_bytes // (2 * max(1, sharers)))
        return max(LEAST_AHEAD, min(MOST_AHEAD, self.cache_bytes // 4))


def backoff_s(failures: int, draw: float) -> float:
    """The pause after so many failures in a row; ``draw`` in [0, 1) spreads it over half."""
    longest: float = min(MOST_BACKOFF_S, BACKOFF_S * 2 ** min(failures - 1, 16))
    return longest * (0.5 + draw / 2)
