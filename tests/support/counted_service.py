"""The fake service, which counts what was asked of it and what it sent."""

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any

from phonofs.fakeservice import service
from phonofs.fakeservice.account import Item
from phonofs.fakeservice.options import Options
from phonofs.fakeservice.responses import Answer, Request
from phonofs.fakeservice.routes import routed
from phonofs.fakeservice.tokens import Tokens
from phonofs.ranges import Ranges


@dataclass(slots=True)
class Sent:
    """What was sent of one object: the ranges, and the number of bytes."""

    ranges: Ranges = field(default_factory=Ranges)
    bytes: int = 0

    @property
    def twice(self) -> int:
        """The number of bytes sent again after they had been sent once."""
        return self.bytes - self.ranges.total()


class Counters:
    """What the service counts.

    requests   by kind
    statuses   answers by status
    sent       by (region, id)
    bytes      content bytes sent in all
    tokens     tokens issued
    seen       the last 20,000 requests
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Reset all counts."""
        self.requests: Counter[str] = Counter()
        self.statuses: Counter[int] = Counter()
        self.sent: dict[tuple[str, str], Sent] = {}
        self.bytes = self.tokens = 0
        self.seen: deque[Request] = deque(maxlen=20_000)

    def of(self, region: str, id: str) -> Sent:
        """Return what was sent of one object."""
        return self.sent.setdefault((region, id), Sent())

    def bearers(self, origin: str) -> int:
        """Count the recorded requests to this origin that had an Authorization header."""
        return sum(each.origin == origin and "authorization" in each.headers for each in self.seen)


class Service(service.Service):
    """The fake service with ``counters``."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.counters = Counters()
        self.tokens = _CountedTokens(self.counters)

    async def answer(self, request: Request) -> Answer:
        """Answer and count the request."""
        asked = routed(request)
        self.counters.requests[asked.kind] += 1
        self.counters.seen.append(asked)
        answer = await super().answer(request)
        self.counters.statuses[answer.status] += 1
        return answer

    def sent(self, item: Item, start: int, stop: int) -> None:
        """Count the bytes of an object that were sent."""
        counted = self.counters.of(item.region, item.id)
        counted.ranges.add(start, stop)
        counted.bytes += stop - start
        self.counters.bytes += stop - start


class _CountedTokens(Tokens):
    def __init__(self, counters: Counters) -> None:
        super().__init__()
        self._counters = counters

    def answer(self, request: Request, options: Options, now_ms: int) -> Answer:
        answer = super().answer(request, options, now_ms)
        self._counters.tokens += answer.status == 200
        return answer
