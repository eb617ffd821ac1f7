"""The fake 8x8 Cloud Storage Service, without sockets: a request in, an answer out.

It requires what the real service requires and refuses what that refuses; it never deletes. It has
two origins: ``api``, and ``store`` for presigned URLs. It has no bulk downloads and no buckets,
because phonofs uses neither. Below ``/-/``, the api origin accepts fault plans and changes.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import trio

from phonofs.fakeservice import admin_api, objects
from phonofs.fakeservice.fault_injection import alter_answer, answer_instead
from phonofs.fakeservice.faults import Rule
from phonofs.fakeservice.responses import Answer, Refused, Request, of_bytes, of_json
from phonofs.fakeservice.routes import routed
from phonofs.fakeservice.state import State

KNOWN_REGIONS = ("us-west", "us-east", "uk", "ap", "ca", "eu")


class Service(State):
    """Answers requests from the state of one account. The server and the tests use it."""

    async def answer(self, request: Request) -> Answer:
        """Answer one request. Never raises; iterating the answer's pieces sends the body."""
        request = routed(request)
        self.finish_restores()
        fault = None if request.handler == "admin" else self.faults.decide(request)
        if self.options.latency_s:  # else a request is answered without letting another in between
            await trio.sleep(self.options.latency_s)
        if request.handler in _WITH_TOKEN and (pause_s := self.throttled_s()):
            return _too_many(pause_s)
        instead = await answer_instead(fault, request, self) if fault else None
        if instead is not None:
            return instead
        answer = self._respond(_misunderstood(request, fault) if fault else request)
        answer.bytes_per_s = self.options.bytes_per_s
        return alter_answer(fault, request, answer, self, self._respond) if fault else answer

    def _respond(self, request: Request) -> Answer:
        """Answer as the service does when nothing goes wrong."""
        try:
            return self._handled(request)
        except Refused as refused:
            return refused.answer

    def _handled(self, request: Request) -> Answer:
        if request.handler in _REFUSED:
            raise Refused(*_REFUSED[request.handler])
        if request.handler in _WITHOUT_TOKEN:
            return _WITHOUT_TOKEN[request.handler](self, request)
        if not self.tokens.accepts(request):
            raise Refused(401, "no token, or one that has expired")
        if request.region not in {*KNOWN_REGIONS, *self.account.regions}:
            raise Refused(404, f"no such region: {request.region}")
        return _WITH_TOKEN[request.handler](self, request)


def _too_many(pause_s: float) -> Answer:
    answer = of_bytes(429, b"", "text/plain")
    answer.headers["Retry-After"] = str(math.ceil(pause_s))
    return answer


def _misunderstood(request: Request, fault: Rule) -> Request:
    """Return the request as a fault makes the service misunderstand it."""
    if fault.fail == "whole":
        return replace(request, headers={**request.headers, "range": ""})
    if fault.fail == "repeat" and request.kind == "search":
        return replace(request, query={**request.query, "pageKey": "0"})
    return request


_REFUSED = {
    "": (404, "no such path"),
    "wrong_method": (405, "method not allowed"),
    "delete": (403, "this key may not delete"),
}
_Handlers = Mapping[str, Callable[[State, Request], Answer]]
_WITHOUT_TOKEN: _Handlers = {
    "token": lambda state, request: state.tokens.answer(request, state.options, state.now_ms()),
    "store": objects.presigned_content,
    "admin": admin_api.answer,
}
_WITH_TOKEN: _Handlers = {
    "regions": lambda state, _: of_json(200, list(state.account.regions)),
    "search": objects.search,
    "record": objects.record,
    "content": objects.content,
    "restore": objects.restore,
}
