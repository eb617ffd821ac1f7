"""What the service does not have: ways for a test of another process to look and to change.

``GET /-/counters``, ``POST /-/clear``, ``GET /-/faults`` (met and fired), ``POST /-/faults`` (a
new plan), ``POST /-/change`` (``{"region", "id", fields of Item}``), ``POST /-/add`` (``{"id",
"size", "created_ms", fields of Item}``). No token: the stand-in listens on loopback only.
"""

import json
from typing import TYPE_CHECKING, Any

from phonofs.demo.account import change, flat_item
from phonofs.demo.answers import Answer, of_json, refusal
from phonofs.demo.faults import Faults, load
from phonofs.demo.routes import Call
from phonofs.errors import UsageError

if TYPE_CHECKING:
    from phonofs.demo.service import Service


class Backdoor:
    """Answers what lies below ``/-/``. Keeps no state of its own."""

    def __init__(self, service: "Service") -> None:
        self._service = service

    def answer(self, call: Call) -> Answer:
        """The answer; 400 where the request makes no sense."""
        service = self._service
        match call.request.method, call.id:
            case "GET", "counters":
                return of_json(200, service.counters.as_json())
            case "POST", "clear":
                service.counters.clear()
                return of_json(200, {})
            case "GET", "faults":
                return of_json(200, {"met": service.faults.met, "fired": service.faults.fired})
            case "POST", "faults" | "change" | "add":
                return self._changed(call)
        return refusal(404, "no such path")

    def _changed(self, call: Call) -> Answer:
        try:
            self._apply(call.id, call.request.body.decode())
        except (ValueError, TypeError, KeyError, AttributeError, UsageError) as error:
            return refusal(400, f"{type(error).__name__}: {error}")
        return of_json(200, {})

    def _apply(self, what: str, body: str) -> None:
        service = self._service
        if what == "faults":
            service.faults = Faults(load(body or "{}"))
            return
        asked: dict[str, Any] = json.loads(body)
        if what == "add":
            service.account.put(flat_item(**asked))
            return
        region, id = asked.pop("region"), asked.pop("id")
        if not change(service.account, region, id, service.now_ms(), **asked):
            raise KeyError(f"no object {id} in {region}")
