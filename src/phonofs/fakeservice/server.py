"""The stand-in on two loopback ports: the api's origin and the store's.

``serve`` runs it in the caller's process (tests), ``serve_forever`` is a whole program's work.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

import trio

from phonofs.errors import UsageError
from phonofs.fakeservice.account import Account
from phonofs.fakeservice.faults import Faults
from phonofs.fakeservice.http_server import serve_connection
from phonofs.fakeservice.options import Options
from phonofs.fakeservice.service import Service

HOST = "127.0.0.1"
BACKLOG = 512


@asynccontextmanager
async def serve(
    account: Account,
    options: Options | None = None,
    faults: Faults | None = None,
    *,
    port: int = 0,
    store_port: int = 0,
    service: Service | None = None,
) -> AsyncIterator[Service]:
    """Serve the account on loopback until the block ends; port 0 takes any free one.

    Gives the service, whose ``url`` and ``store_url`` are set. ``service``: one made before (with
    a clock of its own, say) in place of ``account``, ``options`` and ``faults``. Raises
    UsageError where a port is taken.
    """
    service = service or Service(account, options, faults)
    api, store = await _listen(port), await _listen(store_port)
    service.listen_at(_url(api), _url(store))
    error: Exception | None = None
    async with trio.open_nursery() as nursery:
        _accept(nursery, service, "api", api)
        _accept(nursery, service, "store", store)
        try:
            yield service
        except Exception as raised:  # noqa: BLE001 (raised again below, not within a group)
            error = raised
        nursery.cancel_scope.cancel()
    if error is not None:
        raise error


async def _listen(port: int) -> list[trio.SocketListener]:
    if not 0 <= port < 65536:
        raise UsageError(f"{port} is not a port")
    try:
        return await trio.open_tcp_listeners(port, host=HOST, backlog=BACKLOG)
    except OSError as error:
        raise UsageError(f"port {port} on {HOST} cannot be used: {error}") from error


def _url(listeners: list[trio.SocketListener]) -> str:
    return f"http://{HOST}:{listeners[0].socket.getsockname()[1]}"


def _accept(
    nursery: trio.Nursery, service: Service, origin: str, listeners: list[trio.SocketListener]
) -> None:
    handler = partial(
        serve_connection, origin=origin, respond=service.answer, counters=service.counters
    )
    nursery.start_soon(partial(trio.serve_listeners, handler, listeners))


async def serve_forever(
    account: Account,
    options: Options | None = None,
    faults: Faults | None = None,
    *,
    port: int = 0,
    store_port: int = 0,
    announce: Callable[[Service], None] = lambda service: None,
) -> None:
    """Serve until cancelled; ``announce`` is called once both ports are open."""
    async with serve(account, options, faults, port=port, store_port=store_port) as service:
        announce(service)
        await trio.sleep_forever()
