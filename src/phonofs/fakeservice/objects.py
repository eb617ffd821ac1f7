"""Answers searches and requests for records, content and restores, as the service documents."""

import json
import re
from typing import Any
from urllib.parse import quote

from phonofs.fakeservice.account import Item, Json, Sort
from phonofs.fakeservice.fiql import (
    And,
    Comparison,
    Expression,
    FilterError,
    TimeError,
    names,
    parse,
)
from phonofs.fakeservice.responses import Answer, of_bytes, of_json, refusal
from phonofs.fakeservice.routes import BUCKET, Call, wants_presigned
from phonofs.fakeservice.state import State

_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")
_WHOLE_NUMBER = re.compile(r"-?[0-9]{1,12}")
_LIFE = re.compile(r"[1-9][0-9]{0,8}")
MOST_OFFSET = 10**9
_AVAILABLE = Comparison("objectState", "==", "AVAILABLE")


class _Wrong(Exception):
    """A parameter that the service refuses with 400."""


class Objects:
    """Answers the requests for objects. Keeps no state of its own."""

    def __init__(self, state: State) -> None:
        self._state = state

    def search(self, call: Call) -> Answer:
        """Answer ``GET /objects`` with one page."""
        query = call.request.query
        try:
            offset, limit = self._page(query)
            expression, sort = _expression(query.get("filter", "")), _sort(query)
        except TimeError as error:
            return refusal(500 if self._state.options.bad_time == "error" else 400, str(error))
        except (_Wrong, FilterError) as error:
            return refusal(400, str(error))
        found = self._state.account.search(call.region, expression, sort, offset, limit)
        return of_json(200, self._page_of(*found, offset, limit))

    def _page(self, query: Any) -> tuple[int, int]:
        most, window = self._state.options.page_limit, self._state.options.search_window
        offset, limit = _number(query, "pageKey", 0), _number(query, "limit", min(100, most))
        if limit > most and self._state.options.over_limit == "lower":
            limit = most
        if not 1 <= limit <= most:
            raise _Wrong(f"limit must be 1 to {most}")
        if not 0 <= offset <= MOST_OFFSET:
            raise _Wrong(f"pageKey must be 0 to {MOST_OFFSET}")
        if window and offset + limit > window:
            raise _Wrong(f"pageKey and limit together must not exceed {window}")
        return offset, limit

    def _page_of(self, records: list[Json], matching: int, offset: int, limit: int) -> Any:
        """Return a page with these records, out of ``matching`` in all.

        Its ``pageKey`` is ``offset + limit``, on the last page too.
        """
        options = self._state.options
        page: Json = {
            "lastPage": offset + len(records) >= matching,
            "pageKey": offset + limit,
            "pageSize": len(records),
            "content": [self._shown(record) for record in records],
        }
        if options.total == "pages":
            page["total"] = -(-matching // limit)
        elif options.total == "records":
            page["total"] = matching
        return [page] if options.page == "array" else page

    def _shown(self, record: Json) -> Json:
        if self._state.options.sizes == "string" and "storedBytes" in record:
            return {**record, "storedBytes": str(record["storedBytes"])}
        return record

    def _item(self, call: Call) -> Item | None:
        """Return the object, or None if it does not exist or was deleted."""
        item = self._state.account.item(call.region, call.id)
        return None if item is None or item.state == "DELETED" else item

    def record(self, call: Call) -> Answer:
        """Answer ``GET /objects/{id}``."""
        item = self._item(call)
        if item is None:
            return refusal(404, "no such object")
        return of_json(200, self._shown(item.record()))

    def metadata(self, call: Call) -> Answer:
        """Answer ``GET /objects/{id}/metadata``: the record as a download."""
        answer = self.record(call)
        if answer.status == 200:
            answer.headers["Content-Disposition"] = 'attachment; filename="metadata.json"'
        return answer

    def content(self, call: Call) -> Answer:
        """Answer ``GET /objects/{id}/content``: bytes, a presigned URL, or a redirect to one."""
        method, item = self._state.options.content, self._item(call)
        refused = _unreadable(item)
        if call.request.query.get("presignUrl", "false").lower() not in ("true", "false"):
            return refusal(400, "presignUrl must be true or false")
        if refused is not None or item is None:
            return refused or refusal(404, "no such object")
        if wants_presigned(call.request):
            if method == "stream":
                return refusal(403, "presigned URLs are not offered")
            life_s = call.request.query.get("presignTtlSeconds")
            if life_s is not None and not _LIFE.fullmatch(life_s):
                return refusal(400, "presignTtlSeconds must be a number of seconds from 1")
            return self._presign_answer(self._url(item, None if life_s is None else int(life_s)))
        if method == "redirect":
            answer = of_bytes(302, b"", "text/plain")
            answer.headers["Location"] = self._url(item)
            return answer
        return self.bytes_of(call, ranges=method == "range")

    def _url(self, item: Item, life_s: float | None = None) -> str:
        region, id = quote(item.region, safe=""), quote(item.id, safe="")
        if self._state.options.presign_host == "store":
            return self._state.presigned(f"/store/{region}/objects/{id}", life_s)
        customer, user = quote(item.customer_id, safe=""), quote(item.user_id, safe="")
        path = f"/storage/{region}/{BUCKET}/content/EPS/{customer}/{user}/{id}"
        return self._state.presigned(path, life_s)

    def _presign_answer(self, url: str) -> Answer:
        match self._state.options.presign_answer:
            case "object":
                return of_json(200, {"url": url})
            case "string":
                return of_json(200, url)
            case "text":
                return of_bytes(200, url.encode(), "text/plain")

    def bytes_of(self, call: Call, *, ranges: bool) -> Answer:
        """Answer with the object's bytes: 200, or 206 or 416 if ``ranges`` are honoured."""
        item = self._item(call)
        refused = _unreadable(item)
        if refused is not None or item is None:
            return refused or refusal(404, "no such object")
        answer = self._whole(call, item, ranges)
        span = _range(call, item, answer.headers.get("ETag", "")) if ranges else None
        if span is None:
            return answer
        answer.start, answer.stop = span
        if answer.start >= answer.stop:
            return _beyond(item)
        answer.status = 206
        answer.headers["Content-Range"] = f"bytes {span[0]}-{span[1] - 1}/{item.content.size}"
        return answer

    def _whole(self, call: Call, item: Item, ranges: bool) -> Answer:
        counters = self._state.counters
        counters.of(item.region, item.id).requests += 1
        headers = {"Content-Type": item.mime_type or "application/octet-stream"}
        if ranges:
            headers["Accept-Ranges"] = "bytes"
        if self._state.options.etag:
            headers["ETag"] = item.etag

        def sent(start: int, stop: int) -> None:
            counters.add_sent(item.region, item.id, start, stop)

        return Answer(200, headers, item.content, 0, item.content.size, sent=sent)

    def restore(self, call: Call) -> Answer:
        """Answer ``POST /objects/{id}/restore``."""
        item = self._item(call)
        if not self._state.options.editable:
            return refusal(403, "this key may not restore")
        days = _restore_days(call.request.body)
        if days is None:
            return refusal(400, 'the body must be {"expirationDays": 1 to 10}')
        if item is None:
            return refusal(404, "no such object")
        if item.state != "ARCHIVED":
            return refusal(400, f"the object is {item.state}, not ARCHIVED")
        self._state.restore(item.region, item.id)
        return of_json(200, {"expirationDays": days})


def _expression(text: str) -> Expression:
    """Parse the filter; unless it refers to ``objectState``, only AVAILABLE objects match."""
    if not text:
        return _AVAILABLE
    expression = parse(text)
    if "objectState" in names(expression):
        return expression
    return And((expression, _AVAILABLE))


def _sort(query: Any) -> Sort:
    direction = query.get("sortDirection", "ASC")
    if direction not in ("ASC", "DESC"):
        raise _Wrong("sortDirection must be ASC or DESC")
    return Sort(query.get("sortField") or "createdTime", direction == "DESC")


def _number(query: Any, name: str, default: int) -> int:
    value = query.get(name, str(default))
    if not _WHOLE_NUMBER.fullmatch(value):
        raise _Wrong(f"{name} must be a whole number")
    return int(value)


def _unreadable(item: Item | None) -> Answer | None:
    """Return the refusal if the object's content cannot be read, else None."""
    if item is None or item.state in ("REVOKED", "PENDING", "FAILED"):
        return refusal(404, "no such content")
    if item.state != "AVAILABLE":
        return refusal(403, f"the object is {item.state}")
    return None


def _range(call: Call, item: Item, etag: str) -> tuple[int, int] | None:
    """Return the requested range, cut at the size; None (all bytes) if it is not a single range."""
    found = _RANGE.fullmatch(call.request.headers.get("range", "").strip())
    condition = call.request.headers.get("if-range", "")
    if found is None or (condition and condition != etag):
        return None
    first, last, size = found[1], found[2], item.content.size
    if not first and not last:
        return None
    if not first:
        return max(0, size - int(last)), size
    if last and int(last) < int(first):
        return None
    return int(first), min(size, int(last) + 1) if last else size


def _beyond(item: Item) -> Answer:
    answer = of_bytes(416, b"", "text/plain")
    answer.headers["Content-Range"] = f"bytes */{item.content.size}"
    return answer


def _restore_days(body: bytes) -> int | None:
    """Return the days for which to restore an object, by default 7; None if the body is invalid."""
    if not body.strip():
        return 7
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError):
        return None
    days = asked.get("expirationDays", 7) if isinstance(asked, dict) else None
    return days if type(days) is int and 1 <= days <= 10 else None
