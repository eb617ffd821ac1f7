"""Applies a fault to a request: replaces its answer, or alters it.

One function per moment: :func:`answer_instead` before the service looks at the request,
:func:`alter_answer` after it has made its answer.
"""

import gzip
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode, urlsplit

import trio

from phonofs.fakeservice.content import Loop, plain
from phonofs.fakeservice.faults import Rule
from phonofs.fakeservice.responses import Answer, Request, of_bytes, of_json
from phonofs.fakeservice.state import State

Respond = Callable[[Request], Answer]

_HTML = b"<html><head><title>Gateway</title></head><body><h1>Gateway error</h1></body></html>"


async def answer_instead(fault: Rule, request: Request, state: State) -> Answer | None:
    """Return the answer that replaces the service's, or None; a delay is spent here."""
    match fault.fail:
        case "delay":
            await trio.sleep(fault["seconds"])
        case "status":
            answer = of_bytes(fault["status"], fault["body"].encode(), fault["content_type"])
            if fault["retry_after"] is not None:
                answer.headers["Retry-After"] = str(fault["retry_after"])
            return answer
        case "html":
            return of_bytes(fault["status"], _HTML, "text/html")
        case "json":
            return of_json(fault["status"], fault["value"])
        case "redirect":
            here = state.url if request.origin == "api" else state.store_url
            same = f"{here}{request.path}?{urlencode(request.query)}"
            answer = of_bytes(fault["status"], b"", "text/plain")
            answer.headers["Location"] = fault["to"] or same
            return answer
        case "reset" | "stall" if fault["after"] < 0:
            answer = of_bytes(200, b"", "text/plain")
            _alter_delivery(fault, answer)
            return answer
    return None


def alter_answer(
    fault: Rule, request: Request, answer: Answer, state: State, respond: Respond
) -> Answer:
    """Return the answer as the fault leaves it; ``respond`` is the service without faults."""
    if fault.fail == "revoke":
        state.tokens.revoke()
    elif fault.fail == "expired" and request.kind == "presign" and answer.status == 200:
        return _expired(answer, state)
    elif fault.fail in ("record", "endless", "repeat", "empty") and answer.status == 200:
        return _repaged(fault, request, answer, respond)
    _alter_content(fault, answer)
    _alter_delivery(fault, answer)
    return answer


def _laid_over(fields: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return the fields with the changes; a change to None removes the field."""
    return {
        name: value
        for name, value in {**fields, **changes}.items()
        if name not in changes or value is not None
    }


def _alter_content(fault: Rule, answer: Answer) -> None:
    match fault.fail:
        case "headers":
            answer.headers = _laid_over(answer.headers, fault["set"])
        case "as_200" if answer.status == 206:
            answer.status = 200
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
            packed = gzip.compress(answer.body(), mtime=0)
            answer.content, answer.start, answer.stop = plain(packed), 0, len(packed)
            answer.headers["Content-Encoding"] = fault["encoding"]
            answer.sent = None


def _alter_delivery(fault: Rule, answer: Answer) -> None:
    match fault.fail:
        case "reset" | "cut" | "stall" as end:
            answer.after = fault["after"]
            answer.end = "close" if end == "cut" else end
        case "drip":
            answer.bytes_per_s = fault["bytes_per_s"]
        case "overrun":
            answer.overrun = fault["by"]
        case "flip":
            answer.flip = (fault["at"], fault["mask"])
        case "unframed":
            answer.unframed = True
            if fault["after"] >= 0:
                answer.after, answer.end = fault["after"], "close"


def _repaged(fault: Rule, request: Request, answer: Answer, respond: Respond) -> Answer:
    """Return an answer with changed records; other answers are returned as they are."""
    try:
        body = json.loads(answer.body())
    except ValueError:
        return answer
    page = _page(body)
    if page is None:
        return answer
    if fault.fail == "record" and "content" in page:
        page["content"] = [_laid_over(record, fault["set"]) for record in page["content"]]
    elif fault.fail == "record":
        body = _laid_over(page, fault["set"])
    elif request.kind == "search":
        _endless(fault, request, page, respond)
    return of_json(200, body)


def _page(body: Any) -> dict[str, Any] | None:
    """Return the object that is the body or the first in it, a page or a record."""
    first = body[0] if isinstance(body, list) and body else body
    return first if isinstance(first, dict) else None


def _endless(fault: Rule, request: Request, page: dict[str, Any], respond: Respond) -> None:
    if fault.fail == "empty":
        page["content"] = []
    elif fault.fail == "endless" and not page["content"]:
        first = respond(replace(request, query={**request.query, "pageKey": "0"}))
        page["content"] = (_page(json.loads(first.body())) or {}).get("content", [])
    page["lastPage"] = page["lastPage"] and fault.fail == "repeat"
    page["pageSize"] = len(page["content"])
    page["pageKey"] = int(request.query.get("pageKey", 0)) + len(page["content"])


def _expired(answer: Answer, state: State) -> Answer:
    """Return the presigned URL signed anew, so that it has expired."""
    text = answer.body().decode()
    url = text[text.index("http") :].rstrip('"}')
    dead = state.presigned(urlsplit(url).path, life_s=-1)
    return of_bytes(200, text.replace(url, dead).encode(), answer.headers["Content-Type"])
