"""The forms of a manifest: CSV (RFC 4180), JSON lines, md5sum(1), m3u8. Pure.

A form is a head, a text for each object, and a tail; any of them may be empty.
"""

import csv
import io
import json
import os
import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Protocol
from urllib.parse import quote

from phonofs.checksum import is_plain
from phonofs.manifest.cells import cell
from phonofs.manifest.columns import COLUMNS, Listed, Value
from phonofs.model import State
from phonofs.search.facets import duration_ms
from phonofs.tree.naming import first_tag, party

_CONTROL = re.compile(
    "[\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]"
)
"""What JSON may hold as it is, and a terminal obeys or does not show; it is escaped."""

_BREAKS = re.compile(rb"[\r\n]+")


class Form(Protocol):
    """A form of manifest. A new one is made for each manifest."""

    def head(self) -> str:
        """Return what comes before all objects."""

    def line(self, listed: Listed) -> str:
        """Return the text of one object, with its line end; '' if it has none in this form."""

    def tail(self) -> str:
        """Return what comes after all objects."""


class Csv:
    """The columns, separated by commas, with a header. Times have the offset of their zone."""

    def __init__(self) -> None:
        self._buffer = io.StringIO()
        self._writer = csv.writer(self._buffer, lineterminator="\r\n")

    def head(self) -> str:
        """Return the names of the columns."""
        return self.row([name for name, _ in COLUMNS])

    def line(self, listed: Listed) -> str:
        """Return the values of the columns, safe for a spreadsheet."""
        return self.row([of(listed) for _, of in COLUMNS])

    def tail(self) -> str:
        """Return nothing."""
        return ""

    def row(self, values: Iterable[Value]) -> str:
        """Return any values as a row, safe for a spreadsheet."""
        self._writer.writerow([_text(value) for value in values])
        text = self._buffer.getvalue()
        self._buffer.seek(0)
        self._buffer.truncate()
        return text


def _text(value: Value) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds")
    if isinstance(value, float):
        return f"{value:.3f}".rstrip("0").rstrip(".")
    return cell(value) if isinstance(value, str) else str(value)


class JsonLines:
    """The record of each object as it came, and its path."""

    def head(self) -> str:
        """Return nothing."""
        return ""

    def line(self, listed: Listed) -> str:
        """Return the record with the member ``path`` added, on one line."""
        source = _BREAKS.sub(b" ", listed.record.source).strip().decode(errors="replace")
        escaped = _CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", source)
        return f'{escaped[:-1].rstrip()},"path":{json.dumps(listed.path)}}}\n'

    def tail(self) -> str:
        """Return nothing."""
        return ""


class Md5Sums:
    """What md5sum(1) prints, and ``md5sum -c`` checks."""

    def __init__(self) -> None:
        self._in_parts = 0
        self._without = 0

    def head(self) -> str:
        """Return nothing."""
        return ""

    def line(self, listed: Listed) -> str:
        """Return checksum and path; '' if the record has no plain MD5."""
        checksum = listed.record.checksum
        if not is_plain(checksum):
            self._in_parts += bool(checksum)
            self._without += not checksum
            return ""
        return checksum_line(checksum, listed.path)

    def tail(self) -> str:
        """Return comments, which md5sum skips, on the objects that have no line."""
        lines = ""
        if self._in_parts:
            lines += (
                f"# {_objects(self._in_parts)} a checksum in parts, which md5sum cannot check\n"
            )
        if self._without:
            lines += f"# {_objects(self._without)} no checksum\n"
        return lines


def checksum_line(checksum: str, path: str) -> str:
    """Return a line as md5sum(1) and sha256sum(1) print it."""
    escaped = path.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    return f"{'' if escaped == path else chr(92)}{checksum}  {escaped}\n"


def _objects(count: int) -> str:
    return "1 object has" if count == 1 else f"{count:,} objects have"


class Playlist:
    """What players play: the recordings that can be read, with their lengths."""

    def head(self) -> str:
        """Return the mark of the form."""
        return "#EXTM3U\n"

    def line(self, listed: Listed) -> str:
        """Return title and path; '' for what is not audio or video, or is archived."""
        record = listed.record
        if record.state != State.AVAILABLE or not record.mime_type.startswith(("audio/", "video/")):
            return ""
        lasts = duration_ms(record)
        seconds = -1 if lasts is None else round(lasts / 1000)
        names = (first_tag(record.tags, "agentName", "userName"), party(record))
        title = " - ".join(filter(None, (cell(name) for name in names))) or cell(listed.name)
        path = listed.path
        if not path.isprintable():
            path = f"file://{quote(os.fsencode(path))}"
        return f"#EXTINF:{seconds},{title}\n{path}\n"

    def tail(self) -> str:
        """Return nothing."""
        return ""


FORMS: Mapping[str, type[Form]] = {
    "csv": Csv,
    "jsonl": JsonLines,
    "md5": Md5Sums,
    "m3u8": Playlist,
}
"""The forms by name."""
