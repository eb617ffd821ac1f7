"""A small world for the catalogue's tests: records, a service in memory, a clock."""

import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from pathlib import Path

import msgspec
import trio

from phonofs.catalogue.catalogue import Catalogue, ChangeSet, ObjectChange, TreeOptions
from phonofs.config import DEFAULT_TEMPLATE
from phonofs.discovery.lister import Lister
from phonofs.errors import ServiceError
from phonofs.fakeservice.fiql import matches, parse
from phonofs.model import Page, Query, Record
from phonofs.service.records import parse_page, parse_record
from phonofs.tree.layout import ROOT

LATENCY_S = 0.05
DAY_MS = 86_400_000
HOUR_MS = 3_600_000


def ms(text: str) -> int:
    """Convert ``2024-09-17`` or ``2024-09-17T09:30:12`` (UTC) to epoch ms."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


@dataclass(frozen=True)
class Settings:
    """The settings that the catalogue reads."""

    timezone: str = "UTC"
    name_template: str = DEFAULT_TEMPLATE
    types: tuple[str, ...] = ()
    since: date | None = None
    archived: bool = True
    page_size: int = 100
    max_connections: int = 16
    poll_interval: float = 60.0
    read_deadline: float = 60.0
    cache_min_free: int = 0


def make(
    id: str,
    created: str | int,
    *,
    updated: str | int | None = None,
    state: str = "AVAILABLE",
    region: str = "us-east",
    size: int = 10,
    kind: str = "callrecording",
    checksum: str = "",
    **tags: str,
) -> Record:
    """Make a record as the parser does from JSON."""
    created_ms = ms(created) if isinstance(created, str) else created
    updated_ms = ms(updated) if isinstance(updated, str) else updated
    value = {
        "id": id,
        "type": kind,
        "mimeType": "audio/mpeg",
        "objectName": f"{id}.mp3",
        "checksum": checksum,
        "storedBytes": size,
        "createdTime": created_ms,
        "updatedTime": created_ms if updated_ms is None else updated_ms,
        "objectState": state,
        "tags": [{"key": key, "value": value} for key, value in tags.items()],
    }
    return parse_record(json.dumps(value).encode(), region)


def uuid(number: int) -> str:
    """Return the id for a number; different numbers give different ids."""
    return f"{number:08x}-0000-4000-8000-000000000000"


@dataclass
class FakeService:
    """Objects of regions, searched as the service does. Counts the searches.

    ``narrowed`` decides whether a record is a result of a FIQL filter.
    """

    records: dict[tuple[str, str], Record] = field(default_factory=dict)
    latency_s: float = LATENCY_S
    most: int = 100
    totals: bool = False
    says_last: bool = True
    shuffle: Callable[[list[Record]], list[Record]] = field(default=lambda found: found)
    before_answer: Callable[["FakeService"], None] = field(default=lambda service: None)
    narrowed: Callable[[Record, str], bool] = field(
        default=lambda record, text: matches(parse(text), record.tags)
    )
    error: ServiceError | None = None
    asked: list[tuple[str, Query, int, int]] = field(default_factory=list)
    flying: int = 0
    most_flying: int = 0

    def put(self, *records: Record) -> None:
        for record in records:
            self.records[record.region, record.id] = record

    def change(self, id: str, region: str = "us-east", **values: object) -> None:
        old = self.records[region, id]
        value = json.loads(old.source) | values
        self.put(parse_record(json.dumps(value).encode(), region))

    def remove(self, id: str, region: str = "us-east") -> None:
        del self.records[region, id]

    def found(self, region: str, query: Query) -> list[Record]:
        states = query.states or ("AVAILABLE",)

        def wanted(one: Record) -> bool:
            return (
                one.region == region
                and one.state in states
                and (not query.types or one.type in query.types)
                and (not query.narrow or self.narrowed(one, query.narrow))
                and (query.created_from_ms or 0) <= one.created_ms
                and one.created_ms < (query.created_until_ms or 1 << 62)
                and (query.updated_from_ms or 0) <= one.updated_ms
                and one.updated_ms < (query.updated_until_ms or 1 << 62)
            )

        key = "created_ms" if query.sort == "createdTime" else "updated_ms"
        found = sorted(filter(wanted, self.records.values()), key=lambda one: one.id)
        found.sort(key=lambda one: getattr(one, key), reverse=query.descending)
        return self.shuffle(found)

    async def search(
        self, region: str, query: Query, page_key: int = 0, limit: int = 100, *, urgent: bool = True
    ) -> Page:
        self.asked.append((region, query, page_key, limit))
        self.flying += 1
        self.most_flying = max(self.flying, self.most_flying)
        try:
            await trio.sleep(self.latency_s)
        finally:
            self.flying -= 1
        if self.error is not None:
            raise self.error
        self.before_answer(self)
        found = self.found(region, query)
        page = found[page_key : page_key + min(limit, self.most)]
        last = page_key + len(page) >= len(found)
        return Page(
            records=page,
            count=len(page),
            last=last and (self.says_last or not page),
            next_key=page_key + limit,
            total=len(found) if self.totals else None,
        )

    async def search_text(
        self, region: str, query: Query, page_key: int, limit: int, *, urgent: bool
    ) -> bytes:
        page = await self.search(region, query, page_key, limit, urgent=urgent)
        content = [msgspec.Raw(record.source) for record in page.records]
        content += [msgspec.Raw(b"null")] * (page.count - len(page.records))
        shape = {"content": content, "lastPage": page.last, "total": page.total}
        return msgspec.json.encode(shape | {"pageKey": page.next_key})

    def read_page(self, body: bytes, region: str) -> Page:
        return parse_page(body, region)

    def count(self) -> int:
        """Return the number of searches since the last call."""
        asked, self.asked = len(self.asked), []
        return asked


class Told(list[ObjectChange]):
    """The changes of objects and of directories that a lister or follower reported."""

    def __init__(self) -> None:
        self.directories: dict[int, set[str]] = {}

    def take(self, changes: ChangeSet) -> None:
        """Record changes; used as ``on_changes``."""
        self.extend(changes.objects)
        for ino, names in changes.directories.items():
            self.directories.setdefault(ino, set()).update(names)


@dataclass
class World:
    """A catalogue, its service and its lister."""

    catalogue: Catalogue
    service: FakeService
    lister: Lister
    changes: Told

    async def ls(self, path: str = "") -> list[str]:
        """List a directory as ``ls`` does; opens each directory on the way, as the kernel does."""
        return [entry.name for entry in self.catalogue.children(await self.open(path))]

    async def open(self, path: str = "") -> int:
        ino = ROOT
        await self.look(ino)
        for name in filter(None, path.split("/")):
            entry = self.catalogue.lookup(ino, name)
            assert entry is not None, f"no {name} in {path}"
            ino = entry.ino
            await self.look(ino)
        return ino

    async def look(self, ino: int) -> None:
        if self.lister.needs(ino):
            await self.lister.list(ino)


def tree(catalogue: Catalogue, ino: int = ROOT) -> dict[str, object]:
    """Return everything that is shown as nested dicts."""
    return {
        entry.name: tree(catalogue, entry.ino) if entry.is_directory else entry.ino
        for entry in catalogue.children(ino)
    }


def files(catalogue: Catalogue, ino: int = ROOT) -> list[str]:
    """Return the path of every file."""
    found: list[str] = []
    for entry in catalogue.children(ino):
        found += files(catalogue, entry.ino) if entry.is_directory else [catalogue.path(entry.ino)]
    return found


def opened(
    path: Path, settings: Settings | None = None, *, now: str = "2024-09-20", **changes: object
) -> Catalogue:
    """Open a catalogue at ``path``, with one region unless it has stored others."""
    settings = replace(settings or Settings(), **changes)  # type: ignore[arg-type]
    catalogue = Catalogue.open(
        path / "catalogue.sqlite", TreeOptions.of(settings), now_ms=lambda: ms(now)
    )
    if not catalogue.regions():
        catalogue.set_regions(["us-east"])
    return catalogue


@asynccontextmanager
async def world(
    path: Path,
    records: Iterable[Record] = (),
    *,
    service: FakeService | None = None,
    now: str = "2024-09-20",
    regions: Iterable[str] = ("us-east",),
    **settings: object,
) -> AsyncIterator[World]:
    """Make a world and run its lister."""
    service = service or FakeService()
    service.put(*records)
    made = Settings(**settings)  # type: ignore[arg-type]
    catalogue = opened(path, made, now=now)
    catalogue.set_regions(list(regions))
    told = Told()
    lister = Lister(service, catalogue, made, told.take, now_ms=lambda: ms(now))
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(lister.run)
            yield World(catalogue, service, lister, told)
            nursery.cancel_scope.cancel()
    finally:
        catalogue.close()


def check(catalogue: Catalogue) -> None:
    """Check the invariants between directories, objects and lookups."""
    objects = size = 0
    inos: Counter[int] = Counter()
    stack = [ROOT]
    while stack:
        parent = stack.pop()
        assert catalogue.entry(parent) is not None
        names = [entry.name for entry in catalogue.children(parent)]
        assert names == sorted(set(names))
        for entry in catalogue.children(parent):
            inos[entry.ino] += 1
            assert catalogue.lookup(parent, entry.name) == entry == catalogue.entry(entry.ino)
            assert catalogue.parent(entry.ino) == parent
            if entry.is_directory:
                assert catalogue.children(entry.ino) or not entry.name[0].isdecimal()
                stack.append(entry.ino)
            else:
                objects, size = objects + 1, size + entry.size
                assert catalogue.record(entry.ino).size == entry.size
    assert catalogue.totals() == (objects, size)
    assert not inos or max(inos.values()) == 1
