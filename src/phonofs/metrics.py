"""Prometheus metrics of a running mount, off unless asked for (option ``metrics``).

Names and units follow Prometheus' conventions: base units, ``_total`` for counters. They carry
neither names of people nor URLs. Needs the extra ``phonofs[metrics]``.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import trio

from phonofs.errors import UsageError

prometheus: Any
try:
    import prometheus_client as prometheus
    from prometheus_client import core
except ImportError:  # the extra phonofs[metrics] is not installed
    prometheus = None

Status = Mapping[str, Any]

GAUGES = {
    "uptime_seconds": ("Time since the mount began.", "uptime_s"),
    "catalogue_objects": ("Objects known.", "catalogue.objects"),
    "catalogue_bytes": ("Their size.", "catalogue.bytes"),
    "token_life_seconds": ("Life left of the bearer token.", "service.token.life_s"),
    "slots_in_use": ("Connections in use.", "service.slots.in_use"),
    "requests_waiting": ("Requests that wait for a connection.", "service.slots.waiting"),
    "cache_disk_bytes": ("Content on disk.", "cache.disk_bytes"),
    "cache_capacity_bytes": ("The cap of the cache.", "cache.cap_bytes"),
    "cache_memory_bytes": ("Content in memory.", "cache.memory_bytes"),
    "open_files": ("Files open.", "fuse.open_files"),
    "waiting_operations": ("File operations that wait for the service.", "fuse.waiting"),
}
"""Metric name (after ``phonofs_``) to its help and its place in the status."""

COUNTERS = {
    "received_bytes": ("Bytes received from the service.", "service.received_bytes"),
    "served_bytes": ("Bytes given to readers.", "reader.served_bytes"),
    "read_hits": ("Reads answered from the cache.", "reader.hits"),
    "read_misses": ("Reads that waited for the service.", "reader.misses"),
    "cache_evictions": ("Objects evicted.", "cache.evictions"),
    "cache_errors": ("Failures of the cache's disk.", "cache.errors"),
}

LABELLED = {
    "requests": ("Requests by kind.", "service.requests", "kind"),
    "operation_errors": ("Answers of the file system by errno.", "fuse.errnos", "errno"),
}


def value_at(status: Status, place: str) -> Any:
    """The value at a dotted place of the status; None where there is none."""
    value: Any = status
    for word in place.split("."):
        value = value.get(word) if isinstance(value, Mapping) else None
    return value


class Collector:
    """Makes the metrics anew at each scrape from the status. Keeps nothing."""

    def __init__(self, status: Callable[[], Status]) -> None:
        self._status = status

    def collect(self) -> Iterator[Any]:
        """All metric families."""
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
    """Serves the metrics. Owns the server's thread while it runs."""

    def __init__(self, address: str, status: Callable[[], Status]) -> None:
        """``address`` is ``host:port`` or ``port``. Raises UsageError without the extra."""
        if prometheus is None:
            raise UsageError("metrics needs an extra: `pip install 'phonofs[metrics]'`")
        host, _, port = address.rpartition(":")
        self._host, self._port = host.strip("[]") or "127.0.0.1", int(port)
        self._status = status

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled. Raises UsageError where the address can't be used."""
        token = trio.lowlevel.current_trio_token()

        def status() -> Status:  # in the server's thread; the rooms belong to the loop
            return trio.from_thread.run_sync(self._status, trio_token=token)

        registry = prometheus.CollectorRegistry()
        try:
            server, _thread = await trio.to_thread.run_sync(
                lambda: prometheus.start_http_server(self._port, self._host, registry)
            )
        except OSError as error:
            where = f"{self._host}:{self._port}"
            raise UsageError(f"metrics cannot be served on {where}: {error.strerror}") from None
        registry.register(_Described(Collector(status)))
        try:
            task_status.started()
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):  # shutdown answers within half a second
                await trio.to_thread.run_sync(server.shutdown)
            server.server_close()


class _Described:
    """A collector that is not asked at registration, which happens on the loop's own thread."""

    def __init__(self, inner: Collector) -> None:
        self._inner = inner

    def describe(self) -> list[Any]:
        """Nothing: metrics are made at each scrape."""
        return []

    def collect(self) -> Iterator[Any]:
        """All metric families."""
        return self._inner.collect()
