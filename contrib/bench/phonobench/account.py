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
from urllib.parse import quote

from phonobench.things import Thing
from phonofs.demo.fiql import Every, Expression, Fields, matches, parse, span

REGION = "us-east"
UPDATED_AFTER_MS = 10_000
"""How long after its creation an object was last changed, as in the vendor's example."""

KEPT = 64
"""Results of searches kept, so that pages asked for side by side cost one search."""


class Account:
    """The objects by id, by folder and by time. Owns them; never changes."""

    def __init__(self, things: Sequence[Thing]) -> None:
        self.by_id = {thing.id: thing for thing in things}
        self.by_path = {thing.path: thing for thing in things}
        self._sorted = sorted(things, key=lambda thing: thing.created_ms)
        self._times = [thing.created_ms for thing in self._sorted]
        self._folders = _folders(things)
        self._found: OrderedDict[tuple[str, bool], list[Thing]] = OrderedDict()
        self._indexes: dict[str, bytes] = {}

    def page(self, query: Mapping[str, str]) -> bytes:
        """The answer to ``GET /objects``."""
        offset, limit = int(query.get("pageKey", 0)), min(int(query.get("limit", 100)), 100)
        descending = query.get("sortDirection", "ASC") == "DESC"
        found = self._search(query.get("filter", ""), descending)
        part = found[offset : offset + limit]
        reached = offset + len(part)
        head = {
            "lastPage": reached >= len(found),
            "pageKey": reached,
            "pageSize": len(part),
            "total": len(found),
        }
        records = b",".join(record(thing) for thing in part)
        return json.dumps(head).encode()[:-1] + b', "content": [' + records + b"]}"

    def _search(self, text: str, descending: bool) -> list[Thing]:
        """All that match. Objects are updated in the order of their creation: one sort for both."""
        key = (text, descending)
        if key not in self._found:
            expression = parse(text) if text else Every(())
            self._found[key] = self._matching(expression)[:: -1 if descending else 1]
            if len(self._found) > KEPT:
                self._found.popitem(last=False)
        return self._found[key]

    def _matching(self, expression: Expression) -> list[Thing]:
        created, updated = span(expression, "createdTime"), span(expression, "updatedTime")
        low = max(created[0], updated[0] - UPDATED_AFTER_MS)
        high = min(created[1], updated[1] - UPDATED_AFTER_MS)
        start = 0 if low == -inf else bisect_left(self._times, low)
        stop = len(self._times) if high == inf else bisect_left(self._times, high)
        return [each for each in self._sorted[start:stop] if matches(expression, fields(each))]

    def children(self, folder: str) -> tuple[list[str], list[Thing]] | None:
        """Names of the folders, and the objects, of a folder; None where there is no such one."""
        return self._folders.get(folder)

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


def _folders(things: Sequence[Thing]) -> dict[str, tuple[list[str], list[Thing]]]:
    folders: dict[str, tuple[list[str], list[Thing]]] = {"": ([], [])}
    for thing in things:
        if thing.day not in folders:
            _add_folder(folders, thing.day)
        folders[thing.day][1].append(thing)
    return folders


def _add_folder(folders: dict[str, tuple[list[str], list[Thing]]], folder: str) -> None:
    folders[folder] = ([], [])
    parent, _, name = folder.rpartition("/")
    if parent not in folders:
        _add_folder(folders, parent)
    folders[parent][0].append(name)


def fields(thing: Thing) -> Fields:
    """What a filter sees."""
    return {
        "id": thing.id,
        "type": "callrecording",
        "createdTime": thing.created_ms,
        "updatedTime": thing.created_ms + UPDATED_AFTER_MS,
        "objectState": "AVAILABLE",
        "storedBytes": thing.size,
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
            "updatedTime": _iso(thing.created_ms + UPDATED_AFTER_MS),
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
