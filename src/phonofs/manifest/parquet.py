"""Writes a manifest as Parquet: one file a month, with the columns of the CSV. Needs pyarrow.

Used by ``phonofs manifest --parquet``. Objects come by region, day and name, so a month may come in
several pieces: they are collected beside the files, a file for each month. Once everything is
there, each month is sorted and renamed into its place, so that whoever reads the folder meanwhile
finds a whole file of each month, the former or the new one.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

from phonofs.errors import UsageError
from phonofs.manifest.columns import COLUMNS, Listed, Value

try:
    import pyarrow
    from pyarrow import parquet
except ImportError:  # the extra phonofs[manifest] is not installed
    pyarrow = parquet = None

ROWS_AT_ONCE = 10_000
"""Rows that are held as Python objects, about 20 MB; then they become a row group."""

MARK = b"phonofs"
"""The key in the metadata of our files; its value is the version of the table."""

_NAME = re.compile(r"([0-9]{4}-[0-9]{2})\.parquet")

_TIMES = frozenset({"created", "updated", "start", "end"})


def schema() -> Any:
    """Return the columns with their types: times in UTC (ms), ``bytes``, ``duration_s``, texts."""
    types = {
        **dict.fromkeys(_TIMES, pyarrow.timestamp("ms", tz="UTC")),
        "duration_s": pyarrow.float64(),
        "bytes": pyarrow.int64(),
    }
    fields = [(name, types.get(name, pyarrow.string())) for name, _ in COLUMNS]
    return pyarrow.schema(fields, metadata={MARK: b"1"})


class ParquetFolder:
    """Collects objects, then writes the files of their months. Made by ``parquet_folder``.

    _month    the month that is being added to, with its _rows that are in no file yet
    _writers  by month, the file that collects it
    """

    def __init__(self, folder: Path, beside: Path) -> None:
        self._folder = folder
        self._beside = beside
        self._schema = schema()
        self._month = ""
        self._rows: list[Listed] = []
        self._writers: dict[str, Any] = {}

    def add(self, listed: Listed) -> None:
        """Add an object, to the month of its folder. Raises UsageError if the disk is full."""
        month = listed.path.split("/")[-2][: len("2026-11")]
        if month != self._month or len(self._rows) >= ROWS_AT_ONCE:
            with _written_to(self._folder):
                self._collect()
            self._month = month
        self._rows.append(listed)

    def finish(self, since: date | None, until: date | None) -> int:
        """Put the files into place; return their number.

        The files of months from ``since`` to ``until`` that have no object any more are removed.
        Raises UsageError if the folder cannot be written to.
        """
        with _written_to(self._folder):
            self._collect()
            for writer in self._writers.values():
                writer.close()
            for month in self._writers:
                self._place(month)
            self._remove_emptied(since, until)
        return len(self._writers)

    def _remove_emptied(self, since: date | None, until: date | None) -> None:
        for month, path in _ours(self._folder):
            first = date.fromisoformat(f"{month}-01")
            if month not in self._writers and (since or first) <= first <= (until or first):
                path.unlink()

    def _collect(self) -> None:
        """Write the rows that are held to the file that collects their month."""
        rows, month = self._rows, self._month
        if not rows:
            return
        columns = [
            pyarrow.array([_value(of(each)) for each in rows], field.type)
            for (_, of), field in zip(COLUMNS, self._schema, strict=True)
        ]
        if month not in self._writers:
            path = self._beside / f"{month}.part"
            self._writers[month] = parquet.ParquetWriter(path, self._schema, compression="zstd")
        self._writers[month].write_table(pyarrow.table(columns, schema=self._schema))
        self._rows = []

    def _place(self, month: str) -> None:
        """Sort a month by creation, and rename its file into place."""
        table = parquet.ParquetFile(self._beside / f"{month}.part").read()
        order = [("created", "ascending"), ("region", "ascending"), ("id", "ascending")]
        whole = self._beside / f"{month}.parquet"
        with open(whole, "xb", opener=_private) as file:
            parquet.write_table(table.sort_by(order), file, compression="zstd")
            file.flush()
            os.fsync(file.fileno())
        whole.replace(self._folder / whole.name)


@contextmanager
def parquet_folder(folder: Path) -> Iterator[ParquetFolder]:
    """Make the folder (mode 0700) if it is not there; remove what was collected beside the files.

    Raises UsageError if pyarrow is not installed or nothing can be written there.
    """
    if pyarrow is None:
        raise UsageError(
            "--parquet needs pyarrow: install phonofs with its extra, phonofs[manifest]"
        )
    with _written_to(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=".manifest-", dir=folder))
    try:
        yield ParquetFolder(folder, beside)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


@contextmanager
def _written_to(folder: Path) -> Iterator[None]:
    """Raise UsageError for an error of what is written to the folder."""
    try:
        yield
    except OSError as error:
        raise UsageError(f"{folder} cannot be written to: {error.strerror or error}") from None


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


def _value(value: Value) -> Value:
    """Return a value for Arrow: None if there is none; a text without unpaired surrogates."""
    if not isinstance(value, str):
        return value
    return value.encode(errors="replace").decode() or None


def _ours(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield month and path of the files in a folder that were written here."""
    for path in sorted(folder.iterdir()):
        found = _NAME.fullmatch(path.name)
        if found and MARK in _metadata(path):
            yield found[1], path


def _metadata(path: Path) -> Mapping[bytes, bytes]:
    try:
        return parquet.read_schema(path).metadata or {}
    except (OSError, pyarrow.ArrowInvalid):
        return {}
