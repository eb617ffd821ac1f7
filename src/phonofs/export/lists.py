"""Writes what describes an export: manifests, checksums, what is missing, pages, ``export.json``.

The manifest comes last but one and ``export.json`` last, so that a kill before leaves an unfinished
export. Used by ``cli/export.py``.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import tzinfo
from itertools import groupby

import msgspec

from phonofs.checksum import expected, multipart_sizes
from phonofs.errors import UsageError
from phonofs.export.destination import FORMAT, MARK, Destination
from phonofs.export.ledger import MANIFEST, Exported, File, Key, Ledger
from phonofs.export.page import FEW, Row, day_page, days_page, whole_page
from phonofs.export.run import Missing
from phonofs.manifest.columns import COLUMNS, Listed, Value
from phonofs.manifest.formats import Csv, JsonLines, checksum_line
from phonofs.search.condition import Condition

PAGE = "index.html"
PAGES = "pages"
"""The folder with a page for each day of an export that is too large for one page."""

MISSING_COLUMNS = (
    "path",
    "id",
    "region",
    "type",
    "bytes",
    "checksum",
    "check",
    "reason",
    "detail",
)

FILE_COLUMNS = ("check", "sha256", "at", "withdrawn")
"""The columns of manifest.csv after those of every manifest: attributes of ``File``."""

LONGEST_TEXT = 1 << 20
"""Bytes of a text that a page shows: a conversation of a day."""


class Choice(msgspec.Struct, omit_defaults=True):
    """What was chosen: paths of the date tree or the views, and a condition."""

    paths: list[str] = []
    condition: Condition = Condition()
    texts: bool = True


class Description(msgspec.Struct, kw_only=True):
    """What ``export.json`` says.

    export     the mark of this file
    version    of phonofs
    complete   whether everything that was chosen is there
    pages      the pages of days, below the destination
    customers  whose objects were found
    """

    export: str = FORMAT
    version: str
    profile: str
    chosen: Choice
    timezone: str = ""
    started: str = ""
    finished: str = ""
    complete: bool = False
    objects: int = 0
    files: int = 0
    texts: int = 0
    bytes: int = 0
    missing: int = 0
    withdrawn: int = 0
    customers: list[str] = []
    pages: list[str] = []


def read_description(destination: Destination) -> Description | None:
    """Return what an export says of itself; None if it is a new one. Raises UsageError."""
    if destination.status(MARK) is None:
        return None
    try:
        with destination.reading(MARK) as file:
            found = msgspec.json.decode(file.read(1 << 24), type=Description)
        if found.export == FORMAT:
            return found
    except (OSError, msgspec.MsgspecError):
        pass
    raise UsageError(f"{destination.path}/{MARK} is not what phonofs wrote: choose another folder")


def write_description(destination: Destination, description: Description) -> None:
    """Write ``export.json``. Raises OSError."""
    text = msgspec.json.format(msgspec.json.encode(description), indent=2) + b"\n"
    destination.write(MARK, iter([text]))


class Lists:
    """Writes the lists of what a ledger knows. Owns no state but what is in the ledger."""

    def __init__(
        self, destination: Destination, ledger: Ledger, zone: tzinfo, profile: str
    ) -> None:
        self._destination = destination
        self._ledger = ledger
        self._zone = zone
        self._profile = profile
        self._json = JsonLines()
        files = sorted(ledger.files.values(), key=lambda file: file.path)
        self._objects = [file for file in files if file.kind == "object"]
        self._files = files
        self._texts = defaultdict[Key, list[File]](list)
        for file in files:
            if file.kind == "text":
                self._texts[file.key].append(file)

    def write(self, missing: Sequence[Missing], description: Description) -> Description:
        """Write all of them; return the description with what they say. Raises OSError."""
        write = self._destination.write
        write("SHA256SUMS", self._checksums())
        write("missing.csv", self._missing(missing))
        pages = self._write_objects(missing, description)
        return msgspec.structs.replace(
            description,
            complete=not missing,
            objects=len(self._objects),
            files=len(self._files),
            texts=len(self._files) - len(self._objects),
            bytes=sum(file.bytes for file in self._files),
            missing=len(missing),
            withdrawn=sum(bool(file.withdrawn) for file in self._objects),
            pages=pages,
        )

    def _write_objects(self, missing: Sequence[Missing], description: Description) -> list[str]:
        """Write both manifests and the pages; return the paths of pages of days.

        In one pass: the record of an object is read, and its columns are made, once.
        """
        with self._destination.writing(MANIFEST) as manifest:
            with self._destination.writing("manifest.csv") as table:
                form = Csv()
                table.write(form.row([*(name for name, _ in COLUMNS), *FILE_COLUMNS]).encode())

                def listed(file: File) -> Row:
                    row = self._row(file)
                    of_file = (str(getattr(file, name)) for name in FILE_COLUMNS)
                    table.write(form.row([*row.values.values(), *of_file]).encode())
                    manifest.write(self._json_line(row.listed, file))
                    return row

                pages = self._write_pages(missing, description, listed)
            for stale in set(description.pages) - set(pages):
                if stale.startswith(f"{PAGES}/") and self._destination.status(stale) is not None:
                    self._destination.remove(stale)
        return pages

    def _json_line(self, listed: Listed, file: File) -> bytes:
        known = self._ledger.objects[file.key]
        texts = self._texts[file.key] if known.path == file.path else []
        exported = Exported(known.size, known.state, file, texts)
        line = self._json.line(listed).encode().rstrip()[:-1]
        return line + b',"export":' + msgspec.json.encode(exported) + b"}\n"

    def _checksums(self) -> Iterator[bytes]:
        for file in self._files:
            yield checksum_line(file.sha256, file.path).encode()

    def _missing(self, missing: Iterable[Missing]) -> Iterator[bytes]:
        form = Csv()
        yield form.row(MISSING_COLUMNS).encode()
        for each in missing:
            yield form.row(self._missing_row(each)).encode()

    def _missing_row(self, missing: Missing) -> list[Value]:
        path, key, kind, reason, detail = missing
        if key is None:
            return [path, "", "", "", None, "", "", str(reason), detail]
        record = self._ledger.record(key)
        of_object = kind == "object"
        size = record.size if of_object else None
        checksum = record.checksum if of_object else ""
        certain = expected(checksum) or multipart_sizes(checksum, record.size)
        check = "md5" if certain else "length"
        type = record.type if of_object else "text"
        return [path, record.id, record.region, type, size, checksum, check, str(reason), detail]

    # pages

    def _write_pages(
        self, missing: Sequence[Missing], description: Description, row: Callable[[File], Row]
    ) -> list[str]:
        """Write the page, or one for each day; return the paths of the latter.

        ``row`` is called once for each object, in their order.
        """
        title = f"Export of {description.profile}"
        said = [(each.path, f"{each.reason}: {each.detail}") for each in missing]
        days = ((day, list(files)) for day, files in groupby(self._objects, _day))
        write = self._destination.write
        if len(self._objects) <= FEW:
            rows = [(day, map(row, files)) for day, files in days]
            write(PAGE, whole_page(title, rows, said))
            return []
        pages, counts = [], []
        for day, files in days:
            page = f"{PAGES}/{day.replace('/', '_')}.html"
            write(page, day_page(title, day, map(row, files)))
            pages.append(page)
            counts.append((day, page, len(files)))
        write(PAGE, days_page(title, counts, said))
        return pages

    def _row(self, file: File) -> Row:
        listed = Listed(file.path, self._ledger.record(file.key), self._zone, self._profile)
        values = {name: of(listed) for name, of in COLUMNS}
        texts = [(text.path, self._text(text)) for text in self._texts[file.key]]
        return Row(listed, values, file, texts)

    def _text(self, file: File) -> str:
        """Return a text to show; '' for subtitles, which repeat the conversation."""
        if file.path.endswith(".srt") or self._ledger.in_place(file.path) is None:
            return ""
        with self._destination.reading(file.path) as text:
            return text.read(LONGEST_TEXT).decode(errors="replace")


def _day(file: File) -> str:
    return file.path.rpartition("/")[0]
