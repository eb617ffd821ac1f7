"""The objects as the service answers for them and as WebDAV lists them. Pure; no sockets.

Answers are kept ready as bytes where that is possible: the origin must not be what is measured.
"""

import json
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import format_datetime
from html import escape
from math import inf
from operator import attrgetter
from urllib.parse import quote

from phonobench.narrowing import given, span
from phonobench.things import DAY_MS, FIRST_DAY_MS, Days, Thing, day_folder
from phonofs.fakeservice.fiql import (
    TRUE,
    And,
    Comparison,
    Expression,
    Fields,
    matches,
    parse,
)

REGION = "us-east"

SAME: Fields = {"type": "callrecording", "objectState": "AVAILABLE"}
"""What all objects have in common."""

FolderContents = tuple[list[str], list[Thing]]

KEPT = 64
"""Results of searches kept, so that pages asked for side by side cost one search."""

READY = 200_000
"""Up to so many objects that are not kept are written down before the first is asked for, as JSON
and as WebDAV: what is measured is who asks, not how quickly this process writes."""


class Account:
    """The objects by id, by folder and by time. Owns them; they never change.

    told  whether a page says how many records its search has
    """

    def __init__(self, things: Sequence[Thing]) -> None:
        self.told = True
        self._by_id = {thing.id: thing for thing in things}
        self._by_path = {thing.path: thing for thing in things}
        self._folders = _folders(things)
        self._sorted: Sequence[Thing] = sorted(things, key=attrgetter("created_ms"))
        self._found: OrderedDict[str, Sequence[int]] = OrderedDict()
        self._ready = _written(self._sorted)
        self._indexes: dict[str, bytes] = {}

    def find(self, id: str) -> Thing | None:
        """An object by its id."""
        return self._by_id.get(id)

    def at(self, path: str) -> Thing | None:
        """An object by its path in the tree."""
        return self._by_path.get(path)

    def children(self, folder: str) -> FolderContents | None:
        """Names of the folders, and the objects, of a folder; None where there is no such one."""
        return self._folders.get(folder)

    def page(self, query: Mapping[str, str]) -> bytes:
        """The answer to ``GET /objects``."""
        offset, limit = int(query.get("pageKey", 0)), min(int(query.get("limit", 100)), 100)
        found = self._search(query.get("filter", ""))
        if query.get("sortDirection", "ASC") == "DESC":
            found = found[::-1]
        part = found[offset : offset + limit]
        reached = offset + len(part)
        head = {
            "lastPage": reached >= len(found),
            "pageKey": reached,
            "pageSize": len(part),
            **({"total": len(found)} if self.told else {}),
        }
        records = b",".join(self._ready.get(i) or record(self._sorted[i]) for i in part)
        return json.dumps(head).encode()[:-1] + b', "content": [' + records + b"]}"

    def _search(self, text: str) -> Sequence[int]:
        """Which match. Objects never change after their creation: one sort for both."""
        if text not in self._found:
            self._found[text] = self._matching(parse(text) if text else TRUE)
            if len(self._found) > KEPT:
                self._found.popitem(last=False)
        return self._found[text]

    def _matching(self, expression: Expression) -> Sequence[int]:
        created, updated = span(expression, "createdTime"), span(expression, "updatedTime")
        low = max(created[0], updated[0])
        high = min(created[1], updated[1])
        within = range(self._first(low), self._first(high))
        rest = given(expression, SAME)
        if _is_only_span(rest):
            return within
        return [index for index in within if matches(rest, fields(self._sorted[index]))]

    def _first(self, created_ms: float) -> int:
        """The index of the first object created at that time or later."""
        if created_ms in (-inf, inf):
            return 0 if created_ms < 0 else len(self._sorted)
        return bisect_left(self._sorted, created_ms, key=attrgetter("created_ms"))

    def index(self, folder: str, prefix: str) -> bytes | None:
        """The folder as an HTML page of links, as a web server lists it."""
        return self._kept("html", folder, prefix)

    def multistatus(self, folder: str, prefix: str) -> bytes | None:
        """The folder as WebDAV's answer to ``PROPFIND`` with ``Depth: 1`` (RFC 4918)."""
        return self._kept("dav", folder, prefix)

    def _kept(self, kind: str, folder: str, prefix: str) -> bytes | None:
        found = self.children(folder)
        if found is None:
            return None
        key = f"{kind} {prefix}{folder}"
        if key not in self._indexes:
            make = _html if kind == "html" else _dav
            self._indexes[key] = make(f"{prefix}{folder}/" if folder else prefix, *found)
        return self._indexes[key]


class Many(Account):
    """Very many objects, computed and not kept: ``counts`` of them on each day from 2024 on.

    Listed only: they have no bytes.
    """

    def __init__(self, counts: Sequence[int]) -> None:
        super().__init__(())
        self._sorted = Days(counts)
        self._folders = {"": ([], [])}
        self._days = {day_folder(FIRST_DAY_MS + day * DAY_MS): day for day in range(len(counts))}
        for folder in self._days:
            _add_folder(self._folders, folder)
        self._ready = _written(self._sorted)
        for folder in self._folders if self._ready else ():
            self.multistatus(folder, "/dav/")

    def find(self, id: str) -> Thing | None:
        """An object by its id."""
        number = int(id[:8], 16) - 1
        return self._sorted[number] if number < len(self._sorted) else None

    def at(self, path: str) -> Thing | None:
        """An object by its path in the tree; its name ends with its number."""
        return self.find(path[-12:-4]) if path.endswith(".mp3") else None

    def children(self, folder: str) -> FolderContents | None:
        """Names of the folders, and the objects, of a folder; None where there is no such one."""
        day = self._days.get(folder)
        if day is None:
            return self._folders.get(folder)
        low = FIRST_DAY_MS + day * DAY_MS
        first, stop = self._first(low), self._first(low + DAY_MS)
        return [], [self._sorted[number] for number in range(first, stop)]


def _written(things: Sequence[Thing]) -> dict[int, bytes]:
    """The record of each, by its index; none where there are too many."""
    return (
        {index: record(thing) for index, thing in enumerate(things)} if len(things) <= READY else {}
    )


def _is_only_span(rest: Expression) -> bool:
    """Whether nothing is left to check once the bounds of both times are kept."""
    parts = rest.parts if isinstance(rest, And) else (rest,)
    return all(
        isinstance(part, Comparison) and part.operator != "!="
        and part.field in ("createdTime", "updatedTime")
        for part in parts
    )  # fmt: skip


def _folders(things: Sequence[Thing]) -> dict[str, FolderContents]:
    folders: dict[str, FolderContents] = {"": ([], [])}
    for thing in things:
        if thing.day not in folders:
            _add_folder(folders, thing.day)
        folders[thing.day][1].append(thing)
    return folders


def _add_folder(folders: dict[str, FolderContents], folder: str) -> None:
    folders[folder] = ([], [])
    parent, _, name = folder.rpartition("/")
    if parent not in folders:
        _add_folder(folders, parent)
    folders[parent][0].append(name)


def fields(thing: Thing) -> Fields:
    """What a filter sees."""
    return {
        **SAME,
        "id": thing.id,
        "createdTime": thing.created_ms,
        "updatedTime": thing.created_ms,
        "storedBytes": thing.size,
        "callId": thing.id,
        "address": "+16695555518",
    }


def record(thing: Thing) -> bytes:
    """The record as the service sends it, with the tags a real one has."""
    tags = {
        "callId": thing.id,
        "direction": "OUTBOUND",
        "startTime": str(thing.created_ms),
        "endTime": str(thing.created_ms + 60_000),
        "duration": "60000",
        "userName": "Alex Wilber",
        "userEmail": "user@example.com",
        "address": "+16695555518",
        "extensionNumber": "117209",
    }
    return json.dumps(
        {
            "id": thing.id,
            "type": "callrecording",
            "mimeType": "audio/mpeg",
            "objectName": f"ipbx:acmecorp:callrecording:users:117209:{thing.id}.mp3",
            "checksumType": "MD5",
            "checksum": thing.md5,
            "customerId": "0012J00002IZiaKQAT",
            "userId": "2xEVyEt2SFmZfL3v5UuEdw",
            "storedBytes": thing.size,
            "createdTime": _iso(thing.created_ms),
            "updatedTime": _iso(thing.created_ms),
            "objectState": "AVAILABLE",
            "bucketId": thing.id,
            "tags": [{"key": key, "value": value} for key, value in tags.items()],
            "shared": False,
        }
    ).encode()


def _iso(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _html(_here: str, folders: list[str], things: list[Thing]) -> bytes:
    names = [f"{name}/" for name in folders] + [thing.name for thing in things]
    links = "\n".join(f'<a href="{quote(name)}">{escape(name)}</a>' for name in names)
    return f"<html><body><pre>\n{links}\n</pre></body></html>\n".encode()


def _dav(here: str, folders: list[str], things: list[Thing]) -> bytes:
    parts = [_dav_folder(here), *(_dav_folder(f"{here}{name}/") for name in folders)]
    parts += [dav_file(here, thing) for thing in things]
    return multistatus("".join(parts))


def multistatus(responses: str) -> bytes:
    """A whole answer around its responses."""
    head = '<?xml version="1.0" encoding="utf-8"?>\n<D:multistatus xmlns:D="DAV:">\n'
    return f"{head}{responses}</D:multistatus>\n".encode()


def _dav_folder(href: str) -> str:
    return _dav_response(href, "<D:resourcetype><D:collection/></D:resourcetype>")


def dav_file(here: str, thing: Thing) -> str:
    """One file's response."""
    modified = format_datetime(datetime.fromtimestamp(thing.created_ms / 1000, UTC), usegmt=True)
    return _dav_response(
        here + thing.name,
        f"<D:resourcetype/><D:getcontentlength>{thing.size}</D:getcontentlength>"
        f"<D:getlastmodified>{modified}</D:getlastmodified>",
    )


def _dav_response(href: str, properties: str) -> str:
    return (
        f"<D:response><D:href>{quote(href)}</D:href><D:propstat><D:prop>{properties}</D:prop>"
        "<D:status>HTTP/1.1 200 OK</D:status></D:propstat></D:response>\n"
    )
