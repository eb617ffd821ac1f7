"""Formats what ``phonofs status`` shows: a dozen lines for people, or every gauge.

Pure functions of the status document (``status.py``) and of the time. Used by ``cli/status.py``.
"""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from phonofs.units import format_count, format_duration, format_rate, format_size, printable

BAR_WIDTH = 24
BAR_BLOCKS = "█░"
BAR_ASCII = "#-"

Status = Mapping[str, Any]
Row = tuple[str, str]
"""A label and its value."""


def overview(
    status: Status, now_s: float, before: Status | None = None, bar: str = BAR_BLOCKS
) -> list[Row]:
    """Return the rows of the short form.

    ``now_s`` is the wall clock in epoch seconds. With ``before``, an earlier status of the same
    mount, the traffic is shown as a rate, and the hit rate covers the time since then. ``bar``
    contains the characters for the used and the free space of the cache.
    """
    rows = [
        ("mounted" if status.get("mountpoint") else "serving", _mounted(status)),
        ("condition", str(status.get("condition", "unknown"))),
        ("token", _token(status)),
        ("known", _known(status)),
        ("views", _views(status)),
        ("changes", _changes(status, now_s)),
        ("cache", _cache(status, bar)),
        ("hit rate", _hit_rate(status, before)),
        ("traffic", _traffic(status, before)),
        ("now", _now(status)),
        ("S3 clients", _s3(status)),
        ("journal", _journal(status)),
        ("crawlers", _crawlers(status)),
        ("restores", _restores(status, now_s)),
        ("commands", _commands(status)),
        ("last error", _last_error(status, now_s)),
    ]
    return [(label, printable(value)) for label, value in rows if value]


def all_rows(status: Mapping[str, object], indent: int = 0) -> Iterator[Row]:
    """Yield the name and the value of each gauge; nested ones follow their name, indented."""
    labels = _labels(status)
    for name, value in status.items():
        label = "  " * indent + labels[name]
        if isinstance(value, Mapping):
            if value:
                yield label, ""
                yield from all_rows(value, indent + 1)
        elif value is not None and value != [] and value != "":
            yield label, format_gauge(name, value)


def format_gauge(name: str, value: object) -> str:
    """Format a gauge for people; the suffix of its name says its unit."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(format_gauge("", item) for item in value)
    if isinstance(value, Mapping):
        return " ".join(f"{key}={format_gauge(key, item)}" for key, item in value.items())
    if isinstance(value, int | float):
        return _number(name, value)
    return printable(str(value))


def _mounted(status: Status) -> str:
    profile, pid = status.get("profile", "unknown"), status.get("pid", "unknown")
    uptime = format_duration(_at(status, "uptime_s"))
    return f"profile {profile}, for {uptime} (phonofs {status.get('version', '')}, pid {pid})"


def _token(status: Status) -> str:
    token = _found(status, "service", "token") or {}
    if token.get("valid"):
        return f"valid for {format_duration(_at(token, 'life_s'))}"
    return f"none: {token['error']}" if token.get("error") else "none"


def _known(status: Status) -> str:
    objects = format_count(int(_at(status, "catalogue", "objects")), "object")
    regions = ", ".join(_found(status, "catalogue", "regions") or [])
    where = f", in {regions}" if regions else ""
    known = f"{objects}, {format_size(_at(status, 'catalogue', 'bytes'))}{where}"
    return "; ".join(filter(None, (known, _whole_since(status), _index(status))))


def _whole_since(status: Status) -> str:
    """Return since when every object of every region is known."""
    runs = _found(status, "catalogue", "known") or {}
    if not runs or not all(runs.values()):
        return ""
    return f"all from {max(found[-1][0] for found in runs.values())} on"


def _index(status: Status) -> str:
    """Return what the indexer does or has, if the option ``index`` is on."""
    state, day = _found(status, "index", "state"), _found(status, "index", "day")
    if state in (None, "off"):
        return ""
    if state == "done":
        known = _found(status, "index", "texts")
        return "" if known is None else format_count(known, "text")
    error = _found(status, "index", "error")
    return f"indexing, {error}" if error else f"indexing, at {day}" if day else "indexing"


def _views(status: Status) -> str:
    """Return where the views are, since no listing shows them; each region has its own."""
    name, point = _found(status, "views", "name"), status.get("mountpoint", "")
    several = len(_found(status, "catalogue", "regions") or []) > 1
    return f"{point}/{'*/' if several else ''}{name}" if name else ""


def _changes(status: Status, now_s: float) -> str:
    """Return when the region polled longest ago was polled, and which regions fail."""
    followed = _found(status, "catalogue", "followed") or {}
    polls = [_at(region, "polled_at") for region in followed.values()]
    if not polls or min(polls) <= 0:
        checked = "not checked yet"
    else:
        checked = f"checked {_ago(now_s - min(polls))}"
    failing = [
        f"; {name} could not be checked ({format_count(int(_at(region, 'failures')), 'failure')})"
        for name, region in followed.items()
        if _at(region, "failures")
    ]
    return checked + "".join(failing)


def _cache(status: Status, bar: str) -> str:
    if _found(status, "cache", "state") != "on":
        return f"off: {_found(status, 'cache', 'reason') or 'no reason given'}"
    used, cap = _at(status, "cache", "disk_bytes"), _at(status, "cache", "cap_bytes")
    share = min(used / cap, 1.0) if cap > 0 else 0.0
    filled = min(max(round(share * BAR_WIDTH), int(used > 0)), BAR_WIDTH)
    drawn = bar[0] * filled + bar[1] * (BAR_WIDTH - filled)
    said = f"{drawn} {format_size(used)} of {format_size(cap)} on disk"
    apart = _at(status, "cache", "set_aside_bytes")
    return said + (f", {format_size(apart)} of it for other accounts" if apart else "")


def _hit_rate(status: Status, before: Status | None) -> str:
    hits, misses = (_gained(status, before, "reader", name) for name in ("hits", "misses"))
    if not hits + misses:
        hits, misses = _at(status, "reader", "hits"), _at(status, "reader", "misses")
    reads = int(hits + misses)
    return f"{hits / reads:.0%} of {format_count(reads, 'read')}" if reads else "no reads yet"


def _traffic(status: Status, before: Status | None) -> str:
    received = _gained(status, before, "service", "received_bytes")
    served = _gained(status, before, "reader", "served_bytes")
    unit = ""
    if before is not None:
        took_s = max(_gained(status, before, "uptime_s"), 0.001)
        received, served, unit = received / took_s, served / took_s, "/s"
    return f"{format_size(received)}{unit} from the service, {format_size(served)}{unit} to readers"


def _now(status: Status) -> str:
    gauges = (
        ("open file", _at(status, "fuse", "open_files") + _at(status, "door", "handles")),
        ("client", _connections(status)),
        ("request", _at(status, "service", "slots", "in_use")),
        ("queued request", _at(status, "service", "slots", "waiting")),
        ("waiting operation", _at(status, "fuse", "waiting")),
    )
    busy = [format_count(int(number), noun) for noun, number in gauges if number]
    paused_s = _at(status, "service", "paused_s")
    if paused_s > 0:
        busy.append(f"the service asked for a pause of {format_duration(paused_s)}")
    return ", ".join([*busy, *_rate(status)]) or "idle"


def _rate(status: Status) -> Iterator[str]:
    """Yield how often the service is asked, if requests wait for that or a 429 was the reason."""
    rate = _found(status, "service", "rate")
    limit_per_s, waiting = _at(rate, "limit_per_s"), int(_at(rate, "waiting"))
    if waiting:
        waits = format_count(waiting, "request")
        yield f"{waits} waiting for the rate of {format_rate(limit_per_s)}"
    elif limit_per_s and limit_per_s != _at(rate, "max_per_s"):
        yield f"slowed down to {format_rate(limit_per_s)}"


def _connections(status: Status) -> float:
    """Return how many programs are connected; the status of a daemon was itself asked by one."""
    connected = _at(status, "door", "connections")
    return connected if status.get("mountpoint") else max(0, connected - 1)


def _s3(status: Status) -> str:
    """Return where S3 clients are served, if they are, and what is wrong with their keys."""
    address = _found(status, "s3", "address")
    if not address:
        return ""
    connected = format_count(int(_at(status, "s3", "connections")), "connection")
    error = _found(status, "s3", "keys_error")
    said = f"; their keys stay as they were: {error}" if error else ""
    keys = format_count(int(_at(status, "s3", "keys")), "key")
    return f"served at {address}, {keys}, {connected}{said}"


def _journal(status: Status) -> str:
    """Return how the access journal is doing, if there is one."""
    state = _found(status, "journal", "state")
    if state in (None, "off"):
        return ""
    if state == "failing":
        return f"cannot be written: {_found(status, 'journal', 'error')}"
    return f"{_found(status, 'journal', 'file')}, line {int(_at(status, 'journal', 'last')):,}"


def _crawlers(status: Status) -> str:
    """Return which programs were refused an open, and how often."""
    refused = _found(status, "opens", "refused") or {}
    counts = ", ".join(f"{name} {count:,}" for name, count in refused.items())
    return f"opens refused: {counts}" if counts else ""


def _restores(status: Status, now_s: float) -> str:
    pending = int(_at(status, "restores", "pending"))
    if not pending:
        return ""
    asked_s = now_s - _at(status, "restores", "oldest_at")
    return f"{format_count(pending, 'object')} pending, the oldest requested {_ago(asked_s)}"


def _commands(status: Status) -> str:
    trouble = status.get("control_error")
    return f"not accepted: {trouble}" if trouble else ""


def _last_error(status: Status, now_s: float) -> str:
    error = _found(status, "fuse", "last_error")
    if not error:
        return "none"
    at_s = _at(status, "fuse", "last_error_at")
    return f"{_ago(now_s - at_s)}: {error}" if at_s else str(error)


def _ago(seconds: float) -> str:
    return f"{format_duration(seconds)} ago"


def _gained(status: Status, before: Status | None, *path: str) -> float:
    """Return how much a counter grew since ``before``, or since the mount started if None."""
    return _at(status, *path) - _at(before, *path)


def _found(status: Any, *path: str) -> Any:
    for name in path:
        status = status.get(name) if isinstance(status, Mapping) else None
    return status


def _at(status: Any, *path: str) -> float:
    found = _found(status, *path)
    return float(found) if isinstance(found, int | float) else 0.0


def _labels(names: Iterable[str]) -> dict[str, str]:
    """Return the label of each name: without its unit, which the value has, unless two would then
    have the same label."""
    short = {name: _without_unit(name) for name in names}
    often = Counter(short.values())
    return {
        name: (label if often[label] == 1 else name).replace("_", " ")
        for name, label in short.items()
    }


def _without_unit(name: str) -> str:
    for unit in ("_bytes_per_s", "_bytes", "_s", "_ms"):
        name = name.removesuffix(unit)
    return name


def _number(name: str, value: float) -> str:
    if name.endswith("_bytes_per_s"):
        return f"{format_size(value)}/s"
    if name == "bytes" or name.endswith("_bytes"):
        return format_size(value)
    if name.endswith("_s"):
        return format_duration(value)
    if name.endswith("_ms"):
        return _date(value / 1000)
    if name.endswith("_at"):
        return _date(value) if value > 0 else "never"
    if name == "pid":
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.3g}"


def _date(epoch_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(epoch_s))
