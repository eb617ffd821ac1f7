"""An account of a million objects that are computed, not kept: for measuring scale. Pure.

Object ``i`` of ``count`` is made when it is asked for; a search by creation or change time is
arithmetic, so a page costs the same wherever it lies. Objects that are added or changed lie in
memory beside them.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from functools import cache

from phonofs.demo.sample_data import AGENTS, CALLERS, QUEUES
from phonofs.fakeservice.account import CUSTOMER, Item, Json, ListedAccount, Sort, sort_key
from phonofs.fakeservice.content import PRIME, RAMP, Content
from phonofs.fakeservice.fiql import (
    FALSE,
    TIME_FIELDS,
    Comparison,
    Every,
    Expression,
    Fields,
    given,
    matches,
    span,
)

DAY_MS = 86_400_000
LATER_MS = 4000
"""From creation to ``updatedTime``."""
KINDS = (
    ("callcenterrecording", "audio/mpeg", ".mp3", 120_011),
    ("transcription", "application/json", ".json", 2_062),
    ("callrecording", "audio/mpeg", ".mp3", 61_484),
    ("agentnotes", "text/plain", ".agentnotes", 211),
    ("callcenterrecording", "audio/mpeg", ".mp3", 39_989),
    ("sentimentScore", "application/json", ".json", 2_732),
    ("voicemail", "audio/mpeg", ".mp3", 20_011),
    ("summary", "application/json", ".json", 571),
)
"""Type, MIME type, extension and size, in turn."""
PERIOD = len(KINDS)
LINEAR_KEPT = 8
"""Results of searches that could not be computed, kept for their next pages."""


@dataclass(frozen=True, slots=True)
class Picked(Sequence[int]):
    """The numbers of ``[start, stop)`` whose remainder modulo PERIOD is in ``rests`` (sorted)."""

    start: int
    stop: int
    rests: tuple[int, ...]

    def rank(self, number: int) -> int:
        """How many of these are below ``number``."""
        number = min(max(number, self.start), self.stop)
        return self._below(number) - self._below(self.start)

    def _below(self, number: int) -> int:
        """How many numbers from 0 to below ``number`` have such a remainder."""
        turns, rest = divmod(number, PERIOD)
        return turns * len(self.rests) + bisect_left(self.rests, rest)

    def __len__(self) -> int:
        return self.rank(self.stop)

    def __getitem__(self, place: int) -> int:  # type: ignore[override]
        turns, rest = divmod(place + self._below(self.start), len(self.rests))
        return turns * PERIOD + self.rests[rest]


class Listed(list[int]):
    """Numbers picked one by one, ascending; with the interface of :class:`Picked`."""

    def rank(self, number: int) -> int:
        """How many of these are below ``number``."""
        return bisect_left(self, number)


class EndlessAccount:
    """``count`` objects spread evenly over ``days`` days from ``first`` on (UTC), one region.

    Owns the changes. Invariant: ``_hidden`` (ascending) are the numbers of the objects that lie
    changed in ``_changed``.
    """

    def __init__(
        self,
        count: int,
        first: date,
        days: int,
        *,
        size: int | None = None,
        region: str = "us-east",
    ) -> None:
        self._count = count
        self._start_ms = int(datetime.combine(first, time(), UTC).timestamp() * 1000)
        self._span_ms = days * DAY_MS
        self._size = size
        self._region = region
        self._changed = ListedAccount((), (region,))
        self._hidden: list[int] = []
        self._linear: dict[Expression, Listed] = {}

    @property
    def regions(self) -> tuple[str, ...]:
        """The one region."""
        return self._changed.regions

    def created_ms(self, number: int) -> int:
        """When object ``number`` was created: whole seconds, never falling."""
        return self._start_ms + number * self._span_ms // self._count // 1000 * 1000

    def number_at(self, time_ms: float) -> int:
        """The first object created at this time or later."""
        return bisect_left(range(self._count), time_ms, key=self.created_ms)

    def id_of(self, number: int) -> str:
        """The id of object ``number``; looks like any other."""
        scattered = number * 0x9E3779B1 & 0xFFFFFFFF  # Knuth's multiplicative hash
        return f"{scattered:08x}-0000-4000-8000-{number:012x}"

    def _number_of(self, id: str) -> int | None:
        try:
            number = int(id[-12:], 16)
        except ValueError:
            return None
        known = 0 <= number < self._count and self.id_of(number) == id
        return number if known else None

    def item(self, region: str, id: str) -> Item | None:
        """The object with its record and content."""
        changed = self._changed.item(region, id)
        number = self._number_of(id)
        if changed is not None or number is None or region != self._region:
            return changed
        return self.make(number)

    def put(self, item: Item) -> None:
        """Add an object, or take this one in place of the one with its id."""
        number = self._number_of(item.id)
        if number is not None and number not in self._hidden:
            insort(self._hidden, number)
        self._changed.put(item)

    def make(self, number: int) -> Item:
        """Object ``number`` as it was created."""
        type, mime_type, extension, size = KINDS[number % PERIOD]
        created_ms = self.created_ms(number)
        agent, call = AGENTS[number % len(AGENTS)], f"int-{number // 4:x}-phone-00-acmecorp01"
        content = _content(size if self._size is None else self._size, number % PRIME)
        return Item(
            id=self.id_of(number),
            type=type,
            name=f"{call}{extension}",
            mime_type=mime_type,
            created_ms=created_ms,
            updated_ms=created_ms + LATER_MS,
            content=content,
            region=self._region,
            user_id=agent.user_id,
            tags={
                "callId": call,
                "agentName": agent.name,
                "callerName": CALLERS[number % len(CALLERS)],
                "callerId": f"1202555{100 + number % 100:04d}",
                "direction": "INBOUND" if number % 3 else "OUTBOUND",
                "queueName": QUEUES[number % len(QUEUES)][0],
                "startTime": str(created_ms - 60_000),
                "duration": "36000",
            },
        )

    def search(
        self, region: str, query: Expression, sort: Sort, offset: int, limit: int
    ) -> tuple[list[Json], int]:
        """Up to ``limit`` records from ``offset`` on, and how many there are in all."""
        picked = self._pick(query) if region == self._region else Listed()
        if sort.field not in TIME_FIELDS:
            return self._sorted(picked, query, sort, offset, limit)
        merged = self._merge(picked, region, query, sort.field)
        total = len(merged)
        places: Iterable[int] = range(offset, min(offset + limit, total))
        if sort.descending:
            places = (total - 1 - place for place in places)
        return [self._at(merged, place).record() for place in places], total

    def _pick(self, query: Expression) -> "Picked | Listed":
        """The objects (as they were created) that match, by number."""
        low, high = self._bounds(query)
        left = {rest: given(query, _constant(rest)) for rest in range(PERIOD)}
        rests = tuple(rest for rest, each in left.items() if each != FALSE)
        if all(_only_bounds(left[rest]) for rest in rests):
            bounds = {self._bounds(left[rest]) for rest in rests} or {(low, high)}
            if len(bounds) == 1:
                return Picked(*bounds.pop(), rests)
        return self._one_by_one(query, low, high)

    def _bounds(self, query: Expression) -> tuple[int, int]:
        created, updated = span(query, "createdTime"), span(query, "updatedTime")
        low = self.number_at(max(created[0], updated[0] - LATER_MS))
        return low, max(low, self.number_at(min(created[1], updated[1] - LATER_MS)))

    def _one_by_one(self, query: Expression, low: int, high: int) -> Listed:
        if query not in self._linear:
            if len(self._linear) >= LINEAR_KEPT:
                self._linear.clear()
            self._linear[query] = Listed(
                number for number in range(low, high) if matches(query, self.make(number).fields())
            )
        return self._linear[query]

    def _merge(
        self, picked: "Picked | Listed", region: str, query: Expression, field: str
    ) -> "_Merged":
        """Changed objects put in where their time belongs, the originals left out."""
        gone = [number for number in self._hidden if _holds(picked, number)]
        changed = self._changed.matching(region, query, Sort(field))
        later_ms = LATER_MS if field == "updatedTime" else 0
        inserts = []
        for at, item in enumerate(changed):
            number = self.number_at(_time(item, field) - later_ms + 1)
            inserts.append(picked.rank(number) - bisect_left(gone, number) + at)
        gaps = [picked.rank(number) - at for at, number in enumerate(gone)]
        return _Merged(picked, gaps, inserts, changed)

    def _at(self, merged: "_Merged", place: int) -> Item:
        found = merged.at(place)
        return self.make(found) if isinstance(found, int) else found

    def _sorted(
        self, picked: "Picked | Listed", query: Expression, sort: Sort, offset: int, limit: int
    ) -> tuple[list[Json], int]:
        """Any other order: everything made and sorted. Slow, and right."""
        hidden = set(self._hidden)
        items = [self.make(number) for number in picked if number not in hidden]
        items += self._changed.matching(self._region, query, Sort())
        items.sort(
            key=lambda item: sort_key(item.fields().get(sort.field)), reverse=sort.descending
        )
        return [item.record() for item in items[offset : offset + limit]], len(items)


@dataclass(frozen=True, slots=True)
class _Merged:
    """``picked`` without its places in ``gaps`` (each less the gaps before it), and ``changed``.

    ``inserts[j]`` is the place of ``changed[j]`` in the whole; both ascending.
    """

    picked: "Picked | Listed"
    gaps: list[int]
    inserts: list[int]
    changed: list[Item]

    def __len__(self) -> int:
        return len(self.picked) - len(self.gaps) + len(self.inserts)

    def at(self, place: int) -> int | Item:
        """What stands at this place: an object's number, or a changed object."""
        before = bisect_left(self.inserts, place)
        if before < len(self.inserts) and self.inserts[before] == place:
            return self.changed[before]
        kept = place - before
        return self.picked[kept + bisect_right(self.gaps, kept)]


def _time(item: Item, field: str) -> int:
    return item.created_ms if field == "createdTime" else item.updated_ms or item.created_ms


def _holds(picked: Picked | Listed, number: int) -> bool:
    return picked.rank(number + 1) > picked.rank(number)


def _constant(rest: int) -> Fields:
    """The fields that all objects with this remainder share."""
    type, mime_type, _, _ = KINDS[rest]
    return {
        "type": type,
        "mimeType": mime_type,
        "objectState": "AVAILABLE",
        "customerId": CUSTOMER,
    }


def _only_bounds(query: Expression) -> bool:
    """Whether the filter is bounds on times and nothing else, so that a span says it all."""
    if isinstance(query, Comparison):
        return query.field in TIME_FIELDS and query.operator != "!="
    return isinstance(query, Every) and all(_only_bounds(part) for part in query.parts)


@cache
def _content(size: int, phase: int) -> Content:
    """A ramp from ``phase`` on. Cached, because its MD5 is: 8 sizes and 251 phases in all."""
    return Content(b"", RAMP, size, phase)
