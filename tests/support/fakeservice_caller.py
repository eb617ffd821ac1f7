"""Sends requests to the fake service in the same process, without sockets."""

import base64
import json
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from phonofs.fakeservice.account import Account, flat_item
from phonofs.fakeservice.faults import Faults, load
from phonofs.fakeservice.options import DEMO_KEY, DEMO_SECRET, Options
from phonofs.fakeservice.responses import Answer, Request
from tests.support.counted_service import Service

BORN_MS = 1_700_000_000_000
NOW_MS = 1_800_000_000_000


class Caller:
    """A client of one fake service; it has a token once :meth:`log_in` was called."""

    def __init__(self, account: Account, faults: str = "", **options: Any) -> None:
        plan = Faults(load(faults)) if faults else None
        self.now_ms = NOW_MS
        self.service = Service(account, Options(**options), plan, now_ms=lambda: self.now_ms)
        self.token = ""

    async def send(
        self, method: str, url: str, body: bytes = b"", bearer: bool = True, **headers: str
    ) -> Answer:
        """Return the answer; ``url`` is a path below the region, an absolute path or a full URL."""
        parts = urlsplit(url)
        origin = "store" if url.startswith(self.service.store_url) else "api"
        path = parts.path if parts.path.startswith("/") else f"/storage/us-east/v3/{parts.path}"
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if bearer and self.token:
            named.setdefault("authorization", f"Bearer {self.token}")
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        return await self.service.answer(Request(method, path, query, named, body, origin))

    async def get(self, url: str, **query: Any) -> Any:
        """Send a GET that must be answered 200; return the decoded JSON."""
        answer = await self.send("GET", f"{url}?{urlencode(query)}" if query else url)
        assert answer.status == 200, await body_of(answer)
        return json.loads(await body_of(answer))

    async def log_in(self) -> dict[str, str]:
        """Fetch a token and keep it."""
        basic = base64.b64encode(f"{DEMO_KEY}:{DEMO_SECRET}".encode()).decode()
        answer = await self.send(
            "POST",
            "/oauth/v2/token",
            b"grant_type=client_credentials",
            bearer=False,
            authorization=f"Basic {basic}",
            content_type="application/x-www-form-urlencoded",
        )
        assert answer.status == 200
        given: dict[str, str] = json.loads(await body_of(answer))
        self.token = given["access_token"]
        return given


async def body_of(answer: Answer) -> bytes:
    """Return the whole body of an answer."""
    return b"".join([bytes(piece) async for piece in answer.pieces()])


async def logged_in(account: Account, faults: str = "", **options: Any) -> Caller:
    """Return a caller with a token."""
    caller = Caller(account, faults, **options)
    await caller.log_in()
    return caller


def few(count: int = 5, size: int = 1000) -> Account:
    """Make an account of objects ``o0``, ``o1``, …, a second apart."""
    return Account(flat_item(f"o{at}", size + at, BORN_MS + at * 1000) for at in range(count))
