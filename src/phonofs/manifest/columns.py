"""The columns of a manifest: what is said of each object. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo

import msgspec

from phonofs.model import Record
from phonofs.search.facets import duration_ms, epoch_ms
from phonofs.tree.extensions import extension
from phonofs.tree.naming import first_tag, party

Value = str | int | float | datetime | None
Column = tuple[str, Callable[["Listed"], Value]]
"""The name of a column, and its value for an object."""


@dataclass(frozen=True, slots=True)
class Listed:
    """One object of a manifest: the name of its file, its path, its record.

    zone      of the times
    profile   the profile whose account it is of
    shown_as  its name in a view; empty if it is not listed in one
    """

    path: str
    record: Record
    zone: tzinfo
    profile: str
    shown_as: str = ""

    @property
    def name(self) -> str:
        """The name in its folder."""
        return self.shown_as or self.path.rpartition("/")[2]


class _User(msgspec.Struct):
    userId: str | int | None = None


def _tag(*keys: str) -> Callable[[Listed], Value]:
    return lambda listed: first_tag(listed.record.tags, *keys)


def _time(listed: Listed, at_ms: int | None) -> datetime | None:
    try:
        return None if at_ms is None else datetime.fromtimestamp(at_ms / 1000, listed.zone)
    except (ValueError, OverflowError):
        return None


def _tag_time(listed: Listed, key: str) -> datetime | None:
    return _time(listed, epoch_ms(listed.record.tags.get(key)))


def _end(listed: Listed) -> datetime | None:
    """Return ``endTime``, else the start and the duration together."""
    end, start, lasts = _tag_time(listed, "endTime"), _tag_time(listed, "startTime"), None
    if end is None and start is not None:
        lasts = duration_ms(listed.record)
    return start + timedelta(milliseconds=lasts) if start and lasts is not None else end


def _duration_s(listed: Listed) -> float | None:
    found = duration_ms(listed.record)
    return None if found is None else found / 1000


def _agent_id(listed: Listed) -> str:
    """Return ``agentId``, else the ``userId`` of the record, which is no tag."""
    found = first_tag(listed.record.tags, "agentId")
    if found:
        return found
    try:
        return str(msgspec.json.decode(listed.record.source, type=_User).userId or "")
    except msgspec.MsgspecError:
        return ""


def _url(listed: Listed) -> str:
    record = listed.record
    ending = extension(record.mime_type, record.object_name)
    return f"phonofs://{listed.profile}/.id/{record.region}/{record.id}.{ending}"


COLUMNS: Sequence[Column] = (
    ("name", lambda listed: listed.name),
    ("path", lambda listed: listed.path),
    ("id", lambda listed: listed.record.id),
    ("region", lambda listed: listed.record.region),
    ("type", lambda listed: listed.record.type),
    ("state", lambda listed: str(listed.record.state)),
    ("created", lambda listed: _time(listed, listed.record.created_ms)),
    ("updated", lambda listed: _time(listed, listed.record.updated_ms)),
    ("start", lambda listed: _tag_time(listed, "startTime")),
    ("end", _end),
    ("duration_s", _duration_s),
    ("direction", lambda listed: first_tag(listed.record.tags, "direction").lower()),
    ("agent", _tag("agentName", "userName")),
    ("agent_id", _agent_id),
    ("email", _tag("userEmail")),
    ("extension", _tag("extensionNumber")),
    ("queue", _tag("queueName")),
    ("queue_number", _tag("queueNumber")),
    ("channel", _tag("channelName")),
    ("caller", _tag("callerId")),
    ("caller_name", _tag("callerName")),
    ("callee", _tag("calleeId")),
    ("callee_name", _tag("calleeName")),
    ("party", lambda listed: party(listed.record)),
    ("call_id", _tag("callId")),
    ("transaction_id", _tag("transactionId")),
    ("bytes", lambda listed: listed.record.size),
    ("mime_type", lambda listed: listed.record.mime_type),
    ("checksum", lambda listed: listed.record.checksum),
    ("object_name", lambda listed: listed.record.object_name),
    ("fingerprint", lambda listed: listed.record.fingerprint),
    ("url", _url),
)
"""The name of each column, and its value for an object; every form of table has these."""
