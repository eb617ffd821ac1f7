"""Endpoints that the real service lacks: they show a fault, or change the account, by hand.

All are ``POST`` and take JSON:

``/-/faults``   replaces the fault plan
``/-/options``  changes fields of :mod:`.options`, e.g. ``{"key": "b", "secret": "b"}``
``/-/add``      ``{"id": …, "createdTime": …}``: adds an object, or replaces it
``/-/change``   ``{"region": …, "id": …}``: changes fields of an object, and ``updatedTime``

``add`` and ``change`` take the fields of a record (``customerId``, ``tags``, …). The content is
given as ``text``, or as ``size`` in bytes with a ``seed`` (another seed gives other bytes).
``storedBytes`` sets the size stated in the record if it is to differ from the content's. Without
``region``, the object is in ``us-east``. No token is needed, because the fake service listens on
loopback only.
"""

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from phonofs.errors import UsageError
from phonofs.fakeservice.account import flat_item
from phonofs.fakeservice.content import plain, ramp
from phonofs.fakeservice.faults import Faults, load
from phonofs.fakeservice.responses import Answer, Refused, Request, of_json
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
"""The field of an Item for each field of a record that has another name there."""


def answer(state: State, request: Request) -> Answer:
    """Answer a request below ``/-/``. Raises Refused if it is invalid."""
    try:
        _apply(state, request.id, request.body.decode())
    except (ValueError, TypeError, KeyError, AttributeError, UsageError) as error:
        raise Refused(400, f"{type(error).__name__}: {error}") from error
    return of_json(200, {})


def _apply(state: State, what: str, body: str) -> None:
    match what:
        case "faults":
            state.misbehave(Faults(load(body or "{}")))
        case "options":
            state.choose(**json.loads(body))
        case "add":
            fields = {"customer_id": state.options.customer_id, **_fields(json.loads(body))}
            new = flat_item(fields["id"], 0, fields["created_ms"], content=fields["content"])
            state.account.put(replace(new, **fields))
        case "change":
            fields = {"updated_ms": state.now_ms(), **_fields(json.loads(body))}
            old = state.account.item(fields.get("region", "us-east"), fields["id"])
            if old is None:
                raise KeyError(f"no object {fields['id']}")
            state.account.put(replace(old, **fields))
        case _:
            raise Refused(404, "no such path")


def _fields(asked: dict[str, Any]) -> dict[str, Any]:
    """Return fields of an Item; ``asked`` names them as a record does."""
    written, size, seed = (asked.pop(name, None) for name in ("text", "size", "seed"))
    named = {_FIELDS.get(name, name): value for name, value in asked.items()}
    for name in named.keys() & {"created_ms", "updated_ms"}:
        time = datetime.fromisoformat(named[name]).replace(tzinfo=UTC)
        named[name] = int(time.timestamp() * 1000)
    if "tags" in named:
        named["tags"] = {tag["key"]: tag["value"] for tag in named["tags"]}
    if written is not None:
        named["content"] = plain(written.encode())
    elif size is not None:
        named["content"] = ramp(named["id"] if seed is None else seed, size)
    return named
