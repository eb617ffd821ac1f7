"""A small service for tests of the client; a handler answers through MockTransport.

Content is a ramp modulo a prime, so that a test notices a misplaced byte.
"""

import json
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import trio

from phonofs.config import Secret
from phonofs.model import Record
from phonofs.service.auth import TokenProvider
from phonofs.service.client import Client
from phonofs.service.session import Transport

API = "https://api.example.com"
STORE = "https://store.example.net"


def ramp(size: int) -> bytes:
    """Return ``size`` bytes in which no two nearby windows are equal."""
    return (bytes(range(251)) * (size // 251 + 1))[:size]


def record(id: str = "one", size: int = 1000, **changes: Any) -> Record:
    """Make a record of the region ``uk``."""
    fields: dict[str, Any] = {
        "id": id,
        "region": "uk",
        "type": "callrecording",
        "mime_type": "audio/mpeg",
        "object_name": "a.mp3",
        "size": size,
        "created_ms": 1_700_000_000_000,
        "updated_ms": 1_700_000_000_000,
        "state": "AVAILABLE",
        "checksum": "",
        "tags": {},
        "source": b"{}",
    }
    return Record(**{**fields, **changes})


def record_json(id: str = "one", /, **changes: Any) -> dict[str, Any]:
    """Return a record as the service sends it."""
    return {
        "id": id,
        "type": "callrecording",
        "mimeType": "audio/mpeg",
        "objectName": "a.mp3",
        "checksumType": "MD5",
        "checksum": "c03f27f4b1ca0aefea989f1c1b432d9e",
        "storedBytes": 28224,
        "createdTime": "2022-11-01T21:22:22",
        "updatedTime": "2022-11-01T21:22:32",
        "objectState": "AVAILABLE",
        "tags": [{"key": "callId", "value": "1"}],
    } | changes


class Service:
    """Serves one object ``one`` of 1000 bytes by one delivery method; records every request."""

    def __init__(self, way: str = "range", size: int = 1000) -> None:
        self.way = way
        self.data = ramp(size)
        self.etag = '"v1"'
        self.life_s: object = "1799"
        self.tokens = 0
        self.valid: set[str] = set()
        self.requests: list[httpx.Request] = []
        self.answers: list[Any] = []  # used before any other answer: a Response, or a callable
        self.records: list[dict[str, Any]] = []
        self.urls = 0
        self.refused_urls: set[str] = set()
        self.token_delay_s = 0.0

    def paths(self, part: str = "") -> list[str]:
        """Return the requested targets that contain ``part``."""
        return [str(r.url) for r in self.requests if part in str(r.url)]

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        """Answer one request."""
        self.requests.append(request)
        if request.url.path == "/oauth/v2/token":
            return await self._token(request)
        if self.answers:
            answer = self.answers.pop(0)
            return answer(request) if callable(answer) else answer
        if str(request.url).startswith(STORE):
            return self._store(request)
        if request.headers.get("authorization", "")[7:] not in self.valid:
            return httpx.Response(401)
        return self._api(request)

    async def _token(self, request: httpx.Request) -> httpx.Response:
        await trio.sleep(self.token_delay_s)
        self.tokens += 1
        self.valid = {f"token-{self.tokens}"}
        answer = {"access_token": f"token-{self.tokens}", "expires_in": self.life_s}
        return httpx.Response(200, json=answer)

    def _api(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if path.endswith("/regions"):
            return httpx.Response(200, json=["uk"])
        if path.endswith("/content"):
            return self._content(request)
        if path.endswith("/objects"):
            page = {"lastPage": True, "pageKey": 1, "content": self.records}
            return httpx.Response(200, content=json.dumps(page).encode())
        return httpx.Response(404)

    def _content(self, request: httpx.Request) -> httpx.Response:
        if self.way == "presign" and "presignUrl" in str(request.url):
            return httpx.Response(200, json={"url": self._url()})
        if self.way == "redirect":
            return httpx.Response(302, headers={"Location": self._url()})
        if "presignUrl" in str(request.url):
            return httpx.Response(400)
        return self.bytes(request, ranges=self.way == "range")

    def _url(self) -> str:
        self.urls += 1
        return f"{STORE}/o?X-Amz-Expires=1800&n={self.urls}"

    def _store(self, request: httpx.Request) -> httpx.Response:
        if "authorization" in request.headers:
            return httpx.Response(400, text="only one auth mechanism allowed")
        if str(request.url) in self.refused_urls:
            return httpx.Response(403, text="Request has expired")
        return self.bytes(request, ranges=True)

    def bytes(self, request: httpx.Request, *, ranges: bool) -> httpx.Response:
        """Answer with the content, or with the requested range."""
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range", ""))
        headers = {"ETag": self.etag}
        condition = request.headers.get("if-range")
        if not ranges or match is None or condition not in (None, self.etag):
            return httpx.Response(200, headers=headers, content=self.data)
        start, total = int(match[1]), len(self.data)
        stop = min(int(match[2]) + 1 if match[2] else total, total)
        if start >= total:
            return httpx.Response(416, headers={"Content-Range": f"bytes */{total}"})
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{total}"
        return httpx.Response(206, headers=headers, content=self.data[start:stop])


class Connected:
    """A client of a service, its token provider and its transport."""

    def __init__(self, transport: Transport, keeper: TokenProvider, client: Client) -> None:
        self.transport = transport
        self.keeper = keeper
        self.client = client

    async def read(self, start: int = 0, stop: int | None = None, **how: Any) -> bytes:
        """Return the bytes that a request for ``[start, stop)`` of the object yields."""
        async with self.client.content(record(), start, stop, **how) as body:
            data = b"".join([bytes(chunk) async for chunk in body])
            return data[start - body.start :]


def plain_httpx(
    context: ssl.SSLContext | None = None, connections: int = 16
) -> httpx.AsyncHTTPTransport:
    """Return httpx's own transport as phonofs uses it for proxies, but without one."""
    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
    return httpx.AsyncHTTPTransport(verify=context or True, http2=False, limits=limits)


async def credentials() -> tuple[str, Secret]:
    """Return a key and a secret."""
    return "key", Secret("s3cret-canary")


@asynccontextmanager
async def connected(
    handler: Any, *, api_url: str = API, timeout_s: float = 30.0, **options: Any
) -> AsyncIterator[Connected]:
    """Make a client whose requests ``handler`` answers."""
    mock = httpx.MockTransport(handler)
    slots = options.pop("max_connections", 16)
    read = options.pop("credentials", credentials)
    async with Transport(api_url, http=mock, timeout_s=timeout_s, max_connections=slots) as way:
        async with trio.open_nursery() as nursery:
            keeper = TokenProvider(way, read)
            await nursery.start(keeper.run)
            yield Connected(way, keeper, Client(way, keeper, **options))
            nursery.cancel_scope.cancel()
        assert way.slots.statistics()["in_use"] == 0


class CancelAt(trio.abc.Instrument):
    """Cancels a scope at a task's n-th step, so that a test can cancel at every checkpoint."""

    def __init__(self, task: trio.lowlevel.Task, step: int, scope: trio.CancelScope) -> None:
        self.task, self.left, self.scope = task, step, scope

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """Count the steps of the one task."""
        if task is self.task:
            self.left -= 1
            if self.left == 0:
                self.scope.cancel()


async def cancelled_at(step: int, work: Any) -> bool:
    """Run ``work()`` and cancel it at its n-th step; return whether it had that step."""
    with trio.CancelScope() as scope:
        instrument = CancelAt(trio.lowlevel.current_task(), step, scope)
        trio.lowlevel.add_instrument(instrument)
        try:
            await work()
        finally:
            trio.lowlevel.remove_instrument(instrument)
    return instrument.left <= 0
