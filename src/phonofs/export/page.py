"""The page of an export: players, conversations, and what is known of each call. Pure.

What a caller chose, such as a name, is text in it and nothing else: all values are escaped, there
is no script, and the policy of the page allows nothing but its own style and media of the same
folder. A time in a conversation is a link to that second of the recording.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape
from urllib.parse import quote

from phonofs.export.ledger import File
from phonofs.manifest.columns import Listed, Value
from phonofs.search.facets import duration_ms
from phonofs.units import printable

FEW = 1000
"""Objects on one page; an export of more has a page for each day."""

LOADED = 40
"""Recordings whose lengths a browser shows at once; Chromium has at most 75 players on a page that
have loaded something."""

_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; media-src 'self' file:; img-src data:; "
    "base-uri 'none'; form-action 'none'"
)
_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem;
       color: #1c1f23; background: #fff; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .45rem .6rem; }
tr + tr { border-top: 1px solid #dfe3e8; } th { color: #59636e; font-weight: 600; }
td { overflow-wrap: anywhere; } th:last-child { width: 45%; }
td.time { white-space: nowrap; } audio { width: 19rem; height: 2.2rem; } video { width: 19rem; }
details { margin: .2rem 0; } summary { cursor: pointer; color: #0b57a4; }
.said { max-width: 46rem; } .said p { margin: .15rem 0; } a { color: #0b57a4; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; margin: .3rem 0; }
dt { color: #59636e; } dd { margin: 0; overflow-wrap: anywhere; }
.gone { color: #9a3412; }
"""

_PLAIN = re.compile(r"[\w .,:;/+@=()-]*", re.ASCII)
"""Text that is the same in HTML: most fields, of which there are thirty for each object."""

_TIME = re.compile(r"\[(?:(\d{1,4}):)?(\d\d):(\d\d)\] ")


@dataclass(frozen=True, slots=True)
class Row:
    """An object of the page: its listing, the values of its columns, its file, and its texts.

    ``texts`` have a path and the content each.
    """

    listed: Listed
    values: Mapping[str, Value]
    file: File
    texts: Sequence[tuple[str, str]]


Missed = Sequence[tuple[str, str]]
"""The path of each missing object, and why it is missing."""


def whole_page(
    title: str, days: Iterable[tuple[str, Iterable[Row]]], missing: Missed
) -> Iterator[bytes]:
    """Return the page of a small export: a table for each day."""
    yield from _encoded(_head(title))
    number = 0
    for day, rows in days:
        yield from _encoded(_table_head(day))
        for number, row in enumerate(rows, number + 1):  # noqa: B020
            yield from _encoded(_row(row, "", loads=number <= LOADED))
        yield b"</table>\n"
    yield from _encoded(_missing(missing))
    yield b"</body></html>\n"


def day_page(title: str, day: str, rows: Iterable[Row]) -> Iterator[bytes]:
    """Return the page of a day, which lies one folder below the top."""
    yield from _encoded(_head(title))
    yield b'<p><a href="../index.html">All days</a></p>\n'
    yield from _encoded(_table_head(day))
    for number, row in enumerate(rows, 1):
        yield from _encoded(_row(row, "../", loads=number <= LOADED))
    yield b"</table>\n</body></html>\n"


def days_page(title: str, days: Sequence[tuple[str, str, int]], missing: Missed) -> Iterator[bytes]:
    """Return the page that leads to those of the days: name, path and number of objects."""
    yield from _encoded(_head(title))
    yield b"<table><tr><th>Day</th><th>Objects</th></tr>\n"
    for day, path, count in days:
        yield (
            f'<tr><td><a href="{_link(path)}">{_text(day)}</a></td><td>{count:,}</td></tr>\n'
        ).encode()
    yield b"</table>\n"
    yield from _encoded(_missing(missing))
    yield b"</body></html>\n"


def _encoded(parts: Iterable[str]) -> Iterator[bytes]:
    return (part.encode(errors="replace") for part in parts)


def _text(value: str) -> str:
    """Return a text as HTML; ``?`` for what is not visible or controls how text is shown."""
    return value if _PLAIN.fullmatch(value) else escape(printable(value))


def _link(path: str) -> str:
    return escape(quote(path, safe="/"))


def _head(title: str) -> Iterator[str]:
    yield (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="referrer" content="no-referrer">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f'<link rel="icon" href="data:,">\n<title>{_text(title)}</title>\n'
        f"<style>{_STYLE}</style></head>\n<body>\n<h1>{_text(title)}</h1>\n"
    )


def _table_head(day: str) -> Iterator[str]:
    columns = ("Time", "Type", "Agent", "Other side", "Length", "Content")
    yield f"<h2>{_text(day)}</h2>\n<table><tr>"
    yield "".join(f"<th>{column}</th>" for column in columns)
    yield "</tr>\n"


def _row(row: Row, up: str, *, loads: bool) -> Iterator[str]:
    """Yield a row; ``up`` leads to the top, ``loads`` says whether the player shows the length."""
    shown = [_shown(row.values[name]) for name in ("type", "agent", "party")]
    yield f'<tr><td class="time">{_clock(row.values)}</td>'
    yield "".join(f"<td>{_text(value)}</td>" for value in (*shown, _lasts(row.listed)))
    yield "<td>"
    if row.file.withdrawn:
        yield f'<p class="gone">withdrawn by the service, found {_text(row.file.withdrawn)}</p>'
    yield from _content(row, up, loads=loads)
    yield "</td></tr>\n"


def _content(row: Row, up: str, *, loads: bool) -> Iterator[str]:
    link = up + _link(row.file.path)
    kind = row.listed.record.mime_type.partition("/")[0].lower()
    if kind in ("audio", "video"):
        yield f'<{kind} controls preload="{"metadata" if loads else "none"}" src="{link}"></{kind}>'
    else:
        yield f'<a href="{link}" download>{_text(row.listed.name)}</a>'
    for path, content in row.texts:
        if content:
            name = _kind_of_text(path)
            yield f"<details><summary>{name}</summary>"
            yield from _said(content, link if kind in ("audio", "video") else "")
            yield "</details>"
        else:
            yield f'<p><a href="{up}{_link(path)}" download>{_kind_of_text(path)}</a></p>'
    yield "<details><summary>Fields</summary><dl>"
    for name, value in _fields(row):
        yield f"<dt>{_text(name)}</dt><dd>{_text(value)}</dd>"
    yield "</dl></details>"


def _kind_of_text(path: str) -> str:
    for ending, name in ((".srt", "Subtitles"), (".summary.txt", "Summary")):
        if path.endswith(ending):
            return name
    return "Notes" if path.endswith(".notes.txt") else "Conversation"


def _said(content: str, recording: str) -> Iterator[str]:
    """Yield the lines of a conversation, their times as links into the recording."""
    yield '<div class="said">'
    for line in content.splitlines():
        time = _TIME.match(line)
        if time is None or not recording:
            yield f"<p>{_text(line)}</p>"
            continue
        hours, minutes, seconds = (int(part or 0) for part in time.groups())
        at = hours * 3600 + minutes * 60 + seconds
        shown, rest = time[0].strip(), line[time.end() :]
        yield (
            f'<p><a href="{recording}#t={at}" target="_blank" rel="noopener">{shown}</a> '
            f"{_text(rest)}</p>"
        )
    yield "</div>"


def _fields(row: Row) -> Iterator[tuple[str, str]]:
    for name, value in row.values.items():
        if shown := _shown(value):
            yield name, shown
    yield "check", row.file.check
    yield "sha256", row.file.sha256


def _shown(value: Value) -> str:
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds")
    return "" if value is None else str(value)


def _clock(values: Mapping[str, Value]) -> str:
    at = values["start"] or values["created"]
    return f"{at:%H:%M:%S}" if isinstance(at, datetime) else ""


def _lasts(listed: Listed) -> str:
    lasts = duration_ms(listed.record)
    if lasts is None:
        return ""
    minutes, seconds = divmod(round(lasts / 1000), 60)
    return f"{minutes}:{seconds:02}"


def _missing(missing: Missed) -> Iterator[str]:
    if not missing:
        return
    yield f"<h2>Missing: {len(missing):,}</h2>\n"
    yield "<table><tr><th>Path</th><th>Reason</th></tr>\n"
    for path, why in missing[:FEW]:
        yield f"<tr><td>{_text(path)}</td><td>{_text(why)}</td></tr>\n"
    yield "</table>\n"
    if len(missing) > FEW:
        yield '<p>All are listed in <a href="missing.csv" download>missing.csv</a>.</p>\n'
