"""Answers searches and requests for records, content and restores, as the service documents."""

import re
from functools import partial
from typing import Annotated, Literal
from urllib.parse import quote

import msgspec

from phonofs.fakeservice.account import Item, Json
from phonofs.fakeservice.content import NOTHING, Content
from phonofs.fakeservice.fiql import (
    And,
    Comparison,
    Expression,
    FilterError,
    TimeError,
    names,
    parse,
)
from phonofs.fakeservice.responses import Answer, Refused, Request, of_bytes, of_json
from phonofs.fakeservice.routes import BUCKET
from phonofs.fakeservice.state import State

_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")
_AVAILABLE = Comparison("objectState", "==", "AVAILABLE")


class _Query(msgspec.Struct):
    """The parameters of all requests, with the limits the service documents."""

    filter: str = ""
    pageKey: Annotated[int, msgspec.Meta(ge=0, le=10**9)] = 0
    limit: Annotated[int, msgspec.Meta(ge=1)] = 100
    sortField: str = "createdTime"
    sortDirection: Literal["ASC", "DESC"] = "ASC"
    presignUrl: bool = False
    presignTtlSeconds: Annotated[int, msgspec.Meta(ge=1, lt=10**9)] | None = None


class _Restore(msgspec.Struct):
    """The body of a request to restore an object."""

    expirationDays: Annotated[int, msgspec.Meta(ge=1, le=10)] = 7


def _query(request: Request) -> _Query:
    try:
        return msgspec.convert(request.query, _Query, strict=False)
    except msgspec.ValidationError as error:
        raise Refused(400, str(error)) from error


def search(state: State, request: Request) -> Answer:
    """Answer ``GET /objects`` with one page.

    Its ``pageKey`` is ``offset + limit``, on the last page too.
    """
    query, options = _query(request), state.options
    offset, limit = query.pageKey, min(query.limit, options.page_limit)
    if limit < query.limit and "limit" in request.query and options.over_limit == "refuse":
        raise Refused(400, f"limit must be 1 to {options.page_limit}")
    found = state.account.search(
        request.region, _expression(query.filter), query.sortField, query.sortDirection == "DESC"
    )
    records = [_shown(state, item) for item in found[offset : offset + limit]]
    page: Json = {
        "lastPage": offset + limit >= len(found),
        "pageKey": offset + limit,
        "pageSize": len(records),
        "content": records,
    }
    if options.total != "absent":
        page["total"] = len(found) if options.total == "records" else -(-len(found) // limit)
    return of_json(200, [page] if options.page == "array" else page)


def _expression(text: str) -> Expression:
    """Parse the filter; unless it refers to ``objectState``, only AVAILABLE objects match."""
    try:
        expression = parse(text) if text else And(())
    except FilterError as error:
        raise Refused(500 if isinstance(error, TimeError) else 400, str(error)) from error
    return expression if "objectState" in names(expression) else And((expression, _AVAILABLE))


def _existing(state: State, request: Request) -> Item:
    """Return the object. Raises Refused if it does not exist or was deleted."""
    item = state.account.item(request.region, request.id)
    if item is None or item.state == "DELETED":
        raise Refused(404, "no such object")
    return item


def record(state: State, request: Request) -> Answer:
    """Answer ``GET /objects/{id}``."""
    return of_json(200, _shown(state, _existing(state, request)))


def _shown(state: State, item: Item) -> Json:
    shown = item.record()
    if state.options.sizes == "string" and "storedBytes" in shown:
        shown["storedBytes"] = str(shown["storedBytes"])
    return shown


def content(state: State, request: Request) -> Answer:
    """Answer ``GET /objects/{id}/content``: bytes, a presigned URL, or a redirect to one."""
    method, query, item = state.options.content, _query(request), _readable(state, request)
    if query.presignUrl and method == "stream":
        raise Refused(403, "presigned URLs are not offered")
    if query.presignUrl:
        return _link(state, _url(state, item, query.presignTtlSeconds))
    if method == "redirect":
        answer = of_bytes(302, b"", "text/plain")
        answer.headers["Location"] = _url(state, item)
        return answer
    return _bytes(state, request, item, ranges=method == "range")


def presigned_content(state: State, request: Request) -> Answer:
    """Answer as an object store does to a presigned URL."""
    with_bearer = state.options.presign_token
    if with_bearer == "refuse" and "authorization" in request.headers:
        raise Refused(400, "only one way of authorization allowed")
    if with_bearer == "want" and not state.tokens.accepts(request):
        raise Refused(401, "no token, or one that has expired")
    if not state.signer.accepts(request):
        raise Refused(403, "the request has expired or its signature does not match")
    return _bytes(state, request, _readable(state, request), ranges=True)


def _readable(state: State, request: Request) -> Item:
    """Return the object. Raises Refused if its content cannot be read."""
    item = _existing(state, request)
    if item.state in ("REVOKED", "PENDING", "FAILED"):
        raise Refused(404, "no such content")
    if item.state != "AVAILABLE":
        raise Refused(403, f"the object is {item.state}")
    return item


def _url(state: State, item: Item, life_s: float | None = None) -> str:
    region, id, customer, user = (
        quote(text, safe="") for text in (item.region, item.id, item.customer_id, item.user_id)
    )
    path = f"/storage/{region}/{BUCKET}/content/EPS/{customer}/{user}/{id}"
    if state.options.presign_host == "store":
        path = f"/store/{region}/objects/{id}"
    return state.presigned(path, life_s)


def _link(state: State, url: str) -> Answer:
    if state.options.presign_answer == "text":
        return of_bytes(200, url.encode(), "text/plain")
    return of_json(200, url if state.options.presign_answer == "string" else {"url": url})


def _bytes(state: State, request: Request, item: Item, *, ranges: bool) -> Answer:
    """Answer with the object's bytes: 200, or 206 or 416 if ``ranges`` are honoured."""
    size = item.content.size
    headers = {"Content-Type": item.mime_type or "application/octet-stream", "ETag": item.etag}
    if ranges:
        headers["Accept-Ranges"] = "bytes"
    sent = partial(state.sent, item)
    found = _range(request, size, item.etag) if ranges else None
    if found is None:
        return Answer(200, headers, item.content, 0, size, sent)
    start, stop = found
    if start >= stop:
        return Answer(416, {"Content-Range": f"bytes */{size}"}, Content(b"", NOTHING, 0), 0, 0)
    headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    return Answer(206, headers, item.content, start, stop, sent)


def _range(request: Request, size: int, etag: str) -> tuple[int, int] | None:
    """Return the requested range, cut at the size; None (all bytes) if it is not a single range."""
    found = _RANGE.fullmatch(request.headers.get("range", "").strip())
    if found is None or request.headers.get("if-range", etag) != etag:
        return None
    first, last = found.groups()
    if not first:
        return (max(0, size - int(last)), size) if last else None
    if last and int(last) < int(first):
        return None
    return int(first), min(size, int(last) + 1) if last else size


def restore(state: State, request: Request) -> Answer:
    """Answer ``POST /objects/{id}/restore``."""
    try:
        asked = msgspec.json.decode(request.body.strip() or b"{}", type=_Restore)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Refused(400, 'the body must be {"expirationDays": 1 to 10}') from error
    item = _existing(state, request)
    if item.state != "ARCHIVED":
        raise Refused(400, f"the object is {item.state}, not ARCHIVED")
    state.restore(item.region, item.id)
    return of_json(200, {"expirationDays": asked.expirationDays})
