"""Endpoints that the real service lacks: they inspect the fake service and change its objects.

``GET /-/counters``, ``POST /-/clear``, ``GET /-/faults`` (met and fired), and these that take JSON:

``POST /-/faults``   replaces the fault plan
``POST /-/options``  changes fields of :mod:`.options`, e.g. ``{"key": "b", "secret": "b"}``
``POST /-/add``      ``{"id": …, "created_ms": …}``: adds an object, or replaces it
``POST /-/change``   ``{"region": …, "id": …}``: changes fields of an object, and ``updatedTime``

``add`` and ``change`` take the fields of :class:`.account.Item`, also by their names in a record
(``customerId``, ``createdTime``, ``tags``, …). The content is given as ``text``, or as ``size`` in
bytes with a ``seed`` (another seed gives other bytes). ``storedBytes`` sets the size stated in the
record if it is to differ from the content's. Without ``region``, an object is added to
``us-east``. No token is needed, because the fake service listens on loopback only.
"""

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from phonofs.errors import UsageError
from phonofs.fakeservice.account import change, flat_item
from phonofs.fakeservice.content import Content, ramp, text
from phonofs.fakeservice.faults import Faults, load
from phonofs.fakeservice.responses import Answer, of_json, refusal
from phonofs.fakeservice.routes import Call
from phonofs.fakeservice.state import State

_FIELDS = {
    "objectName": "name",
    "mimeType": "mime_type",
    "createdTime": "created_ms",
    "updatedTime": "updated_ms",
    "objectState": "state",
    "customerId": "customer_id",
    "userId": "user_id",
    "bucketId": "bucket_id",
    "storedBytes": "size",
}
"""The field of an Item for each field name of a record."""


class AdminApi:
    """Answers requests below ``/-/``. Keeps no state of its own."""

    def __init__(self, state: State) -> None:
        self._state = state

    def answer(self, call: Call) -> Answer:
        """Answer the request; with 400 if it is invalid."""
        state = self._state
        match call.request.method, call.id:
            case "GET", "counters":
                return of_json(200, state.counters.as_json())
            case "POST", "clear":
                state.counters.clear()
                return of_json(200, {})
            case "GET", "faults":
                return of_json(200, {"met": state.faults.met, "fired": state.faults.fired})
            case "POST", "faults" | "options" | "change" | "add":
                return self._changed(call)
        return refusal(404, "no such path")

    def _changed(self, call: Call) -> Answer:
        try:
            self._apply(call.id, call.request.body.decode())
        except (ValueError, TypeError, KeyError, AttributeError, UsageError) as error:
            return refusal(400, f"{type(error).__name__}: {error}")
        return of_json(200, {})

    def _apply(self, what: str, body: str) -> None:
        state = self._state
        if what == "faults":
            state.misbehave(Faults(load(body or "{}")))
            return
        asked: dict[str, Any] = json.loads(body)
        match what:
            case "options":
                state.choose(**asked)
            case "add":
                self._add(asked)
            case "change":
                self._change(asked)

    def _add(self, asked: dict[str, Any]) -> None:
        content = _content(asked)
        if content is None:
            raise KeyError("size")
        given = {"customer_id": self._state.options.customer_id, **_fields(asked)}
        stored = given.pop("size", None)
        item = flat_item(given.pop("id"), 0, given.pop("created_ms"), content=content, **given)
        self._state.account.put(replace(item, size=stored))

    def _change(self, asked: dict[str, Any]) -> None:
        state = self._state
        region, content = asked.pop("region"), _content(asked)
        fields = _fields(asked)
        id, now_ms = fields.pop("id"), fields.pop("updated_ms", state.now_ms())
        if content is not None:
            fields["content"] = content
        if not change(state.account, region, id, now_ms, **fields):
            raise KeyError(f"no object {id} in {region}")


def _content(asked: dict[str, Any]) -> Content | None:
    """Remove the content parameters; return the content, or None if they name none."""
    written, size = asked.pop("text", None), asked.pop("size", None)
    seed = asked.pop("seed", asked["id"])
    if written is not None:
        return text(written)
    return None if size is None else ramp(seed, size)


def _fields(asked: dict[str, Any]) -> dict[str, Any]:
    """Return fields of an Item; they may be named as in Item or as in a record."""
    named = {_FIELDS.get(name, name): value for name, value in asked.items()}
    for name in ("created_ms", "updated_ms"):
        if isinstance(named.get(name), str):
            named[name] = _epoch_ms(named[name])
    if isinstance(named.get("tags"), list):
        named["tags"] = {tag["key"]: tag["value"] for tag in named["tags"]}
    return named


def _epoch_ms(time: str) -> int:
    """Convert a time as in records (UTC) to epoch milliseconds."""
    return int(datetime.fromisoformat(time).replace(tzinfo=UTC).timestamp() * 1000)
