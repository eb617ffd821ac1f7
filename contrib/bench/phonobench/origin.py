"""The origin: one process that serves the same objects as the 8x8 API, as WebDAV and as an index.

asyncio on bare sockets, ``sendfile`` for the bytes: fast enough not to be what is measured (the
benchmark shows a raw socket's figure beside it). Answers as long after a request came as the
latency is, its own work being part of that, and limits each connection's speed, or has it start
slowly as TCP does; all are changed while it runs through ``/-/set``. Counts what it sent. Speaks
just enough HTTP/1.1 for the two peers; it is not a server for anyone else.

    /oauth/v2/token  /storage/{region}/v3/…   the API
    /dav/…                                     WebDAV: PROPFIND, HEAD, GET
    /files/…                                   an index of links, HEAD, GET
    /-/set?latency_s=&bytes_per_s=&window=  /-/stats   for the benchmark
"""

import argparse
import asyncio
import json
import os
import re
import signal
import socket
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from phonobench.account import REGION, Account, Many, dav_file, multistatus, record
from phonobench.things import Thing, load

HEAD_MOST = 64 * 1024
SEND_BUFFER = 4 * 1024 * 1024
"""So that one connection is not held up by this process being asked elsewhere."""
TICK_S = 0.01
"""A limited connection gets its bytes in portions of this long."""
FIRST_WINDOW = 14_000
"""What a connection that starts slowly sends in its first round trip (RFC 6928: 10 segments)."""
IDLE_S = 0.2
"""After this long without sending it begins anew, as Linux has it (tcp_slow_start_after_idle)."""

REASONS = {200: "OK", 206: "Partial Content", 207: "Multi-Status", 404: "Not Found",
           405: "Method Not Allowed", 416: "Range Not Satisfiable"}  # fmt: skip
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


@dataclass(frozen=True, slots=True)
class Request:
    """One request, its body dropped. Header names in lower case."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]


@dataclass(slots=True)
class Answer:
    """One answer: ``body``, or the bytes ``[start, stop)`` of ``thing``."""

    status: int
    headers: dict[str, str]
    body: bytes = b""
    thing: Thing | None = None
    start: int = 0
    stop: int = 0

    @property
    def length(self) -> int:
        """The Content-Length."""
        return self.stop - self.start if self.thing else len(self.body)


class Site:
    """What is served. Owns the counters and the speeds, in seconds and bytes per second.

    ``window``: a connection starts with ``FIRST_WINDOW`` bytes a round trip, and doubles them each
    time up to this many; 0: it does not.
    """

    def __init__(self, account: Account, root: Path, latency_s: float, bytes_per_s: float) -> None:
        self._account = account
        self._root = root
        self.latency_s = latency_s
        self.bytes_per_s = bytes_per_s
        self.window = 0
        self.requests: Counter[str] = Counter()
        self.sent: Counter[str] = Counter()

    def answer(self, request: Request) -> Answer:
        """The answer to one request, without waiting."""
        first, _, rest = request.path.lstrip("/").partition("/")
        if first == "-":
            return self._control(rest, request.query)
        self.requests[f"{request.method} {first}"] += 1
        if first == "oauth":
            return _json(_token())
        if first == "storage":
            return self._api(rest.split("/"), request)
        if first in ("dav", "files"):
            return self._tree(first, rest.strip("/"), request)
        return Answer(404, {})

    def _control(self, what: str, query: Mapping[str, str]) -> Answer:
        self.latency_s = float(query.get("latency_s", self.latency_s))
        self.bytes_per_s = float(query.get("bytes_per_s", self.bytes_per_s))
        self.window = int(query.get("window", self.window))
        self._account.told = query.get("told", "True") == "True"
        if what == "stats":
            return _json({"requests": self.requests, "sent": self.sent})
        self.requests.clear()
        self.sent.clear()
        return _json({})

    def _api(self, parts: list[str], request: Request) -> Answer:
        match parts[2:]:
            case ["regions"]:
                return _json([REGION])
            case ["objects"]:
                return _bytes(self._account.page(request.query), "application/json")
            case ["objects", id] if thing := self._account.find(id):
                return _bytes(record(thing), "application/json")
            case ["objects", id, "content"] if thing := self._account.find(id):
                return _content(thing, request)
        return Answer(404, {})

    def _tree(self, kind: str, path: str, request: Request) -> Answer:
        thing = self._account.at(path)
        if thing is None:
            return self._folder(kind, path, request)
        if request.method != "PROPFIND":
            return _content(thing, request)
        return _dav(multistatus(dav_file(f"/dav/{thing.day}/", thing)))

    def _folder(self, kind: str, path: str, request: Request) -> Answer:
        prefix = f"/{kind}/"
        if request.method == "PROPFIND":
            found = self._account.multistatus(path, prefix)
            return Answer(404, {}) if found is None else _dav(found)
        found = self._account.index(path, prefix)
        return Answer(404, {}) if found is None else _bytes(found, "text/html")

    def file_of(self, thing: Thing) -> Path:
        """Where the bytes of an object lie."""
        return self._root / "id" / thing.id


def _token() -> dict[str, object]:
    return {
        "access_token": "bench", "token_type": "BearerToken", "expires_in": "3599",
        "status": "approved", "issued_at": "1704067200000", "scope": "",
        "api_product_list": "[storage]", "api_product_list_json": ["storage"],
    }  # fmt: skip


def _json(value: object) -> Answer:
    return _bytes(json.dumps(value).encode(), "application/json")


def _bytes(body: bytes, kind: str) -> Answer:
    return Answer(200, {"Content-Type": kind}, body)


def _dav(body: bytes) -> Answer:
    return Answer(207, {"Content-Type": "application/xml; charset=utf-8"}, body)


def _content(thing: Thing, request: Request) -> Answer:
    """An object's bytes: 200, or 206 for one range."""
    headers = {
        "Content-Type": "audio/mpeg",
        "Accept-Ranges": "bytes",
        "ETag": f'"{thing.md5 or thing.id}"',
        "Last-Modified": formatdate(thing.created_ms / 1000, usegmt=True),
    }
    asked = _RANGE.fullmatch(request.headers.get("range", ""))
    if asked is None or asked.groups() == ("", ""):
        return Answer(200, headers, thing=thing, stop=thing.size)
    start, stop = _span(asked[1], asked[2], thing.size)
    if start >= stop:
        return Answer(416, {"Content-Range": f"bytes */{thing.size}"})
    headers["Content-Range"] = f"bytes {start}-{stop - 1}/{thing.size}"
    return Answer(206, headers, thing=thing, start=start, stop=stop)


def _span(first: str, last: str, size: int) -> tuple[int, int]:
    if not first:
        return max(0, size - int(last)), size
    return int(first), min(size, int(last) + 1) if last else size


class Connection:
    """One client. Owns its socket; ``_buffer`` holds what came after the last request.

    ``_window`` is what it sends in a round trip if it starts slowly, ``_sent_s`` when it last sent.
    """

    def __init__(self, site: Site, client: socket.socket) -> None:
        self._site = site
        self._client = client
        self._loop = asyncio.get_running_loop()
        self._buffer = b""
        self._window = FIRST_WINDOW
        self._sent_s = 0.0

    async def serve(self) -> None:
        """Answer until the client leaves or breaks the rules."""
        self._client.setblocking(False)
        self._client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        try:
            while (request := await self._request()) is not None:
                due_s = self._loop.time() + self._site.latency_s
                await self._send(request, self._site.answer(request), due_s)
                if request.headers.get("connection", "").lower() == "close":
                    break
        except (OSError, ValueError):
            pass  # the client went away, or does not speak HTTP: it is only a benchmark's
        finally:
            self._client.close()

    async def _request(self) -> Request | None:
        while b"\r\n\r\n" not in self._buffer:
            more = await self._loop.sock_recv(self._client, HEAD_MOST)
            if not more or len(self._buffer) > HEAD_MOST:
                return None
            self._buffer += more
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        line, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = line.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in
                   (each.partition(":") for each in lines)}  # fmt: skip
        await self._drop(int(headers.get("content-length", 0)))
        parts = urlsplit(target)
        query = dict(parse_qsl(parts.query))
        return Request(method, unquote(parts.path), query, headers)

    async def _drop(self, size: int) -> None:
        """Read a request's body and forget it."""
        while len(self._buffer) < size:
            more = await self._loop.sock_recv(self._client, HEAD_MOST)
            if not more:
                raise ConnectionResetError
            self._buffer += more
        self._buffer = self._buffer[size:]

    async def _send(self, request: Request, answer: Answer, due_s: float) -> None:
        headers = {"Content-Length": str(answer.length), **answer.headers}
        lines = [f"HTTP/1.1 {answer.status} {REASONS[answer.status]}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
        if answer.thing is not None and request.method != "HEAD":
            with self._site.file_of(answer.thing).open("rb") as file:
                await self._until(request, due_s)
                self._client.send(head, socket.MSG_MORE)  # it fits: nothing is on its way
                await self._send_file(answer, answer.thing, file.fileno())
        else:
            await self._until(request, due_s)
            body = b"" if request.method == "HEAD" else answer.body
            await self._loop.sock_sendall(self._client, head + body)

    async def _until(self, request: Request, due_s: float) -> None:
        wait_s = due_s - self._loop.time()
        if wait_s > 0 and not request.path.startswith("/-/"):
            await asyncio.sleep(wait_s)

    async def _send_file(self, answer: Answer, thing: Thing, file: int) -> None:
        """The bytes of an object, in portions as large and as often as the line allows."""
        at, window, rate = answer.start, self._site.window, self._site.bytes_per_s
        if self._loop.time() - self._sent_s > self._site.latency_s + IDLE_S:
            self._window = FIRST_WINDOW
        due_s = self._loop.time()
        while at < answer.stop:
            portion = min(self._window, window) if window else int(rate * TICK_S) or SEND_BUFFER
            end = min(answer.stop, at + portion)
            due_s += (end - at) / rate if rate and not window else 0
            await self._send_portion(thing, file, at, end)
            at = end
            if window:
                due_s += self._site.latency_s
                self._window = min(2 * self._window, window)
            if at < answer.stop:
                await asyncio.sleep(max(0, due_s - self._loop.time()))  # or the others' turn
        self._sent_s = self._loop.time()

    async def _send_portion(self, thing: Thing, file: int, at: int, end: int) -> None:
        """Send ``[at, end)``; what the kernel has taken counts as sent."""
        while at < end:
            try:
                sent = os.sendfile(self._client.fileno(), file, at, end - at)
            except BlockingIOError:
                await self._writable()
                continue
            if not sent:
                raise ValueError(f"the file of {thing.id} ends early")
            at += sent
            self._site.sent[thing.id] += sent
            if at < end:
                await asyncio.sleep(0)

    async def _writable(self) -> None:
        """Wait until the socket takes more."""
        free = self._loop.create_future()
        self._loop.add_writer(self._client, _wake, free)
        try:
            await free
        finally:
            self._loop.remove_writer(self._client)


def _wake(free: "asyncio.Future[None]") -> None:
    if not free.done():
        free.set_result(None)


async def serve(site: Site, listener: socket.socket) -> None:
    """Accept until SIGTERM."""
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, asyncio.current_task().cancel)  # type: ignore[union-attr]
    tasks: set[asyncio.Task[None]] = set()
    listener.setblocking(False)
    while True:
        client, _ = await loop.sock_accept(listener)
        task = loop.create_task(Connection(site, client).serve())
        tasks.add(task)
        task.add_done_callback(tasks.discard)


def main() -> None:
    """``python -m phonobench.origin --root FOLDER --things FILE``; prints its port."""
    parser = argparse.ArgumentParser(description="The benchmark's origin.")
    parser.add_argument("--root", type=Path, default=Path())
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--things", type=Path, help="the objects, as things.save wrote them")
    what.add_argument("--counts", type=Path, help="a JSON list: how many on each day, no bytes")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--latency", type=float, default=0.0, help="seconds")
    parser.add_argument("--rate", type=float, default=0.0, help="bytes per second; 0: unlimited")
    given = parser.parse_args()
    account = Account(load(given.things)) if given.things else _many(given.counts)
    site = Site(account, given.root, given.latency, given.rate)
    listener = socket.create_server(("127.0.0.1", given.port), backlog=128)
    print(listener.getsockname()[1], flush=True)
    try:
        asyncio.run(serve(site, listener))
    except (KeyboardInterrupt, asyncio.CancelledError):
        os._exit(0)


def _many(file: Path) -> Many:
    return Many(json.loads(file.read_text()))


if __name__ == "__main__":
    main()
