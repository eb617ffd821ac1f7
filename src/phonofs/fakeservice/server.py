"""The fake service on two loopback ports: the API's origin and the store's."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import trio

from phonofs.errors import UsageError
from phonofs.fakeservice.http_server import serve_connection
from phonofs.fakeservice.service import Service

HOST = "127.0.0.1"
BACKLOG = 512


@asynccontextmanager
async def serve(service: Service, *, port: int = 0, store_port: int = 0) -> AsyncIterator[Service]:
    """Serve on loopback until the block ends; port 0 takes any free port.

    Yields the service, whose ``url`` and ``store_url`` are set. Raises UsageError if a port is
    taken.
    """
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
