"""Counts the requests and the bytes sent, so that a test can assert what phonofs requested."""

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any

from phonofs.ranges import Ranges


@dataclass(frozen=True, slots=True)
class Seen:
    """One request as it arrived. ``headers`` has all header fields, names in lower case."""

    origin: str
    kind: str
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    at_s: float


@dataclass(slots=True)
class Sent:
    """What was sent of one object: the ranges, the number of bytes, the number of requests."""

    ranges: Ranges = field(default_factory=Ranges)
    bytes: int = 0
    requests: int = 0

    @property
    def twice(self) -> int:
        """The number of bytes sent again after they had been sent once."""
        return self.bytes - self.ranges.total()

    def add(self, start: int, stop: int) -> None:
        """Record that the bytes ``[start, stop)`` were sent."""
        self.ranges.add(start, stop)
        self.bytes += stop - start


@dataclass(slots=True)
class Counters:
    """What the service counts. Owned by the service; tests only read it, or :meth:`clear` it.

    requests   by kind
    statuses   answers by status
    sent       by (region, id)
    bytes      content bytes sent in all
    tokens     tokens issued
    active     requests being answered now; ``most_active`` is the highest number so far
    seen       the last 20,000 requests
    """

    requests: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    sent: dict[tuple[str, str], Sent] = field(default_factory=dict)
    bytes: int = 0
    tokens: int = 0
    active: int = 0
    most_active: int = 0
    seen: deque[Seen] = field(default_factory=lambda: deque(maxlen=20_000))

    def add(self, request: Seen) -> None:
        """Record a request that has arrived."""
        self.requests[request.kind] += 1
        self.seen.append(request)

    def of(self, region: str, id: str) -> Sent:
        """Return what was sent of one object."""
        return self.sent.setdefault((region, id), Sent())

    def add_sent(self, region: str, id: str, start: int, stop: int) -> None:
        """Record that bytes of an object were sent."""
        self.of(region, id).add(start, stop)
        self.bytes += stop - start

    def enter(self) -> None:
        """Count a request that begins."""
        self.active += 1
        self.most_active = max(self.most_active, self.active)

    def leave(self) -> None:
        """Count a request that has ended, whether or not its body was sent."""
        self.active -= 1

    def bearers(self, origin: str) -> int:
        """Count the recorded requests to this origin that had an Authorization header."""
        return sum(1 for each in self.seen if each.origin == origin and _carries(each))

    def clear(self) -> None:
        """Reset all counts; requests in progress stay active."""
        self.requests.clear()
        self.statuses.clear()
        self.sent.clear()
        self.seen.clear()
        self.bytes = self.tokens = 0
        self.most_active = self.active

    def as_json(self) -> dict[str, Any]:
        """Return the counts for ``/-/counters``; objects are named ``region/id``."""
        return {
            "requests": dict(self.requests),
            "statuses": {str(status): count for status, count in self.statuses.items()},
            "bytes": self.bytes,
            "tokens": self.tokens,
            "active": self.active,
            "most_active": self.most_active,
            "bearers": {origin: self.bearers(origin) for origin in ("api", "store")},
            "sent": {
                f"{region}/{id}": {
                    "bytes": each.bytes,
                    "twice": each.twice,
                    "requests": each.requests,
                    "ranges": list(each.ranges),
                }
                for (region, id), each in self.sent.items()
            },
        }


def _carries(seen: Seen) -> bool:
    return "authorization" in seen.headers
