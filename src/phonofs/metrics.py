"""Serves Prometheus metrics of a running mount, if the option ``metrics`` is set.

Names and units follow Prometheus' conventions: base units, ``_total`` for counters. Metrics
contain neither names of people nor URLs. Needs the extra ``phonofs[metrics]``.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import trio

from phonofs.errors import UsageError

prometheus: Any
try:
    import prometheus_client as prometheus
    from prometheus_client import core, exposition
except ImportError:  # the extra phonofs[metrics] is not installed
    prometheus = None

log = logging.getLogger(__name__)

CONNECTIONS = 32
"""Connections that may be open without a request; one Prometheus server uses one."""
CONNECTION_S = 10.0
"""Limit from the connection to the last byte of the response, like Prometheus' own timeout."""
HEAD_MAX = 16384  # bytes of a request

Status = Mapping[str, Any]

GAUGES = {
    "uptime_seconds": ("Time since the mount began.", "uptime_s"),
    "catalogue_objects": ("Objects known.", "catalogue.objects"),
    "catalogue_bytes": ("Their size.", "catalogue.bytes"),
    "token_life_seconds": ("Life left of the bearer token.", "service.token.life_s"),
    "slots_in_use": ("Connections in use.", "service.slots.in_use"),
    "requests_waiting": ("Requests that wait for a connection.", "service.slots.waiting"),
    "request_limit_per_second": (
        "Requests a second allowed at present.",
        "service.rate.limit_per_s",
    ),
    "requests_waiting_for_rate": ("Requests that wait for the rate.", "service.rate.waiting"),
    "cache_disk_bytes": ("Content on disk.", "cache.disk_bytes"),
    "cache_capacity_bytes": ("The cap of the cache.", "cache.cap_bytes"),
    "cache_memory_bytes": ("Content in memory.", "cache.memory_bytes"),
    "journal_last_line": ("Number of the journal's last line.", "journal.last"),
    "journal_reserve_bytes": ("Disk space reserved for the journal.", "journal.reserve_bytes"),
    "open_files": ("Files open.", "fuse.open_files"),
    "door_connections": ("Connections of programs.", "door.connections"),
    "s3_connections": ("Connections of S3 clients.", "s3.connections"),
    "s3_active": ("Requests of S3 clients being answered.", "s3.active"),
    "door_files": ("Files that programs have open.", "door.handles"),
    "waiting_operations": ("File operations that wait for the service.", "fuse.waiting"),
}
"""Metric names (without ``phonofs_``), each with its help and its path in the status."""

COUNTERS = {
    "received_bytes": ("Bytes received from the service.", "service.received_bytes"),
    "throttled_responses": ("Answers of the service with status 429.", "service.rate.throttled"),
    "served_bytes": ("Bytes given to readers.", "reader.served_bytes"),
    "read_hits": ("Reads answered from the cache.", "reader.hits"),
    "read_misses": ("Reads that waited for the service.", "reader.misses"),
    "door_requests": ("Requests of programs.", "door.requests"),
    "door_bytes": ("Bytes given to programs.", "door.bytes"),
    "s3_requests": ("Requests of S3 clients.", "s3.requests"),
    "s3_bytes": ("Bytes given to S3 clients.", "s3.bytes"),
    "s3_turned_away": ("Connections beyond the most at a time.", "s3.turned_away"),
    "cache_evictions": ("Objects evicted.", "cache.evictions"),
    "cache_errors": ("Failures of the cache's disk.", "cache.errors"),
    "journal_failures": ("Failures to write the journal.", "journal.failures"),
    "journal_unrecorded": ("Files opened without a line in the journal.", "journal.unrecorded"),
}

LABELLED = {
    "requests": ("Requests by kind.", "service.requests", "kind"),
    "crawler_opens_refused": ("Opens refused to crawlers.", "opens.refused", "program"),
    "door_errors": ("Answers to programs by errno.", "door.errnos", "errno"),
    "s3_errors": ("Answers to S3 clients by error code.", "s3.errors", "code"),
    "operation_errors": ("Answers of the file system by errno.", "fuse.errnos", "errno"),
}


def value_at(status: Status, place: str) -> Any:
    """Return the value at a dotted path in the status, or None if there is none."""
    value: Any = status
    for word in place.split("."):
        value = value.get(word) if isinstance(value, Mapping) else None
    return value


class Collector:
    """Builds the metrics from the status at each scrape. Keeps none of them."""

    def __init__(self, status: Callable[[], Status]) -> None:
        self._status = status

    def collect(self) -> Iterator[Any]:
        """Yield all metric families."""
        status = self._status()
        for kind, table in ((core.GaugeMetricFamily, GAUGES), (core.CounterMetricFamily, COUNTERS)):
            for name, (text, place) in table.items():
                value = value_at(status, place)
                if isinstance(value, int | float):
                    yield kind(f"phonofs_{name}", text, value=value)
        for name, (text, place, label) in LABELLED.items():
            family = core.CounterMetricFamily(f"phonofs_{name}", text, labels=[label])
            for key, value in (value_at(status, place) or {}).items():
                family.add_metric([str(key)], value)
            yield family


class Metrics:
    """Serves the metrics over HTTP, on the event loop. Owns the connections while it runs.

    The port may be open to a network, so the size and the time of a request and the number of
    connections without a request are limited. Beyond that number the oldest of them is closed.
    """

    def __init__(self, address: str, status: Callable[[], Status]) -> None:
        """``address`` is ``host:port`` or ``port``. Raises UsageError without the extra."""
        if prometheus is None:
            raise UsageError("metrics needs an extra: `pip install 'phonofs[metrics]'`")
        host, _, port = address.rpartition(":")
        self._host, self._port = host.strip("[]") or "127.0.0.1", int(port)
        self._registry = prometheus.CollectorRegistry()
        self._registry.register(Collector(status))
        self._waiting: list[trio.CancelScope] = []  # connections without a request, oldest first

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled. Raises UsageError if the address cannot be used."""
        try:
            listeners = await trio.open_tcp_listeners(self._port, host=self._host)
        except OSError as error:
            where = f"{self._host}:{self._port}"
            why = error.strerror or error
            raise UsageError(f"metrics cannot be served on {where}: {why}") from None
        task_status.started()
        await trio.serve_listeners(self._serve, listeners)

    async def _serve(self, stream: trio.SocketStream) -> None:
        try:
            async with stream:
                with trio.move_on_after(CONNECTION_S):
                    head = await self._head(stream)
                    if head:
                        await stream.send_all(self._answer(head))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        except Exception:
            log.exception("a request for metrics failed")

    async def _head(self, stream: trio.SocketStream) -> bytes:
        """Receive the head of the request; empty if none came, or the connection was dropped."""
        while len(self._waiting) >= CONNECTIONS:
            self._waiting.pop(0).cancel()
        received = bytearray()
        with trio.CancelScope() as scope:
            self._waiting.append(scope)
            try:
                while b"\r\n\r\n" not in received and len(received) < HEAD_MAX:
                    chunk = await stream.receive_some(4096)
                    if not chunk:
                        return b""
                    received += chunk
            finally:
                if scope in self._waiting:
                    self._waiting.remove(scope)
        return b"" if scope.cancelled_caught else bytes(received)

    def _answer(self, head: bytes) -> bytes:
        line, *lines = head.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
        method = line.partition(" ")[0]
        if method not in ("GET", "HEAD"):
            return b"HTTP/1.1 405 Method Not Allowed\r\nAllow: GET\r\nConnection: close\r\n\r\n"
        fields = [each.partition(":") for each in lines]
        accept = next((value for name, _, value in fields if name.lower() == "accept"), "")
        encode, kind = exposition.choose_encoder(accept.strip())
        body = encode(self._registry)
        said = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
        whole = said.encode() + b"Connection: close\r\n\r\n"
        return whole if method == "HEAD" else whole + bytes(body)
