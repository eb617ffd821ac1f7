"""An account: the objects that the fake service serves, and how they can change.

Nothing here reads a clock: the caller passes the time of a change (``now_ms``, UTC epoch ms).
"""

import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from cachetools import LRUCache

from phonofs.fakeservice.content import Content, ramp
from phonofs.fakeservice.fiql import Expression, Fields, Value, matches

Json = dict[str, Any]

CUSTOMER = "0012J00002DemoCoQAA"
"""The customer of an object for which no other is given."""


@dataclass(frozen=True)
class Item:
    """One object: its record and its content.

    If ``checksum`` is None, the record has the content's MD5, or, if ``multipart_bytes`` is set,
    the checksum of an upload in parts of that size. If ``size`` is None, the record has the
    content's size. ``extra`` replaces fields of the record, to make malformed ones.
    """

    id: str
    type: str
    name: str
    mime_type: str
    created_ms: int
    content: Content
    updated_ms: int = 0
    region: str = "us-east"
    state: str = "AVAILABLE"
    tags: Mapping[str, str] = field(default_factory=dict)
    checksum: str | None = None
    multipart_bytes: int = 0
    size: int | None = None
    customer_id: str = CUSTOMER
    user_id: str = "2xEVyEt2SFmZfL3v5UuEdw"
    bucket_id: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)

    def record(self) -> Json:
        """Return the record as the service sends it."""
        return {
            "id": self.id,
            "type": self.type,
            "mimeType": self.mime_type,
            "objectName": self.name,
            "checksumType": "MD5",
            "checksum": self.sum,
            "customerId": self.customer_id,
            "userId": self.user_id,
            "storedBytes": self.content.size if self.size is None else self.size,
            "createdTime": iso(self.created_ms),
            "updatedTime": iso(self.updated_ms or self.created_ms),
            "objectState": self.state,
            "bucketId": self.bucket_id or self.id,
            "tags": [{"key": key, "value": value} for key, value in self.tags.items()],
            "shared": False,
            **self.extra,
        }

    @property
    def sum(self) -> str:
        """The checksum in the record; computed on first use."""
        if self.checksum is not None:
            return self.checksum
        part = self.multipart_bytes
        return self.content.multipart(part) if part else self.content.md5

    @property
    def etag(self) -> str:
        """The ETag of the content, with its quotes; reads no content if the checksum is empty."""
        return f'"{self.sum or f"{self.content.size}-{self.content.phase}"}"'

    @cached_property
    def fields(self) -> Fields:
        """The values for filters and sorting: the tags, overridden by the record's fields.

        The service's guide calls ``objectName`` ``name`` and ``storedBytes`` ``size``.
        """
        stored = self.content.size if self.size is None else self.size
        return {
            **self.tags,
            "name": self.name,
            "size": stored,
            "id": self.id,
            "type": self.type,
            "mimeType": self.mime_type,
            "objectName": self.name,
            "userId": self.user_id,
            "customerId": self.customer_id,
            "bucketId": self.bucket_id or self.id,
            "storedBytes": stored,
            "createdTime": self.created_ms,
            "updatedTime": self.updated_ms or self.created_ms,
            "objectState": self.state,
        }


def iso(time_ms: int) -> str:
    """Format a time as in records: ISO 8601, no zone, UTC, whole seconds."""
    return datetime.fromtimestamp(time_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S")


class Account:
    """An account whose objects are all in memory.

    Owns the objects. Invariant: ``_found`` caches search results of the current objects; every
    change clears it. A test may change an account that a service in another thread searches, so
    both hold a lock.
    """

    def __init__(self, items: Iterable[Item] = (), regions: Iterable[str] = ()) -> None:
        self._items: dict[tuple[str, str], Item] = {}
        # Enough for the pages of concurrent searches.
        self._found: LRUCache[tuple[str, Expression, str, bool], list[Item]] = LRUCache(64)
        self._regions = list(regions)
        self._lock = threading.Lock()
        for item in items:
            self.put(item)

    def __iter__(self) -> Iterator[Item]:
        return iter(list(self._items.values()))

    def __len__(self) -> int:
        return len(self._items)

    @property
    def regions(self) -> tuple[str, ...]:
        """The regions given on creation, then those of the objects, in the order of addition."""
        return tuple(self._regions)

    def search(
        self, region: str, query: Expression, sort: str = "createdTime", descending: bool = False
    ) -> list[Item]:
        """Return all objects of a region that match, sorted by a field or tag. The sort is stable.

        Missing values come first, then numbers by size, then texts.
        """
        key = (region, query, sort, descending)
        with self._lock:
            if key not in self._found:
                found = [
                    each
                    for each in self._items.values()
                    if each.region == region and matches(query, each.fields)
                ]
                found.sort(key=lambda each: _rank(each.fields.get(sort)), reverse=descending)
                self._found[key] = found
            return self._found[key]

    def item(self, region: str, id: str) -> Item | None:
        """Return the object, or None if it does not exist."""
        return self._items.get((region, id))

    def put(self, item: Item) -> None:
        """Add an object, or replace the one with the same region and id."""
        key = (item.region, item.id)
        with self._lock:
            self._items[key] = item
            self._found.clear()
            if item.region not in self._regions:
                self._regions.append(item.region)


def change(account: Account, region: str, id: str, now_ms: int, **fields: Any) -> bool:
    """Change fields of an :class:`Item` and its ``updatedTime``; return False if it does not exist.

    For example, ``change(account, region, id, now_ms, state="REVOKED")`` revokes the object.
    """
    item = account.item(region, id)
    if item is None:
        return False
    account.put(replace(item, updated_ms=now_ms, **fields))
    return True


def _rank(value: Value) -> tuple[int, float, str]:
    if value is None:
        return 0, 0, ""
    digits = isinstance(value, int) or (value.isascii() and value.isdigit() and len(value) < 19)
    return (1, int(value), "") if digits else (2, 0, str(value))


def flat_item(id: str, size: int, created_ms: int, **fields: Any) -> Item:
    """Make a test object; its content is a ramp modulo a prime, starting at a value set by the id.

    ``fields`` override fields of :class:`Item`.
    """
    given: dict[str, Any] = {
        "type": "callrecording",
        "name": f"{id}.mp3",
        "mime_type": "audio/mpeg",
        "content": ramp(id, size),
        "tags": {"callId": id, "direction": "INBOUND", "startTime": str(created_ms)},
    }
    return Item(id=id, created_ms=created_ms, **(given | fields))
