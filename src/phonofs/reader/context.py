"""What all open objects of a reader share: the service, the limits, the counts."""

import logging
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Protocol

from cachetools import LRUCache

from phonofs.errors import ServiceError
from phonofs.model import Record
from phonofs.ranges import Ranges
from phonofs.reader.limits import Limits
from phonofs.reader.memory import Memory
from phonofs.reader.readahead import ThroughputEstimator
from phonofs.service.client import Client

log = logging.getLogger(__name__)

Key = tuple[str, str, str]

MOST_STALE = 4096
"""How many contents whose ETag changed are remembered: some 200 bytes each."""

MOST_GIVEN = 4096
"""Of how many contents it is remembered what was given of them: some 700 bytes each."""


def content_key(record: Record) -> Key:
    """What a content is remembered by: region, id, fingerprint."""
    return record.region, record.id, record.fingerprint


@dataclass(slots=True)
class Counts:
    """What was done since the start.

    hits / misses     reads that were answered at once / that had to wait
    served_bytes      given to readers
    fetched_bytes     downloaded and kept
    discarded_bytes   downloaded for nothing
    failures          requests that failed, for any reason
    wrong             contents that failed their check
    waiters           reads that wait now
    ahead_files       files fetched by directory read-ahead
    dropped           responses given up before their end, which cost a connection each
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
    dropped: int = 0


class Opened(Protocol):
    """What the context needs of an open object."""

    @property
    def handles(self) -> "set[Any]": ...  # noqa: D102


@dataclass(slots=True)
class ReaderContext:
    """Given to every open object; owned by the reader.

    draw           a random number in [0, 1), for jitter
    spawn          starts a task that belongs to the reader
    on_size        called with inode and size if the real length differs from the known one
    on_wrong       called with the inode whose bytes, as given so far, are not to be trusted
    downloading    the open objects that are being downloaded; each adds and removes itself
    numbers        orders the downloads, whose tasks begin to run in any order
    memory         bounds what all open objects hold in memory
    differing      how many contents of each type do not have the checksum of their record
    accepted       checksums of the contents given all the same (``verify=length``)
    stale          how often each content came under another ETag than before
    given          what was given of each content, also when it was open before: the kernel may have
                   pages of it, though the cache may have lost it
    """

    service: Client
    limits: Limits
    draw: Callable[[], float]
    spawn: Callable[..., Any]
    on_size: Callable[[int, int], None]
    on_wrong: Callable[[int], None]
    memory: Memory
    downloading: set[Opened] = field(default_factory=set)
    numbers: Iterator[int] = field(default_factory=count)
    counts: Counts = field(default_factory=Counts)
    throughputs: dict[str, ThroughputEstimator] = field(default_factory=dict)
    differing: Counter[str] = field(default_factory=Counter)
    accepted: LRUCache[Key, object] = field(default_factory=lambda: LRUCache(MOST_STALE))
    stale: LRUCache[Key, int] = field(default_factory=lambda: LRUCache(MOST_STALE))
    given: OrderedDict[Key, Ranges] = field(default_factory=OrderedDict)

    def given_of(self, key: Key) -> Ranges:
        """Return what was given of a content; forget it of the one that was opened longest ago."""
        given = self.given.get(key)
        if given is not None:
            self.given.move_to_end(key)
            return given
        if len(self.given) >= MOST_GIVEN:
            self.given.popitem(last=False)
        self.given[key] = given = Ranges()
        return given

    def active_handles(self) -> int:
        """How many handles are open of contents that are being downloaded."""
        return sum(len(content.handles) for content in self.downloading)

    def notify(self, callback: Callable[..., None], ino: int, *args: int) -> None:
        """Call back. An error of the callback is logged: the read must not fail because of it."""
        if ino:
            try:
                callback(ino, *args)
            except Exception:
                log.exception("telling of inode %d failed", ino)

    def best_effort(self, record: Record, work: Callable[..., None], *args: object) -> None:
        """Do what nobody waits for. An error is logged: no read must fail because of it."""
        try:
            work(*args)
        except ServiceError as error:
            log.info("object %s: reading ahead failed: %s", record.id, error)
        except Exception:
            log.exception("object %s: a fault of phonofs while reading ahead", record.id)

    def throughput(self, region: str) -> ThroughputEstimator:
        """The measurements of a region."""
        return self.throughputs.setdefault(region, ThroughputEstimator())
