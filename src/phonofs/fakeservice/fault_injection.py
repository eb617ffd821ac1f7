"""Applies a fault to a request: replaces its answer, or alters it.

One function per moment: :func:`answer_instead` before the service looks at the request,
:func:`alter_answer` after it has made its answer.
"""

import gzip
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode, urlsplit

import trio

from phonofs.fakeservice.content import Content, Loop, plain
from phonofs.fakeservice.faults import Fault
from phonofs.fakeservice.responses import Answer, Delivery, of_bytes, of_json
from phonofs.fakeservice.routes import Call
from phonofs.fakeservice.state import State

Respond = Callable[[Call], Answer]

_HTML = b"<html><head><title>Gateway</title></head><body><h1>Gateway error</h1></body></html>"


async def answer_instead(fault: Fault | None, call: Call, state: State) -> Answer | None:
    """Return the answer that replaces the service's, or None; a delay is spent here."""
    if fault is None:
        return None
    match fault.fail:
        case "delay":
            await trio.sleep(fault["seconds"])
        case "status":
            return _status(fault)
        case "html":
            return of_bytes(fault["status"], _HTML, "text/html")
        case "json":
            return of_json(fault["status"], fault["value"])
        case "text":
            return of_bytes(fault["status"], fault["body"].encode(), "application/json")
        case "redirect":
            return _redirect(fault, call, state)
        case "reset" | "stall" if fault["after"] < 0:
            return _broken(fault.fail)
    return None


def _status(fault: Fault) -> Answer:
    answer = of_bytes(fault["status"], fault["body"].encode(), fault["content_type"])
    if fault["retry_after"] is not None:
        answer.headers["Retry-After"] = str(fault["retry_after"])
    return answer


def _redirect(fault: Fault, call: Call, state: State) -> Answer:
    request = call.request
    here = state.url if request.origin == "api" else state.store_url
    query = f"?{urlencode(request.query)}" if request.query else ""
    answer = of_bytes(fault["status"], b"", "text/plain")
    answer.headers["Location"] = fault["to"] or f"{here}{request.path}{query}"
    return answer


def _broken(how: Any) -> Answer:
    answer = of_bytes(200, b"", "text/plain")
    answer.delivery = Delivery(before=how)
    return answer


def alter_answer(
    fault: Fault | None, call: Call, answer: Answer, state: State, respond: Respond
) -> Answer:
    """Return the answer as the fault leaves it; ``respond`` is the service without faults."""
    if fault is None:
        return answer
    if fault.fail == "revoke":
        state.tokens.revoke()
    elif fault.fail == "expired" and call.kind == "presign" and answer.status == 200:
        return _expired(answer, state)
    elif fault.fail in _PAGE and answer.status == 200:
        return _repaged(fault, call, answer, respond)
    _alter_head(fault, answer)
    _alter_body(fault, answer)
    _alter_delivery(fault, answer.delivery)
    return answer


def _alter_head(fault: Fault, answer: Answer) -> None:
    match fault.fail:
        case "headers":
            padding = {f"X-Padding-{number}": "=" * 64 for number in range(fault["lines"])}
            headers = {**answer.headers, **fault["set"], **padding}
            answer.headers = {name: value for name, value in headers.items() if value is not None}
        case "etag":
            answer.headers["ETag"] = fault["etag"]
        case "as_200" if answer.status == 206:
            answer.status = 200


def _alter_body(fault: Fault, answer: Answer) -> None:
    match fault.fail:
        case "short":
            answer.stop = max(answer.start, answer.stop - fault["by"])
        case "long":
            content = answer.content
            loop = content.loop if content.loop.unit else Loop(b"\xa5")
            answer.content = replace(content, loop=loop, size=content.size + fault["by"])
            answer.stop += fault["by"]
        case "wrong_range" if answer.status == 206:
            size = answer.content.size
            by = min(fault["by"], size - answer.stop) or -min(fault["by"], answer.start)
            answer.start, answer.stop = answer.start + by, answer.stop + by
            answer.headers["Content-Range"] = f"bytes {answer.start}-{answer.stop - 1}/{size}"
        case "encoding":
            packed = gzip.compress(answer.content.read(answer.start, answer.stop), mtime=0)
            answer.content, answer.start, answer.stop = plain(packed), 0, len(packed)
            answer.headers["Content-Encoding"] = fault["encoding"]
            answer.sent = None


def _alter_delivery(fault: Fault, delivery: Delivery) -> None:
    match fault.fail:
        case "reset" | "cut" | "stall" as end:
            delivery.after = max(0, fault["after"])
            delivery.end = "close" if end == "cut" else end
        case "drip":
            delivery.bytes_per_s = fault["bytes_per_s"]
        case "overrun":
            delivery.overrun = fault["by"]
        case "flip":
            delivery.flip = (fault["at"], fault["mask"] & 255)
        case "chunks":
            delivery.chunk_bytes = fault["bytes"]
        case "interim":
            delivery.interim = (fault["code"], fault["number"])
        case "unframed":
            delivery.unframed = True
            if fault["after"] >= 0:
                delivery.after, delivery.end = fault["after"], "close"


_PAGE = frozenset({"record", "endless", "repeat", "empty", "bomb"})
_UNITS = {"zeros": "0", "objects": "{}", "arrays": "[]"}


def _repaged(fault: Fault, call: Call, answer: Answer, respond: Respond) -> Answer:
    """Return an answer with changed records; other answers are returned as they are."""
    body = _decoded(answer)
    if fault.fail == "bomb":
        return _bomb(fault, body)
    page = body[0] if isinstance(body, list) and body and isinstance(body[0], dict) else body
    if not isinstance(page, dict):
        return answer
    if fault.fail == "record":
        for record in page.get("content", [page]):
            _lay_over(record, fault["set"])
    elif call.kind == "search":
        _endless(fault, call, page, respond)
    return of_json(200, body)


def _bomb(fault: Fault, body: Any) -> Answer:
    """Return the answer with one huge value, inserted as text.

    Encoding it from objects would take as long as the client's decoding.
    """
    page = body[0] if isinstance(body, list) and body and isinstance(body[0], dict) else body
    records = page.get("content") if isinstance(page, dict) else None
    of, mark = fault["of"], "@bomb@"
    if of in _UNITS:
        place, name = page, "bomb" if records is None else "content"
    else:
        place, name = records[0] if records else page, "tags" if of == "tags" else "bomb"
    if isinstance(place, dict):
        place[name] = mark
    else:
        body = mark
    text = json.dumps(body).replace(json.dumps(mark), _bomb_text(of, fault["items"]))
    return of_bytes(200, text.encode(), "application/json")


def _bomb_text(of: str, items: int) -> str:
    if of == "nested":
        return "[" * items + "]" * items
    unit = _UNITS.get(of, '{"key":"t","value":""}')
    inner = f"{unit}," * items + ("NaN" if of == "arrays" else "")  # NaN is not valid JSON
    return f"[{inner.rstrip(',')}]"


def _endless(fault: Fault, call: Call, page: dict[str, Any], respond: Respond) -> None:
    asked = int(call.asked_offset)
    if fault.fail == "empty":
        page["content"] = []
    elif fault.fail == "endless" and not page["content"]:
        page["content"] = _first_page(call, respond)
    page["lastPage"] = page["lastPage"] and fault.fail == "repeat"
    page["pageSize"] = len(page["content"])
    page["pageKey"] = asked + len(page["content"])


def _first_page(call: Call, respond: Respond) -> list[Any]:
    body = _decoded(respond(call.with_query(pageKey="0")))
    page = body[0] if isinstance(body, list) else body
    return list(page.get("content", []))


def _lay_over(record: dict[str, Any], changes: Mapping[str, Any]) -> None:
    record.update(changes)
    for name in [name for name, value in record.items() if name in changes and value is None]:
        del record[name]


def _decoded(answer: Answer) -> Any:
    content: Content = answer.content
    try:
        return json.loads(content.read(answer.start, answer.stop))
    except ValueError:
        return None


def _expired(answer: Answer, state: State) -> Answer:
    """Return the presigned URL signed anew, so that it has expired."""
    text = answer.content.read(answer.start, answer.stop).decode()
    address = _decoded(answer)
    url = address["url"] if isinstance(address, dict) else address or text
    dead = state.presigned(urlsplit(url).path, life_s=-1)
    body = text.replace(url, dead).encode()
    return of_bytes(200, body, answer.headers["Content-Type"])
