"""What all streams of a reader share: the service, the limits, the turns, the counts."""

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cachetools import LRUCache

from phonofs.errors import ServiceError
from phonofs.model import Record
from phonofs.reader.background_limit import BackgroundLimit
from phonofs.reader.limits import Limits
from phonofs.reader.memory import Memory
from phonofs.reader.readahead import ThroughputEstimator
from phonofs.service.client import Client

log = logging.getLogger(__name__)

Key = tuple[str, str, str]

MOST_STALE = 4096
"""Contents remembered whose ETag changed: some 200 bytes each."""


def content_key(record: Record) -> Key:
    """What a content is remembered by: region, id, fingerprint."""
    return record.region, record.id, record.fingerprint


@dataclass(slots=True)
class Counts:
    """What was done since the start.

    hits / misses     reads answered from what was there / that had to wait
    served_bytes      given to readers
    fetched_bytes     received and kept
    discarded_bytes   received for nothing: twice, or found wrong
    failures          tries that failed, of any kind
    wrong             contents that failed their check
    waiters           reads that wait now
    ahead_files       files begun because a neighbour was read
    """

    hits: int = 0
    misses: int = 0
    served_bytes: int = 0
    fetched_bytes: int = 0
    discarded_bytes: int = 0
    failures: int = 0
    wrong: int = 0
    waiters: int = 0
    ahead_files: int = 0


@dataclass(slots=True)
class ReaderContext:
    """Handed to every stream; owned by the reader.

    draw     chance in [0, 1), for jitter
    spawn    starts a task that belongs to the reader
    on_size  called with inode and size where the real length differs from the known one
    on_wrong called with the inode whose bytes, as given so far, are not to be trusted
    sharers  how many handles are read now, of contents that come
    memory   what all of them hold in memory
    differing how many contents of each type do not have the checksum of their record
    accepted what was given all the same (``verify=length``): the sums of its bytes
    stale    how often a content came under another ETag than before, by region, id, fingerprint
    """

    service: Client
    limits: Limits
    background_limit: BackgroundLimit
    draw: Callable[[], float]
    spawn: Callable[..., Any]
    on_size: Callable[[int, int], None]
    on_wrong: Callable[[int], None]
    sharers: Callable[[], int]
    memory: Memory
    counts: Counts = field(default_factory=Counts)
    paces: dict[str, ThroughputEstimator] = field(default_factory=dict)
    differing: Counter[str] = field(default_factory=Counter)
    accepted: LRUCache[Key, object] = field(default_factory=lambda: LRUCache(MOST_STALE))
    stale: LRUCache[Key, int] = field(default_factory=lambda: LRUCache(MOST_STALE))

    def tell(self, callback: Callable[..., None], ino: int, *args: int) -> None:
        """Call back; a fault over there is logged, and no reader's."""
        if ino:
            try:
                callback(ino, *args)
            except Exception:
                log.exception("telling of inode %d failed", ino)

    def beside(self, record: Record, work: Callable[..., None], *args: object) -> None:
        """Do what nobody waits for: where it fails, no reader whose bytes are there hears of it."""
        try:
            work(*args)
        except ServiceError as error:
            log.info("object %s: reading ahead failed: %s", record.id, error)
        except Exception:
            log.exception("object %s: a fault of phonofs while reading ahead", record.id)

    def pace(self, region: str) -> ThroughputEstimator:
        """The measurements of a region."""
        return self.paces.setdefault(region, ThroughputEstimator())
