"""What an export knows of its objects and of the files it has made; survives a kill at any point.

While an export runs, this is an append-only file in its working folder. A finished export has
``manifest.jsonl`` instead, which holds the same and from which the next run begins. Records stay on
disk; in memory there are about 500 bytes for each object. Used by ``run`` and ``lists``.
"""

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Literal

import msgspec

from phonofs.errors import PhonofsError
from phonofs.export.destination import Destination
from phonofs.manifest.columns import Listed
from phonofs.manifest.formats import JsonLines
from phonofs.model import Record
from phonofs.service.records import parse_record

MANIFEST = "manifest.jsonl"
NAME = "ledger.jsonl"

COARSEST_NS = 2_000_000_000
"""How far the time of a file may be from the one it was given: FAT stores even seconds."""

Key = tuple[str, str]
"""Region and id of an object."""


def now_text() -> str:
    """Return the time as the lists of an export have it: ISO 8601, UTC, seconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class File(msgspec.Struct, omit_defaults=True):
    """A file of the export.

    path         below the destination
    region, id   of the object it is, or that it is a text of
    kind         ``object`` or ``text``
    fingerprint  of the content; empty for a text
    bytes        its length
    mtime_ns     its time
    check        ``md5`` if it had the checksum of its record, ``length`` if only that could be
                 compared
    sha256       of its bytes, as they were written
    at           when (ISO 8601, UTC)
    withdrawn    when it was found that the service does not have it any more; empty if it does
    """

    path: str
    region: str
    id: str
    bytes: int
    mtime_ns: int
    check: Literal["md5", "length"]
    sha256: str
    at: str
    kind: Literal["object", "text"] = "object"
    fingerprint: str = ""
    withdrawn: str = ""

    @property
    def key(self) -> Key:
        """Region and id of its object."""
        return self.region, self.id


class Known(msgspec.Struct, gc=False):
    """An object that was chosen, now or in an earlier run.

    path           of its file, below the destination
    size           bytes
    state          the state of its record
    offset, length where its record is in the ledger
    """

    path: str
    size: int
    state: str
    offset: int
    length: int


class _Object(msgspec.Struct):
    region: str
    id: str
    path: str
    size: int
    state: str


class _Line(msgspec.Struct):
    """A line of the ledger: an object with its record, a file, or the path of a removed one."""

    object: _Object | None = None
    file: File | None = None
    removed: str = ""


class Exported(msgspec.Struct, omit_defaults=True):
    """What ``manifest.jsonl`` adds to a record: its file, and the texts beside it."""

    size: int
    state: str
    file: File
    texts: list[File] = []


_EXPORT, _PATH, _RECORD = b',"export":', b',"path":', b',"record":'


class Ledger:
    """Owns ``objects`` and ``files``, and appends each change to the file."""

    def __init__(self, destination: Destination) -> None:
        """Read what an unfinished or a finished export knew. Raises OSError, PhonofsError."""
        self.objects: dict[Key, Known] = {}
        self.files: dict[str, File] = {}
        self._destination = destination
        self._form = JsonLines()
        try:
            self._file = destination.working_file(NAME, os.O_RDWR)
        except FileNotFoundError:
            self._begin()
        self._size = self._read_all()
        os.ftruncate(self._file, self._size)  # a line that a kill cut off
        os.lseek(self._file, self._size, os.SEEK_SET)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    # changes

    def see(self, path: str, record: Record) -> None:
        """Note a chosen object, its path and its record, unless nothing of it is new."""
        key = record.region, record.id
        text = self._form.line(Listed("", record, UTC, "")).encode()
        text = text[: text.rindex(_PATH)] + b"}"
        known = self.objects.get(key)
        now = path, record.size, record.state
        if known and (known.path, known.size, known.state) == now and self._raw(known) == text:
            return
        said = msgspec.json.encode(_Object(*key, path, record.size, record.state))
        begin = b'{"object":' + said + _RECORD
        self.objects[key] = Known(*now, self._size + len(begin), len(text))
        self._append(begin + text + b"}\n")

    def add(self, files: list[File]) -> None:
        """Note files that are in place, or will be."""
        for file in files:
            self.files[file.path] = file
        self._append(b"".join(b'{"file":' + msgspec.json.encode(file) + b"}\n" for file in files))

    def remove(self, path: str) -> None:
        """Forget a file, which was removed."""
        del self.files[path]
        self._append(b'{"removed":' + msgspec.json.encode(path) + b"}\n")

    def sync(self) -> None:
        """Return once all of it is on disk. Raises OSError."""
        os.fdatasync(self._file)

    def _append(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._file, view) :]
        self._size += len(data)

    def in_place(self, path: str) -> File | None:
        """Return the file with this path, if it is there as it was written; else None."""
        file = self.files.get(path)
        found = self._destination.status(path) if file is not None else None
        if file is None or found is None:
            return None
        is_near = abs(found.st_mtime_ns - file.mtime_ns) <= COARSEST_NS
        return file if is_near and found.st_size == file.bytes else None

    # records

    def record(self, key: Key) -> Record:
        """Return the record of an object. Raises OSError, Malformed."""
        known = self.objects[key]
        record = parse_record(self._raw(known), key[0])
        return msgspec.structs.replace(record, size=known.size, state=known.state)

    def _raw(self, known: Known) -> bytes:
        return os.pread(self._file, known.length, known.offset)

    # reading

    def _read_all(self) -> int:
        """Read all lines; return where the last whole one ends."""
        stop = 0
        decoder = msgspec.json.Decoder(_Line)
        os.lseek(self._file, 0, os.SEEK_SET)
        with open(self._file, "rb", closefd=False) as file:
            for text in file:
                # Not the record: not all that the service calls JSON can be decoded.
                said, _, record = text.partition(_RECORD)
                try:
                    line = decoder.decode(said + b"}" if record else said)
                except (msgspec.DecodeError, UnicodeDecodeError):
                    return stop
                if not text.endswith(b"}\n"):
                    return stop
                self._take(line, text, stop)
                stop += len(text)
        return stop

    def _take(self, line: _Line, text: bytes, offset: int) -> None:
        if (each := line.object) is not None:
            start = text.index(_RECORD) + len(_RECORD)
            known = Known(each.path, each.size, each.state, offset + start, len(text) - start - 2)
            self.objects[each.region, each.id] = known
        elif line.file is not None:
            self.files[line.file.path] = line.file
        elif line.removed:
            self.files.pop(line.removed, None)

    def _begin(self) -> None:
        """Make the file, from the manifest of a finished export if there is one."""
        staged, self._file = self._destination.stage()
        self._size = 0
        try:
            for record, exported in self._manifest():
                key = exported.file.key
                object_ = _Object(*key, exported.file.path, exported.size, exported.state)
                begin = b'{"object":' + msgspec.json.encode(object_) + _RECORD
                self._append(begin + record + b"}\n")
                self.add([exported.file, *exported.texts])
            os.fsync(self._file)
            self._destination.replace_working_file(staged, NAME)
        except BaseException:
            os.close(self._file)
            raise
        self.files.clear()

    def _manifest(self) -> Iterator[tuple[bytes, Exported]]:
        """Yield the records of a finished export, each with what is said of its files."""
        if self._destination.status(MANIFEST) is None:
            return
        with self._destination.reading(MANIFEST) as file:
            for line in file:
                try:
                    record, _, exported = line.rpartition(_EXPORT)
                    said = msgspec.json.decode(exported.rstrip()[:-1], type=Exported)
                    yield record[: record.rindex(_PATH)] + b"}", said
                except (ValueError, msgspec.MsgspecError):
                    where = f"{self._destination.path}/{MANIFEST}"
                    raise PhonofsError(f"{where} has a line that phonofs did not write") from None
