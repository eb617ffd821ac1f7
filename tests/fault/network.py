"""A TCP proxy between phonofs and the fake service that fails by a seeded plan.

It forwards bytes and knows just enough of HTTP/1.1 to tell one answer from the next (a request
that arrives after bytes of an answer begins another) and a head from a body. A rule selects
requests as in ``fakeservice/faults.py`` (``path``, ``nth``, ``every``, ``probability``…); its
``fail`` is one of FAILURES, with the parameters named there. ``fired`` counts the faults that
really happened: an answer may end before the byte at which it was to fail.
"""

import contextlib
import math
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, NoReturn

import trio

from phonofs.fakeservice.account import Account
from phonofs.fakeservice.faults import Faults, Plan, Rule
from phonofs.fakeservice.options import Options
from phonofs.fakeservice.responses import Request
from tests.support.counted_service import Service
from tests.support.mounts import StandIn

HOST = "127.0.0.1"
BACKLOG = 512
RECEIVE = 1 << 16
DRIPS_A_SECOND = 10
RST_ON_CLOSE = struct.pack("ii", 1, 0)
"""struct linger: on, 0 s."""

FAILURES: Mapping[str, Mapping[str, Any]] = {
    # `after`: bytes of the answer, with its head, that pass first; all take `count`
    "delay": {"seconds": 0.5},
    "drip": {"bytes_per_s": 1000},
    "cut": {"after": 0},  # both connections end
    "rst": {"after": 0},
    "hole": {"after": 0},  # no more bytes in either direction; the connection stays open
    "half-close": {"after": 0},  # the answer's direction ends; the other stays open
    "flip": {"at": 0, "mask": 1, "part": "body"},  # this byte of the head or of the body
}


def plan(*rules: Mapping[str, Any], seed: int = 1) -> Faults:
    """Make the faults of these rules; a rule without a ``name`` is named after its ``fail``."""
    return Faults(Plan(tuple(_rule(index, rule) for index, rule in enumerate(rules)), seed))


def _rule(index: int, given: Mapping[str, Any]) -> Rule:
    parameters = FAILURES[given["fail"]]
    select = {name: given[name] for name in given.keys() - parameters.keys() - {"fail", "count"}}
    name = str(select.setdefault("name", given["fail"]))
    if type(select.get("nth")) is int:
        select["nth"] = [select["nth"]]
    values = {key: given.get(key, default) for key, default in parameters.items()}
    values["count"] = given.get("count", math.inf)
    return Rule(name, index, select, given["fail"], values)


class Network:
    """The proxy in front of both origins of a fake service.

    Owns its listeners (one port for each origin), the plan and the counts: ``fired`` by the name
    of the rule, ``open`` connections now, connections ``accepted`` so far.
    """

    def __init__(self) -> None:
        self.decided = plan()
        self.fired: Counter[str] = Counter()
        self.open = 0
        self.accepted = 0
        self._nursery: trio.Nursery | None = None
        self._doors: dict[int, tuple[int, trio.CancelScope]] = {}

    def faults(self, *rules: Mapping[str, Any], seed: int = 1) -> None:
        """Apply these rules from the next request on, or none; reset the counts."""
        self.decided = plan(*rules, seed=seed)
        self.fired = Counter()

    @asynccontextmanager
    async def before(self, service: Service) -> AsyncIterator[None]:
        """Serve in front of a service until the block ends; its URLs have our ports."""
        async with trio.open_nursery() as self._nursery:
            service.url = await self._door_to(service.url)
            service.store_url = await self._door_to(service.store_url)
            yield
            self._nursery.cancel_scope.cancel()

    async def refuse(self) -> None:
        """Close every listener and every connection; new connections are refused."""
        for _, scope in self._doors.values():
            scope.cancel()
        for port in self._doors:
            while await _connects(port):
                await trio.lowlevel.checkpoint()
        self.fired["refuse"] += 1

    async def admit(self) -> None:
        """Listen again, on the same ports."""
        for port, (target, _) in list(self._doors.items()):
            await self._open(port, target)

    async def _door_to(self, url: str) -> str:
        return f"http://{HOST}:{await self._open(0, int(url.rpartition(':')[2]))}"

    async def _open(self, port: int, target: int) -> int:
        (listener,) = await trio.open_tcp_listeners(port, host=HOST, backlog=BACKLOG)
        number = int(listener.socket.getsockname()[1])
        scope = trio.CancelScope()
        self._doors[number] = (target, scope)

        async def serve() -> None:
            with scope:
                async with listener:
                    await trio.serve_listeners(passing, [listener])

        async def passing(client: trio.SocketStream) -> None:
            await self._pass(client, target)

        assert self._nursery is not None
        self._nursery.start_soon(serve)
        return number

    async def _pass(self, client: trio.SocketStream, target: int) -> None:
        self.open += 1
        self.accepted += 1
        try:
            async with client, await trio.open_tcp_stream(HOST, target) as server:
                await Passage(self, client, server).run()
        except OSError:
            pass  # the fake service is down
        finally:
            self.open -= 1


class Passage:
    """A connection of the client and the matching connection to the fake service.

    Owns the state of the current answer: the number of bytes passed on, the length of its head
    once that is known, and the fault decided for it.
    """

    def __init__(
        self, network: Network, client: trio.SocketStream, server: trio.SocketStream
    ) -> None:
        self._network = network
        self._client = client
        self._server = server
        self._fault: Rule | None = None
        self._struck = False
        self._passed = -1
        self._head_bytes = 0
        self._tail = b""
        for stream in (client, server):
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    async def run(self) -> None:
        """Forward until one side or a fault ends the connection."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._answers, nursery.cancel_scope)
                await self._requests()
                nursery.cancel_scope.cancel()
        except* (_Ended, trio.BrokenResourceError):
            pass

    async def _requests(self) -> None:
        async for data in self._client:
            if self._passed:
                self._decide(data)
            await self._server.send_all(data)

    def _decide(self, request: bytes) -> None:
        path = request.split(b" ", 2)[1].decode("latin-1") if request.count(b" ") > 1 else ""
        self._fault = self._network.decided.decide(Request("GET", path))
        self._struck, self._passed, self._head_bytes, self._tail = False, 0, 0, b""

    async def _answers(self, scope: trio.CancelScope) -> None:
        with contextlib.suppress(trio.BrokenResourceError):
            async for data in self._server:
                await self._answer(bytes(data))
        scope.cancel()

    async def _answer(self, data: bytes) -> None:
        fault = self._fault
        if fault is None or not self._due(fault):
            await self._forward(data)
        elif fault.fail == "flip":
            await self._forward(self._flipped(data, fault))
        elif fault.fail == "delay":
            if not self._passed:
                self._strike(fault)
                await trio.sleep(fault["seconds"])
            await self._forward(data)
        elif fault.fail == "drip":
            await self._drip(data, fault)
        else:
            room = fault["after"] - self._passed
            await self._forward(data[: max(room, 0)])
            if room < len(data):
                self._strike(fault)
                await self._end(fault.fail)

    async def _forward(self, data: bytes) -> None:
        self._passed += len(data)
        if data:
            await self._client.send_all(data)

    async def _drip(self, data: bytes, fault: Rule) -> None:
        if not self._passed:
            self._strike(fault)
        size = max(1, int(fault["bytes_per_s"] / DRIPS_A_SECOND))
        for start in range(0, len(data), size):
            await self._forward(data[start : start + size])
            await trio.sleep(1 / DRIPS_A_SECOND)

    def _flipped(self, data: bytes, fault: Rule) -> bytes:
        """Return the data, with the fault's byte changed if the data contains it."""
        if not self._head_bytes:
            seen = self._tail + data
            end = seen.find(b"\r\n\r\n")
            if end >= 0:
                self._head_bytes = self._passed + end + 4 - len(self._tail)
            self._tail = seen[-3:]
        in_body = fault["part"] == "body"
        if in_body and not self._head_bytes:
            return data
        place = fault["at"] + self._head_bytes * in_body - self._passed
        limit = len(data) if in_body or not self._head_bytes else self._head_bytes - self._passed
        if not 0 <= place < limit:
            return data
        self._strike(fault)
        return data[:place] + bytes([data[place] ^ fault["mask"]]) + data[place + 1 :]

    async def _end(self, fail: str) -> NoReturn:
        if fail == "rst":
            self._client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST_ON_CLOSE)
        elif fail == "half-close":
            await self._client.send_eof()
        if fail in ("hole", "half-close"):
            await trio.sleep_forever()  # until the client closes the connection
        raise _Ended

    def _due(self, fault: Rule) -> bool:
        return self._struck or self._network.fired[fault.name] < fault["count"]

    def _strike(self, fault: Rule) -> None:
        self._struck = True
        self._network.fired[fault.name] += 1


class _Ended(Exception):
    """The fault has ended the connection."""


async def _connects(port: int) -> bool:
    try:
        stream = await trio.open_tcp_stream(HOST, port)
    except OSError:
        return False
    await trio.aclose_forcefully(stream)
    return True


class NetworkedStandIn(StandIn):
    """A fake service in a thread, behind a network; ``network`` can be told to fail."""

    def __init__(self, account: Account, options: Options | None = None) -> None:
        super().__init__(account, options)
        self.network = Network()

    def beside(self, service: Service) -> contextlib.AbstractAsyncContextManager[None]:
        """Run the network in the service's thread."""
        return self.network.before(service)

    def refuse(self) -> None:
        """Call :meth:`Network.refuse` from the test's thread."""
        trio.from_thread.run(self.network.refuse, trio_token=self._token)

    def admit(self) -> None:
        """Call :meth:`Network.admit` from the test's thread."""
        trio.from_thread.run(self.network.admit, trio_token=self._token)


@contextlib.contextmanager
def networked(account: Account, options: Options | None = None) -> Iterator[NetworkedStandIn]:
    """Run a fake service behind a network until the block ends."""
    stand_in = NetworkedStandIn(account, options)
    stand_in.start()
    try:
        yield stand_in
    finally:
        stand_in.stop()


@asynccontextmanager
async def before(service: Service) -> AsyncIterator[Network]:
    """Run a network in front of a service that is up."""
    network = Network()
    async with network.before(service):
        yield network
