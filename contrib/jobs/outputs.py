"""What a job has done and has to do: work = manifest - outputs. Used by the recipes beside it.

An output is a JSON file a recording, ``OUT/YEAR/MONTH/DAY/REGION.ID.CONTENT.JOB.json``. Its name
says of which content it is and what made it: two workers that do the same work write the same file,
and another engine or another content is other work. There is no other state, so a job that was
killed is started again, and a job that is to stay up to date is started every few minutes.

The outputs are as personal as the recordings: keep them in a folder or bucket of your own.
"""

import errno
import hashlib
import io
import json
import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from urllib.parse import quote

import fsspec
import pyarrow.dataset

Row = dict[str, Any]
COLUMNS = ["url", "path", "region", "id", "fingerprint", "bytes", "mime_type", "state"]
ABSENT = (errno.ENODATA, errno.ENOENT, errno.ESTALE)
ABSENT_BY_S3 = ("InvalidObjectState", "NoSuchKey")
"""Archived, withdrawn or replaced since the manifest: another try would not help, the next run.
By the errno, and by the code in an answer to s3fs, whose errors have no errno."""


def rows_of(manifest: str) -> list[Row]:
    """Return the rows of a manifest in order of creation: the daemon reads ahead to neighbours."""
    table = pyarrow.dataset.dataset(os.path.expanduser(manifest), format="parquet")
    if not table.files:
        return []  # everything was withdrawn
    in_order = table.to_table([*COLUMNS, "created"]).sort_by("created")
    rows: list[Row] = in_order.select(COLUMNS).to_pylist()
    return rows


def is_recording(row: Row) -> bool:
    """Return whether a row is audio that can be read now; what is archived has to be restored."""
    return row["state"] == "AVAILABLE" and (row["mime_type"] or "").startswith("audio/")


def batches(
    rows: Iterable[Row], most: int = 100, most_bytes: int = 64 << 20
) -> Iterator[list[Row]]:
    """Cut rows into tasks: each is fetched as one, and done again as one if its worker dies."""
    batch: list[Row] = []
    size = 0
    for row in rows:
        if batch and (len(batch) == most or size + row["bytes"] > most_bytes):
            yield batch
            batch, size = [], 0
        batch.append(row)
        size += row["bytes"]
    if batch:
        yield batch


class Outputs:
    """The outputs below a URL: in a folder that all workers see, or in an object store."""

    def __init__(self, url: str, job: str) -> None:
        self.fs, self.root = fsspec.url_to_fs(os.path.expanduser(url))
        self.job = _hash(job)

    def name(self, row: Row) -> str:
        """Return the name of an output, below the URL."""
        return f"{_stem(row)}.{self.job}.json"

    def has(self, row: Row) -> bool:
        """Return whether there is an output; ``missing`` is faster for many."""
        return bool(self.fs.exists(f"{self.root}/{self.name(row)}"))

    def missing(self, rows: Iterable[Row]) -> list[Row]:
        """Return the rows that this job has no output of."""
        named = [(self.name(row), row) for row in rows]
        there = {*self._names({name[: len("2026/11")] for name, _ in named})}
        return [row for name, row in named if name not in there]

    def put(self, row: Row, result: object) -> None:
        """Write an output: all of it, or none."""
        path = f"{self.root}/{self.name(row)}"
        beside = f"{path}.{uuid.uuid4().hex}"
        self.fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        self.fs.pipe_file(beside, json.dumps(result, ensure_ascii=False).encode())
        self.fs.mv(beside, path)

    def make(
        self, rows: Iterable[Row], run: Callable[[io.BytesIO], object], source: str = ""
    ) -> list[bool]:
        """Make what is missing of a batch; return for each of it whether it was absent.

        ``source`` is where the tree is, such as ``s3://work``; '' for ``phonofs://``. Another error
        is raised once the others are made, so that the batch is tried again.
        """
        # A task is run again if its worker dies, also after it was done.
        left = [row for row in rows if not self.has(row)]
        contents = _contents(left, source)
        for row, content in zip(left, contents, strict=True):
            if not isinstance(content, Exception):
                self.put(row, run(io.BytesIO(content)))
        for error in contents:
            if isinstance(error, Exception) and not _is_absent(error):
                raise error
        return [isinstance(content, Exception) for content in contents]

    def prune(self, rows: Iterable[Row]) -> int:
        """Remove the outputs of contents that the manifest does not have, of all jobs.

        Outputs that are older than the manifest's first month stay: it does not tell of them.
        """
        keep = {_stem(row) for row in rows}
        first = min((stem[: len("2026/11")] for stem in keep), default="9999")
        gone = [
            name
            for name in self._names([""])
            if name >= first and "/".join((name.rpartition("/")[0], _content(name))) not in keep
        ]
        for name in gone:
            self.fs.rm_file(f"{self.root}/{name}")
        return len(gone)

    def _names(self, folders: Iterable[str]) -> Iterator[str]:
        for folder in folders:
            if self.fs.exists(f"{self.root}/{folder}"):
                for path in self.fs.find(f"{self.root}/{folder}"):
                    yield path[len(self.root) :].lstrip("/")


def _contents(rows: list[Row], source: str) -> list[bytes | Exception]:
    """Return the bytes of each row, or why they cannot be had."""
    if not rows:
        return []
    urls = [f"{source.rstrip('/')}/{row['path']}" if source else row["url"] for row in rows]
    fs, _ = fsspec.url_to_fs(urls[0])
    contents: list[bytes | Exception] = fs.cat_ranges(urls, None, None)
    return contents


def _is_absent(error: Exception) -> bool:
    """Return whether a recording is absent, and not the whole bucket."""
    answer = getattr(error.__cause__, "response", None)
    if answer is not None:
        return answer["Error"]["Code"] in ABSENT_BY_S3
    return isinstance(error, FileNotFoundError) or getattr(error, "errno", None) in ABSENT


def _stem(row: Row) -> str:
    day = row["path"].split("/")[-2].replace("-", "/")
    number = quote(row["id"], safe="").replace(".", "%2E")
    return f"{day}/{row['region']}.{number}.{_hash(row['fingerprint'])}"


def _content(name: str) -> str:
    return ".".join(name.rpartition("/")[2].split(".")[:3])


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]
