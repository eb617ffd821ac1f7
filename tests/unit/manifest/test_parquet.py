"""A manifest as Parquet: what each engine reads of it, and what becomes of its files."""

import resource
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from phonofs.errors import UsageError
from phonofs.manifest.columns import COLUMNS, Listed
from phonofs.manifest.parquet import ROWS_AT_ONCE, parquet_folder
from phonofs.model import Record
from tests.support.catalogue_world import make, ms

parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")

NOON = "2024-09-17T12:00:00"
WHOLE = (None, None)


def listed(record: Record, folder: str = "2024/2024-09/2024-09-17") -> Listed:
    return Listed(f"/m/{folder}/{record.id}.mp3", record, ZoneInfo("Europe/London"), "work")


def write(folder: Path, *objects: Listed, days: tuple[date | None, date | None] = WHOLE) -> int:
    with parquet_folder(folder) as files:
        for each in objects:
            files.add(each)
        return files.finish(*days)


def rows(folder: Path, month: str = "2024-09") -> list[dict]:
    return parquet.read_table(folder / f"{month}.parquet").to_pylist()


def test_a_row_has_the_columns_of_the_csv_with_their_types(tmp_path):
    record = make(
        "9984564e", NOON, size=722144, checksum="0" * 32,
        agentName="Alex Wilber", direction="OUTBOUND", calleeId="16695555518",
        callerName="=1+1", duration="65500", startTime=str(ms("2024-09-17T09:30:12")),
    )  # fmt: skip
    assert write(tmp_path, listed(record)) == 1
    [row] = rows(tmp_path)
    assert [*row] == [name for name, _ in COLUMNS]
    start = datetime(2024, 9, 17, 9, 30, 12, tzinfo=UTC)
    assert {name: value for name, value in row.items() if value is not None} == {
        "name": "9984564e.mp3",
        "path": "/m/2024/2024-09/2024-09-17/9984564e.mp3",
        "id": "9984564e",
        "region": "us-east",
        "type": "callrecording",
        "state": "AVAILABLE",
        "created": datetime.fromisoformat(f"{NOON}Z"),
        "updated": datetime.fromisoformat(f"{NOON}Z"),
        "start": start,
        "end": start + timedelta(seconds=65.5),
        "duration_s": 65.5,
        "direction": "outbound",
        "agent": "Alex Wilber",
        "caller_name": "=1+1",
        "callee": "16695555518",
        "party": "16695555518",
        "bytes": 722144,
        "mime_type": "audio/mpeg",
        "checksum": "0" * 32,
        "object_name": "9984564e.mp3",
        "fingerprint": "0" * 32,
        "url": "phonofs://work/.id/us-east/9984564e.mp3",
    }


def test_a_month_is_one_file_sorted_by_creation_in_whatever_order_its_objects_come(tmp_path):
    """Objects come by region, so that each month comes once for each region."""
    first = [make(f"a{n}", f"2024-09-17T12:{n:02}:00") for n in (3, 1, 2)]
    second = [make("b1", "2024-09-17T12:01:30", region="uk-south")]
    october = make("c", "2024-10-01T10:00:00")
    objects = [listed(each) for each in first]
    objects.append(listed(october, "2024/2024-10/2024-10-01"))
    objects += [listed(each, "uk-south/2024/2024-09/2024-09-17") for each in second]
    assert write(tmp_path, *objects) == 2
    assert [row["id"] for row in rows(tmp_path)] == ["a1", "b1", "a2", "a3"]
    assert [row["id"] for row in rows(tmp_path, "2024-10")] == ["c"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "2024-09.parquet",
        "2024-10.parquet",
    ]


def test_more_rows_than_are_held_at_once(tmp_path):
    record = make("a", NOON)
    assert write(tmp_path, *[listed(record)] * (ROWS_AT_ONCE + 3)) == 1
    assert len(rows(tmp_path)) == ROWS_AT_ONCE + 3


def test_only_their_owner_reads_the_files(tmp_path):
    folder = tmp_path / "new" / "manifest"
    write(folder, listed(make("a", NOON)))
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "2024-09.parquet").stat().st_mode) == 0o600


def test_a_month_that_has_no_object_any_more_has_no_file(tmp_path):
    """Of the months that were listed; the others, and what is not ours, stay."""
    objects = [
        listed(make("a", NOON)),
        listed(make("b", "2024-10-01T10:00:00"), "2024/2024-10/2024-10-01"),
        listed(make("c", "2024-11-01T10:00:00"), "2024/2024-11/2024-11-01"),
    ]
    write(tmp_path, *objects)
    (tmp_path / "2024-08.parquet").write_bytes(b"not ours")
    foreign = parquet.read_table(tmp_path / "2024-09.parquet").replace_schema_metadata({})
    parquet.write_table(foreign, tmp_path / "2023-01.parquet")
    assert write(tmp_path, objects[0], days=(None, date(2024, 10, 31))) == 1
    left = ["2023-01.parquet", "2024-08.parquet", "2024-09.parquet", "2024-11.parquet"]
    assert sorted(path.name for path in tmp_path.iterdir()) == left


def test_a_failure_leaves_the_former_files(tmp_path):
    write(tmp_path, listed(make("a", NOON)))
    with suppress(RuntimeError), parquet_folder(tmp_path) as files:
        files.add(listed(make("b", NOON)))
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["2024-09.parquet"]
    assert [row["id"] for row in rows(tmp_path)] == ["a"]


def test_a_mount_point_that_is_not_unicode_is_written_as_far_as_it_is(tmp_path):
    record = make("a", NOON)
    path = "/m\udcff/2024/2024-09/2024-09-17/a.mp3"
    write(tmp_path, Listed(path, record, ZoneInfo("UTC"), "work"))
    assert rows(tmp_path)[0]["path"] == "/m?/2024/2024-09/2024-09-17/a.mp3"


def engines(folder: Path) -> dict[str, list[tuple[str, datetime, int]]]:
    """Return id, time of creation and size of all rows, by the name of the engine that read."""
    files = str(folder / "*.parquet")
    found = {}
    duckdb = pytest.importorskip("duckdb", reason="DuckDB is not installed")
    with duckdb.connect() as connection:
        connection.sql("SET TimeZone = 'UTC'")
        query = f"SELECT id, epoch_ms(created), bytes FROM '{files}' ORDER BY created"
        found["duckdb"] = connection.sql(query).fetchall()
    polars = pytest.importorskip("polars", reason="Polars is not installed")
    frame = polars.read_parquet(files).sort("created")
    assert frame.schema["created"] == polars.Datetime("ms", "UTC")
    found["polars"] = frame.select(
        "id", polars.col("created").dt.epoch("ms"), "bytes"
    ).rows()  # fmt: skip
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    table = pandas.read_parquet(folder).sort_values("created")
    created_ms = (table["created"] - pandas.Timestamp(0, tz="UTC")) // pandas.Timedelta("1ms")
    found["pandas"] = [*zip(table["id"], created_ms, table["bytes"], strict=True)]
    dataset = pytest.importorskip("pyarrow.dataset", reason="pyarrow is not installed")
    arrow = dataset.dataset(folder).to_table().sort_by("created").to_pylist()
    found["pyarrow"] = [
        (row["id"], round(row["created"].timestamp() * 1000), row["bytes"]) for row in arrow
    ]
    return found


def test_duckdb_polars_pandas_and_pyarrow_read_the_same_rows(tmp_path):
    records = [make(f"a{n}", f"2024-0{1 + n % 9}-17T12:00:00", size=n) for n in range(9)]
    write(tmp_path, *(listed(each, f"2024/{m}/{m}-17") for each in records
                      for m in [f"2024-0{1 + int(each.id[1:]) % 9}"]))  # fmt: skip
    expected = [(each.id, each.created_ms, each.size) for each in records]
    assert engines(tmp_path) == dict.fromkeys(("duckdb", "polars", "pandas", "pyarrow"), expected)


@pytest.mark.parametrize("months", [1, 2], ids=["at the end", "amid the objects"])
def test_a_full_disk_is_said_and_leaves_the_files_as_they_were(tmp_path, months):
    """A month is written when the next one begins, or at the end."""
    write(tmp_path, listed(make("0000000a", NOON)))
    before = rows(tmp_path)
    more = [
        listed(make(f"{n:08}", NOON, note=f"{n * 7919:x}" * 9), f"2024/2024-{9 + n % months:02}/x")
        for n in range(4)
    ]
    with nearly_full(), pytest.raises(UsageError, match=f"{tmp_path} cannot be written to: [A-Z]"):
        write(tmp_path, *more)
    assert rows(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["2024-09.parquet"]


@contextmanager
def nearly_full() -> Iterator[None]:
    """Let files grow to 1 KiB only; the kernel's error is another one than that of a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
