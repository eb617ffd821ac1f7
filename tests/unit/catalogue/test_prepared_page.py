"""Pages that were made ready beforehand leave the same catalogue as their records one by one."""

import zlib
from datetime import date
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from phonofs.catalogue.catalogue import Catalogue
from phonofs.catalogue.placement import Placement
from phonofs.catalogue.prepared_page import FEWEST, PreparedPage, prepare
from phonofs.catalogue.types import View
from phonofs.errors import CatalogueError, Malformed
from phonofs.model import Record
from phonofs.service.records import parse_record
from tests.support.catalogue_world import HOUR_MS, Settings, check, files, make, ms, opened, uuid

NOON = ms("2024-09-17T12:00:00")


def page(records: list[Record]) -> bytes:
    """The answer to a search that has these records."""
    content = [msgspec.Raw(record.source) for record in records]
    return msgspec.json.encode({"content": content, "lastPage": True})


def prepared(records: list[Record]) -> PreparedPage:
    made = prepare(page(records), "us-east", 0, Placement(View.of(Settings())))
    assert made is not None
    return made


def shown(catalogue: Catalogue) -> dict[str, Record]:
    """Path to record of every file."""
    found = {}
    for path in files(catalogue):
        ino = 1
        for name in path.split("/"):
            entry = catalogue.lookup(ino, name)
            assert entry is not None
            ino = entry.ino
        found[path] = catalogue.record(ino)
    return found


def take(catalogue: Catalogue, *pages: PreparedPage) -> None:
    """Apply prepared pages and their heads, as a listing does."""
    catalogue.take(pages)
    heads = [parse_record(one.head, one.region) for one in pages]
    catalogue.apply(heads, listed=True)


RECORDS = st.lists(
    st.builds(
        lambda number, minutes, later, state, name, size: make(
            f"samesame-{number}" if number < 6 else uuid(number),
            NOON + minutes * 60_000,
            updated=NOON + (minutes + later) * 60_000,
            state=state,
            size=size,
            agentName=name,
            startTime=str(NOON),
        ),
        st.integers(0, 60),
        st.integers(0, 3000),
        st.integers(0, 2),
        st.sampled_from(["AVAILABLE", "ARCHIVED"]),
        st.sampled_from(["Ann", "", "Eve/../x"]),
        st.integers(0, 9),
    ),
    min_size=1,
    max_size=25,
)


@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(st.lists(RECORDS, min_size=1, max_size=3), st.booleans())
def test_a_parcel_is_its_records(tmp_path_factory, pages, known):
    """The same paths, records, totals and times of folders, also where some are known or equal."""
    first, second = (opened(tmp_path_factory.mktemp(name)) for name in "ab")
    if known:
        for catalogue in (first, second):
            catalogue.apply(pages[0][::3])
    for page_of in pages:
        once = {record.id: record for record in page_of}
        records = sorted(once.values(), key=lambda record: record.created_ms)
        records += [make(uuid(1000 + n), NOON + HOUR_MS) for n in range(FEWEST)]
        head, *others = records
        first.apply(others, listed=True)
        first.apply([head], listed=True)
        take(second, prepared(records))
    assert shown(second) == shown(first)
    assert second.totals() == first.totals()
    assert second.progress.newest_ms("us-east") == first.progress.newest_ms("us-east")
    check(second)
    for catalogue in (first, second):
        catalogue.close()


def test_several_regions_and_days_go_together(tmp_path: Path):
    """Each object goes to its own day of its own region; what is told is told of folders."""
    catalogue = opened(tmp_path)
    catalogue.set_regions(["us-east", "uk"])
    here = [make(uuid(n), NOON + n * HOUR_MS) for n in range(40)]
    there = [make(uuid(n), NOON + n * HOUR_MS, region="uk") for n in range(20)]
    one = prepared(here)
    two = prepare(page(there), "uk", 1, Placement(View.of(Settings())))
    assert two is not None
    told = catalogue.take([one, two])
    assert told.objects == []
    names = {name for names in told.directories.values() for name in names}
    assert {"2024-09-17", "2024-09-18", "2024"} <= names
    assert len(files(catalogue)) == 39 + 19
    check(catalogue)
    catalogue.close()


def test_what_is_known_leaves_no_second_text(tmp_path: Path):
    """A record that was known keeps its number; withdrawn, nothing of it can be read any more."""
    catalogue = opened(tmp_path)
    records = [make(uuid(n), NOON + n * 1000, callerName=f"Caller{n}") for n in range(30)]
    catalogue.apply([records[7]])
    ino = catalogue.find("us-east", records[7].id)
    take(catalogue, prepared(records))
    assert catalogue.find("us-east", records[7].id) == ino
    catalogue.apply([make(uuid(7), NOON, updated="2024-09-18", state="REVOKED")])
    kept = [
        zlib.decompress(text)
        for (text,) in catalogue._database.rows("SELECT text FROM record_batch")
    ]
    assert not any(b'Caller7"' in text for text in kept)
    assert any(b'Caller8"' in text for text in kept)
    check(catalogue)
    take(catalogue, prepared(records))
    assert len(catalogue._database.rows("SELECT ino FROM record_batch")) == 1
    assert catalogue.find("us-east", records[7].id) is None
    check(catalogue)
    catalogue.close()


@pytest.mark.parametrize(
    "records",
    [
        [make(uuid(n), NOON) for n in range(FEWEST - 1)],
        [make(uuid(n % 29), NOON) for n in range(30)],
        [make(uuid(n), NOON, state="DELETED" if n == 9 else "AVAILABLE") for n in range(30)],
        [make(uuid(n), NOON, kind="meeting" if n == 9 else "callrecording") for n in range(30)],
        [make(uuid(n), NOON - (20 * 24 * HOUR_MS if n == 9 else 0)) for n in range(30)],
    ],
    ids=["few", "twice", "state", "type", "since"],
)
def test_a_page_that_needs_care_is_no_parcel(records):
    """Few records, the same twice, one that is not shown: those are taken in one by one."""
    view = View.of(Settings(types=("callrecording",), since=date(2024, 9, 1)))
    assert prepare(page(records), "us-east", 0, Placement(view)) is None


def test_a_page_with_an_odd_record_is_no_parcel():
    """What could not be used has to be said; what is no page at all is an error."""
    placing = Placement(View.of(Settings()))
    good = [msgspec.json.decode(make(uuid(n), NOON).source) for n in range(30)]
    body = msgspec.json.encode({"content": [*good, {"id": "x"}], "lastPage": True})
    assert prepare(body, "us-east", 0, placing) is None
    with pytest.raises(Malformed):
        prepare(b"<html>", "us-east", 0, placing)


def test_a_failing_disk_takes_no_parcel_in(tmp_path: Path):
    """All or nothing; the numbers that were to be given are given to others."""
    catalogue = opened(tmp_path)
    records = [make(uuid(n), NOON + n * 1000) for n in range(200)]
    catalogue._database.run("PRAGMA max_page_count = 20")
    with pytest.raises(CatalogueError):
        catalogue.take([prepared(records)])
    assert files(catalogue) == []
    assert catalogue.totals() == (0, 0)
    catalogue._database.run("PRAGMA max_page_count = 100000")
    take(catalogue, prepared(records))
    assert len(files(catalogue)) == 200
    check(catalogue)
    catalogue.close()


def test_a_page_of_known_objects_changes_no_directory(tmp_path: Path):
    """A day that is listed again, as after an outage, keeps its mtime if nothing in it changed."""
    some = [make(uuid(n), NOON + n * 1000) for n in range(FEWEST)]
    other = [make(uuid(50 + n), "2024-09-18T12:00:00") for n in range(2)]
    catalogue = opened(tmp_path)
    take(catalogue, prepared(some))
    assert not catalogue.take([prepared(some)])
    changes = catalogue.take([prepared([*some, *other])])
    assert {catalogue.path(ino) for ino in changes.directories} == {
        "2024/2024-09", "2024/2024-09/2024-09-18"
    }  # fmt: skip
    check(catalogue)


def test_a_change_far_in_the_future_hides_no_other_of_its_page(tmp_path: Path):
    """The newest plausible change of the page is noted."""
    some = [make(uuid(n), NOON + n * 1000) for n in range(FEWEST)]
    some[3] = make(uuid(3), NOON + 3000, updated="2150-01-01")
    catalogue = opened(tmp_path)
    catalogue.take([prepared(some)])
    assert catalogue.progress.newest_ms("us-east") == some[-1].updated_ms
