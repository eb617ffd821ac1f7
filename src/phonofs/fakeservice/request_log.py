"""What the stand-in counted, so that a test can assert what was asked of the service."""

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any

from phonofs.ranges import Ranges


@dataclass(frozen=True, slots=True)
class Seen:
    """One request as it arrived. ``headers`` are all of them, names in lower case."""

    origin: str
    kind: str
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    at_s: float


@dataclass(slots=True)
class Sent:
    """What went out of one object: which bytes, and how many of them more than once."""

    ranges: Ranges = field(default_factory=Ranges)
    bytes: int = 0
    requests: int = 0

    @property
    def twice(self) -> int:
        """Bytes that were sent again."""
        return self.bytes - self.ranges.total()

    def add(self, start: int, stop: int) -> None:
        """The bytes ``[start, stop)`` went out."""
        self.ranges.add(start, stop)
        self.bytes += stop - start


@dataclass(slots=True)
class Counters:
    """Owned by the service; tests only read (or call :meth:`clear`).

    requests   by kind
    statuses   answers by status
    sent       by (region, id)
    bytes      content bytes sent in all
    tokens     tokens issued
    active     requests being answered now; ``most_active`` the most there ever were
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
        """A request has arrived."""
        self.requests[request.kind] += 1
        self.seen.append(request)

    def of(self, region: str, id: str) -> Sent:
        """What went out of one object."""
        return self.sent.setdefault((region, id), Sent())

    def add_sent(self, region: str, id: str, start: int, stop: int) -> None:
        """Bytes of an object went out."""
        self.of(region, id).add(start, stop)
        self.bytes += stop - start

    def enter(self) -> None:
        """A request begins."""
        self.active += 1
        self.most_active = max(self.most_active, self.active)

    def leave(self) -> None:
        """A request is over, its body sent or not."""
        self.active -= 1

    def bearers(self, origin: str) -> int:
        """How many of the seen requests brought an Authorization header to this origin."""
        return sum(1 for each in self.seen if each.origin == origin and _carries(each))

    def clear(self) -> None:
        """Count from zero; requests under way stay active."""
        self.requests.clear()
        self.statuses.clear()
        self.sent.clear()
        self.seen.clear()
        self.bytes = self.tokens = 0
        self.most_active = self.active

    def as_json(self) -> dict[str, Any]:
        """The numbers for ``/-/counters``; objects as ``region/id``."""
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
