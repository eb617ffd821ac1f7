"""The catalogue keeps what it is told, under permanent numbers, whatever happens to its file."""

import json
import os
import random
import sqlite3
import stat
import subprocess
import sys
import time
import weakref
from datetime import date
from pathlib import Path

import pytest
import trio

from phonofs.catalogue.catalogue import Catalogue
from phonofs.catalogue.database import Database
from phonofs.catalogue.record_codec import batches, pack, unpack
from phonofs.errors import CatalogueError, Malformed, NoSuchName, UsageError
from phonofs.ranges import Ranges
from phonofs.tree.layout import FIRST_OBJECT_INO, ROOT
from tests.support.catalogue_world import (
    HOUR_MS,
    check,
    files,
    make,
    ms,
    opened,
    tree,
    uuid,
)
from tests.support.failing_sqlite import look_at_statements
from tests.support.timing import timely

DAY = "2024/2024-09/2024-09-17"
NOON = "2024-09-17T12:00:00"


def only(catalogue: Catalogue, name: str = "") -> int:
    """The inode number of the only file, or of that with this in its name."""
    stack, found = [ROOT], []
    while stack:
        for entry in catalogue.children(stack.pop()):
            if entry.is_directory:
                stack.append(entry.ino)
            elif name in entry.name:
                found.append(entry.ino)
    assert len(found) == 1
    return found[0]


def at(catalogue: Catalogue, path: str) -> int:
    ino = ROOT
    for name in filter(None, path.split("/")):
        ino = catalogue.lookup(ino, name).ino
    return ino


# names and attributes


def test_an_object_is_where_and_what_its_record_says(tmp_path: Path):
    """Path, size, times and record; mtime is creation, ctime the change."""
    catalogue = opened(tmp_path)
    record = make("a" * 36, NOON, updated="2024-09-18", size=77, agentName="Ann")
    catalogue.apply([record])
    entry = catalogue.entry(only(catalogue))
    assert catalogue.path(entry.ino) == f"{DAY}/120000_callrecording_Ann_aaaaaaaa.mp3"
    assert (entry.size, entry.mtime_ms, entry.ctime_ms) == (77, ms(NOON), ms("2024-09-18"))
    assert not entry.archived
    assert catalogue.record(entry.ino) == record
    assert catalogue.find("us-east", record.id) == entry.ino
    assert entry.ino >= FIRST_OBJECT_INO
    check(catalogue)


def test_a_listing_is_shared_while_somebody_has_it(tmp_path: Path):
    """Until an object changes: then who asks gets a new one, and who has the old one keeps it."""
    catalogue = opened(tmp_path)
    catalogue.apply([make("one-1111", NOON)])
    day = at(catalogue, DAY)
    region, first = catalogue.listed(day)
    assert region == "us-east"
    assert [each[:2] for each in first] == [(only(catalogue), catalogue.children(day)[0].name)]
    assert catalogue.listed(day)[1] is first
    catalogue.apply([make("two-2222", NOON)])
    second = catalogue.listed(day)[1]
    assert (len(first), len(second)) == (1, 2)
    gone = weakref.ref(second)
    del second
    assert gone() is None


def test_a_listing_is_read_in_parts(tmp_path: Path):
    """From a name on, whether it is there or not, or behind it; in the order of bytes."""
    catalogue = opened(tmp_path)
    people = {"aaaa-1111": "Ann", "bbbb-1111": "Åsa", "Zzzz-1111": "Zoë", "0000-1111": "\U0001f600"}
    catalogue.apply([make(id, NOON, userName=name) for id, name in people.items()])
    day = at(catalogue, DAY)
    rows = catalogue.listed(day)[1]
    names = [row[1] for row in rows]
    assert names == sorted(names, key=str.encode)
    assert catalogue.listed_from(day, "", 10, behind=False) == rows
    assert catalogue.listed_from(day, "", 3, behind=True) == rows[:3]
    assert catalogue.listed_from(day, names[1], 2, behind=False) == rows[1:3]
    assert catalogue.listed_from(day, names[1], 2, behind=True) == rows[2:]
    assert catalogue.listed_from(day, f"{names[2]}\0", 2, behind=False) == rows[3:]
    assert catalogue.listed_from(day, names[3], 2, behind=True) == []


def test_what_is_not_there_is_not_found(tmp_path: Path):
    """No entry, no record, no path for numbers and names that are not in the tree."""
    catalogue = opened(tmp_path)
    catalogue.apply([make("a" * 8, NOON)])
    for ino in (0, 2, -1, 1 << 23, 1 << 40, 1 << 62):
        assert catalogue.entry(ino) is None
        assert catalogue.children(ino) == []
    for name in ("", ".", "..", "x", "2025", "2024-09"):
        assert catalogue.lookup(ROOT, name) is None
        assert catalogue.lookup(at(catalogue, DAY), name) is None
    with pytest.raises(NoSuchName):
        catalogue.record(1 << 40)
    with pytest.raises(NoSuchName):
        catalogue.path(1 << 40)
    assert catalogue.lookup(at(catalogue, "2024"), "2024-09-17") is None


def test_numbers_are_permanent_and_never_reused(tmp_path: Path):
    """The same in every mount; that of a withdrawn object is nobody else's, and its own again."""
    catalogue = opened(tmp_path)
    catalogue.apply([make("one-1111", NOON), make("two-2222", NOON)])
    first, second = only(catalogue, "one"), only(catalogue, "two")
    catalogue.apply([make("two-2222", NOON, updated="2024-09-18", state="REVOKED")])
    catalogue.close()
    catalogue = opened(tmp_path)
    catalogue.apply([make("new-3333", NOON)])
    assert only(catalogue, "one") == first
    assert only(catalogue, "new") > second
    catalogue.apply([make("two-2222", NOON, updated="2024-09-19")])
    assert only(catalogue, "two") == second
    check(catalogue)


def test_folders_keep_their_numbers_when_a_region_comes(tmp_path: Path):
    """With a second region the years move into a region's folder, with the same numbers."""
    catalogue = opened(tmp_path)
    catalogue.apply([make("one-1111", NOON)])
    before = {path: at(catalogue, path) for path in ("2024", "2024/2024-09", DAY)}
    catalogue.set_regions(["uk", "us-east"])
    catalogue.apply([make("two-2222", NOON, region="uk")])
    assert list(tree(catalogue)) == ["uk", "us-east"]
    assert {path: at(catalogue, f"us-east/{path}") for path in before} == before
    assert catalogue.path(only(catalogue, "one")).startswith(f"us-east/{DAY}/")
    check(catalogue)
    catalogue.set_regions(["uk"])
    assert list(tree(catalogue)) == ["2024"]
    assert catalogue.totals()[0] == 1


def test_a_region_that_cannot_be_a_name_is_refused(tmp_path: Path):
    """The service's word becomes a folder: a path or a year is none."""
    catalogue = opened(tmp_path)
    for name in ("", "..", "a/b", "2024", "x\n"):
        with pytest.raises(Malformed, match="not a region"):
            catalogue.set_regions([name])


# equal names


def test_a_region_that_is_no_longer_named_is_shown_while_it_holds_objects(tmp_path: Path):
    """The service's list of regions does not say that objects are gone."""
    catalogue = opened(tmp_path)
    assert catalogue.discover(["uk", "us-east", "de"]) == ["uk", "us-east", "de"]
    catalogue.set_regions(["uk", "us-east", "de"])
    catalogue.apply([make("one-1111", NOON)])
    assert catalogue.discover(["uk"]) == ["uk", "us-east"]
    assert catalogue.discovered() == ["uk", "us-east"]
    catalogue.apply([make("one-1111", NOON, updated="2024-09-18", state="REVOKED")])
    assert catalogue.discover(["uk"]) == ["uk"]


def test_equal_names_are_told_apart_whatever_the_order(tmp_path: Path):
    """The object created first has the plain name, the later one its whole id."""
    records = [make(f"samesame-{n}", NOON, updated=ms(NOON) + n) for n in range(4)]
    expected = [f"{DAY}/120000_callrecording_samesame{end}.mp3" for end in ("-1", "-2", "-3", "")]
    for number, order in enumerate(([0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1])):
        catalogue = opened(tmp_path / str(number))
        for index in order:
            catalogue.apply([records[index]])
        assert sorted(files(catalogue)) == sorted(expected)
        plain = at(catalogue, expected[-1])
        assert catalogue.record(plain).id == "samesame-0"
        check(catalogue)
        changes = catalogue.apply(
            [make("samesame-0", NOON, updated="2024-09-18", state="DELETED")]
        ).objects
        assert catalogue.record(at(catalogue, expected[-1])).id == "samesame-1"
        assert {change.kind for change in changes} == {"removed", "changed"}
        catalogue.close()


# changes


def test_each_change_says_what_to_forget(tmp_path: Path):
    """Created, renamed, archived, withdrawn: names, content and folders that moved."""
    catalogue = opened(tmp_path)
    record = make("one-1111", NOON, checksum="0" * 32, agentName="Ann")
    changes = catalogue.apply([record])
    (created,) = changes.objects
    ino, day = created.ino, created.parent_ino
    assert (created.kind, created.content) == ("created", False)
    year, month = at(catalogue, "2024"), at(catalogue, "2024/2024-09")
    assert created.entries == ((day, created.name),)
    assert changes.directories == {
        day: set(),
        month: {"2024-09-17"},
        year: {"2024-09"},
        ROOT: {"2024"},
    }

    archived = make(
        "one-1111", NOON, updated="2024-09-18", state="ARCHIVED", checksum="0" * 32, agentName="Ann"
    )
    changes = catalogue.apply([archived])
    (changed,) = changes.objects
    assert (changed.kind, changed.content, changed.entries) == ("changed", False, ())
    assert changes.directories == {}
    assert catalogue.entry(ino).archived

    renamed = make("one-1111", NOON, updated="2024-09-19", checksum="1" * 32, agentName="Eve")
    changes = catalogue.apply([renamed])
    (changed,) = changes.objects
    assert changed.content
    assert changed.entries == ((day, created.name), (day, changed.name))
    assert changes.directories == {day: set()}
    assert "Eve" in changed.path

    changes = catalogue.apply([make("one-1111", NOON, updated="2024-09-20", state="REVOKED")])
    (removed,) = changes.objects
    assert (removed.kind, removed.record.state) == ("removed", "REVOKED")
    assert removed.path == f"{DAY}/{changed.name}"
    assert "2024" in changes.directories[ROOT]
    assert catalogue.children(ROOT) == []
    assert catalogue.totals() == (0, 0)


def test_old_news_is_no_news(tmp_path: Path):
    """Records again, late, or older than what is known change nothing; withdrawn stays so."""
    catalogue = opened(tmp_path)
    new = make("one-1111", NOON, updated="2024-09-18")
    assert len(catalogue.apply([new, new]).objects) == 1
    assert not catalogue.apply([new])
    assert not catalogue.apply([make("one-1111", NOON, state="REVOKED")])
    gone = make("one-1111", NOON, updated="2024-09-19", state="REVOKED")
    assert len(catalogue.apply([gone]).objects) == 1
    assert not catalogue.apply([gone])
    assert not catalogue.apply([new])
    assert not catalogue.apply([make("one-1111", NOON, updated="2024-09-19")])
    assert files(catalogue) == []


def test_of_one_batch_the_later_news_counts(tmp_path: Path):
    """Two of the same object and ``updatedTime``: the one that comes later, whatever is shown."""
    catalogue = opened(tmp_path, archived=False)
    archived = make("one-1111", NOON, state="ARCHIVED")
    there = make("one-1111", NOON)
    catalogue.apply([archived, there])
    assert len(files(catalogue)) == 1
    catalogue.apply([make("two-2222", NOON), make("two-2222", NOON, state="ARCHIVED")])
    assert len(files(catalogue)) == 1
    check(catalogue)
    catalogue.close()


@pytest.mark.parametrize("state", ["PENDING", "FAILED", "WHATEVER"])
def test_other_states_are_not_listed(tmp_path: Path, state):
    """Neither available nor archived: no file, until it is."""
    catalogue = opened(tmp_path)
    assert not catalogue.apply([make("one-1111", NOON, state=state)])
    assert files(catalogue) == []
    catalogue.apply([make("one-1111", NOON)])
    assert len(files(catalogue)) == 1
    catalogue.apply([make("one-1111", NOON, updated="2024-09-18", state=state)])
    assert files(catalogue) == []


def test_what_was_never_known_is_withdrawn_too(tmp_path: Path):
    """Its cached bytes may be there from an earlier catalogue: told once, without a place."""
    catalogue = opened(tmp_path)
    gone = make("one-1111", NOON, state="DELETED")
    (change,) = catalogue.apply([gone]).objects
    assert (change.kind, change.parent_ino, change.path) == ("removed", 0, "")
    assert not catalogue.apply([gone])


def test_withdrawn_records_leave_nothing_readable(tmp_path: Path):
    """The catalogue file does not keep what a withdrawn record said."""
    catalogue = opened(tmp_path)
    catalogue.apply([make("one-1111", NOON, callerName="Confidential")])
    catalogue.apply([make("one-1111", NOON, updated="2024-09-18", state="REVOKED")])
    catalogue.close()
    rows = sqlite3.connect(tmp_path / "catalogue.sqlite").execute("SELECT * FROM record").fetchall()
    assert rows == []


def test_what_came_together_is_withdrawn_one_by_one(tmp_path: Path):
    """Each is read alone, and what goes or changes leaves nothing."""
    catalogue = opened(tmp_path)
    records = [make(uuid(n), ms(NOON) + n * 1000, callerName=f"Caller{n}") for n in range(20)]
    catalogue.apply(records)
    inos = [catalogue.find("us-east", record.id) for record in records]
    assert [catalogue.record(ino) for ino in inos] == records
    gone = [make(uuid(n), NOON, updated="2024-09-18", state="REVOKED") for n in range(5)]
    changed = [make(uuid(n), NOON, updated="2024-09-18", callerName="New") for n in range(5, 8)]
    catalogue.apply(gone + changed)

    text = b"".join(stored(catalogue))
    assert b"Caller7" not in text
    assert b"Caller8" in text
    assert [catalogue.record(ino) for ino in inos[8:]] == records[8:]
    assert [catalogue.record(ino) for ino in inos[5:8]] == changed
    check(catalogue)
    gone = [make(uuid(n), NOON, updated="2024-09-19", state="REVOKED") for n in range(20)]
    catalogue.apply(gone)
    assert stored(catalogue) == []
    catalogue.close()


def stored(catalogue: Catalogue) -> list[bytes]:
    """The text of every record that is kept."""
    batches = catalogue._database.rows("SELECT text FROM record")
    return [text for (batch,) in batches for text in unpack(batch)]


def test_a_failed_writing_removes_no_record(tmp_path: Path):
    """Records are there again after a transaction that was taken back."""
    catalogue = opened(tmp_path)
    records = [make(uuid(n), ms(NOON) + n * 1000) for n in range(10)]
    catalogue.apply(records)
    real = catalogue._database.run

    def failing(sql: str, *values: object) -> None:
        real(sql, *values)
        if sql.startswith("DELETE FROM record"):
            raise CatalogueError("disk full")

    catalogue._database.run = failing
    with pytest.raises(CatalogueError):
        catalogue.apply([make(uuid(0), NOON, updated="2024-09-18", state="REVOKED")])
    catalogue._database.run = real
    assert [catalogue.record(catalogue.find("us-east", one.id)) for one in records] == records
    check(catalogue)
    catalogue.close()


def test_an_object_with_a_damaged_record_leaves_the_counts_too(tmp_path: Path):
    """A listing lacks it: it goes, though nobody can be told what it was."""
    catalogue = opened(tmp_path)
    catalogue.apply([make("one-1111", NOON, size=3), make("two-2222", NOON, size=4)])
    before = catalogue.known_objects("us-east", ms("2024-09-17"), ms("2024-09-18"))
    one = catalogue.find("us-east", "one-1111")
    catalogue._database.run("UPDATE record SET text = x'01' WHERE ino = ?", one)
    changes = catalogue.reconcile(before, {"two-2222"}, ms("2024-09-20"))
    assert not changes.objects
    assert DAY in {catalogue.path(ino) for ino in changes.directories}
    assert catalogue.totals() == (1, 4)
    check(catalogue)
    catalogue.close()


@pytest.mark.parametrize("harm", ["UPDATE record SET text = x'01'", "DELETE FROM record"])
def test_damage_to_records_that_came_together_is_told_of_each(tmp_path: Path, expected_log, harm):
    """All of them are errors until they are told again."""
    expected_log.expect("is damaged")
    catalogue = opened(tmp_path)
    records = [make(uuid(n), ms(NOON) + n * 1000) for n in range(10)]
    catalogue.apply(records)
    catalogue.close()
    catalogue = opened(tmp_path)
    catalogue._database.run(harm)
    for record in records:
        with pytest.raises(Malformed, match="damaged"):
            catalogue.record(catalogue.find("us-east", record.id))
    catalogue.apply(records)
    assert [catalogue.record(catalogue.find("us-east", one.id)) for one in records] == records
    catalogue.close()


def test_folder_times_move_with_their_contents(tmp_path: Path):
    """A name that comes or goes moves its folder's mtime, never back; a new size does not."""
    catalogue = opened(tmp_path)
    catalogue.apply([make("one-1111", NOON, updated="2024-09-18")])
    day = at(catalogue, DAY)

    def mtime() -> int:
        return catalogue.entry(day).mtime_ms

    first = mtime()
    assert first == ms("2024-09-18")
    catalogue.apply([make("two-2222", "2024-09-17T01:00:00")])
    second = mtime()
    assert second > first
    catalogue.set_size(only(catalogue, "two"), 99)
    assert mtime() == second
    catalogue.apply([make("two-2222", "2024-09-17", updated="2024-09-20", state="REVOKED")])
    assert mtime() == ms("2024-09-20")
    catalogue.close()
    assert opened(tmp_path).entry(day).mtime_ms == ms("2024-09-20")


def test_the_real_size_wins(tmp_path: Path):
    """A size found by reading stays, until the content changes."""
    catalogue = opened(tmp_path)
    catalogue.apply([make("one-1111", NOON, size=10, checksum="0" * 32)])
    ino = only(catalogue)
    (change,) = catalogue.touched(ino).objects
    assert (change.kind, change.content, change.path) == ("changed", True, catalogue.path(ino))
    assert catalogue.set_size(ino, 12)
    assert not catalogue.set_size(ino, 12)
    assert (catalogue.entry(ino).size, catalogue.record(ino).size) == (12, 12)
    assert catalogue.totals() == (1, 12)
    catalogue.apply([make("one-1111", NOON, updated="2024-09-18", size=10, checksum="0" * 32)])
    assert catalogue.entry(ino).size == 12
    catalogue.apply([make("one-1111", NOON, updated="2024-09-19", size=20, checksum="1" * 32)])
    assert catalogue.entry(ino).size == 20
    check(catalogue)


def test_a_size_that_is_filled_in_later(tmp_path: Path):
    """The record said 0, as it does while a recording is made ready; the checksum stays."""
    catalogue = opened(tmp_path)
    catalogue.apply([make("one-1111", NOON, size=0, checksum="0" * 32)])
    ino = only(catalogue)
    catalogue.apply([make("one-1111", NOON, updated="2024-09-18", size=300, checksum="0" * 32)])
    assert (catalogue.entry(ino).size, catalogue.record(ino).size) == (300, 300)
    check(catalogue)


def test_a_listing_takes_out_what_it_did_not_have(tmp_path: Path):
    """Only what was known before it, is of its span, and did not change while it ran."""
    catalogue = opened(tmp_path)
    catalogue.apply([make(uuid(n), ms(NOON) + n * HOUR_MS) for n in range(12)])
    before = catalogue.known_objects("us-east", ms(NOON), ms(NOON) + 6 * HOUR_MS)
    assert len(before) == 6
    catalogue.apply([make("new-one", NOON)])
    catalogue.apply([make(uuid(2), ms(NOON), updated="2024-09-19")])
    changes = catalogue.reconcile(before, {uuid(0), uuid(1)}, ms("2024-09-20")).objects
    assert {change.record.id for change in changes} == {uuid(3), uuid(4), uuid(5)}
    assert {change.kind for change in changes} == {"removed"}
    assert len(files(catalogue)) == 10
    check(catalogue)
    catalogue.apply([make(uuid(3), ms(NOON) + 3 * HOUR_MS)])
    assert len(files(catalogue)) == 11


def test_neighbours_are_given_in_both_orders(tmp_path: Path):
    """The next readable files of the day, by name and by inode; archived ones are left out."""
    catalogue = opened(tmp_path)
    hours = [5, 3, 4, 1, 2]
    catalogue.apply([make(uuid(h), ms(NOON) + h * HOUR_MS) for h in hours])
    catalogue.apply([make("archived", ms(NOON) + 1, state="ARCHIVED")])
    first = catalogue.find("us-east", uuid(3))

    def after(**how: bool) -> list[str]:
        return [record.id for _, record in catalogue.siblings(first, 2, **how)]

    assert after() == [uuid(4), uuid(5)]
    assert after(by_inode=True) == [uuid(4), uuid(1)]
    assert catalogue.siblings(1 << 50, 2) == []


# coverage


def test_listed_spans_and_watermarks_persist(tmp_path: Path):
    """They are there in the next mount; what is created since a watermark is listed with it."""
    catalogue = opened(tmp_path)
    assert catalogue.coverage.watermark("us-east") is None
    catalogue.coverage.mark_listed("us-east", 10, 20)
    catalogue.coverage.begin_following("us-east", 100)
    catalogue.coverage.mark_listed("us-east", 30, 40)
    catalogue.coverage.set_watermark("us-east", 200)
    catalogue.coverage.set_watermark("us-east", 150)
    catalogue.notes.remember("ways", {"us-east": "range"})
    catalogue.close()
    catalogue = opened(tmp_path)
    assert catalogue.coverage.listed("us-east") == Ranges([(30, 40), (100, 1000)])
    assert catalogue.coverage.watermark("us-east") == 200
    assert catalogue.notes.recall("ways") == {"us-east": "range"}
    assert catalogue.notes.recall("nothing", 5) == 5
    assert not catalogue.coverage.following("us-east")


def test_a_change_far_in_the_future_does_not_make_the_future_known(tmp_path: Path):
    """While nobody follows the changes, days are known up to the newest plausible one."""
    catalogue = opened(tmp_path, now="2024-09-20")
    catalogue.apply([make("odd-1111", NOON, updated="2150-01-01"), make("two-2222", NOON)])
    assert catalogue.coverage.newest_ms("us-east") == ms(NOON)
    assert catalogue.coverage.edge_ms("us-east") == ms(NOON) + 1000


def test_narrower_types_keep_what_was_listed_wider_ones_do_not(tmp_path: Path):
    """What was listed of one type says nothing about others."""
    catalogue = opened(tmp_path, types=("voicemail", "meeting"))
    catalogue.coverage.begin_following("us-east", 100)
    catalogue.coverage.mark_listed("us-east", 10, 20)
    catalogue.close()
    for types, archived, spans in [
        (("voicemail",), True, 1),
        (("voicemail",), False, 1),
        ((), True, 0),
        (("voicemail", "other"), True, 0),
        (("meeting", "voicemail"), True, 1),
    ]:
        catalogue = opened(tmp_path, types=types, archived=archived)
        assert len(list(catalogue.coverage.listed("us-east"))) == spans
        assert (catalogue.coverage.watermark("us-east") is not None) == bool(spans)
        catalogue.close()


# another view


def test_another_timezone_moves_names_without_asking(tmp_path: Path):
    """Days and names follow the zone; numbers of objects and what was listed stay."""
    records = [make(uuid(n), ms("2024-03-30") + n * HOUR_MS) for n in range(72)]
    catalogue = opened(tmp_path)
    catalogue.apply(records)
    catalogue.coverage.mark_listed("us-east", ms("2024-03-30"), ms("2024-04-02"))
    numbers = {record.id: catalogue.find("us-east", record.id) for record in records}
    catalogue.close()
    for zone in ("Europe/Berlin", "America/New_York", "Asia/Kolkata", "UTC"):
        catalogue = opened(tmp_path, timezone=zone)
        fresh = opened(tmp_path / zone.replace("/", "-"), timezone=zone)
        fresh.apply(records)
        assert files(catalogue) == files(fresh)
        assert {id: catalogue.find("us-east", id) for id in numbers} == numbers
        assert catalogue.coverage.listed("us-east").covers(ms("2024-03-30"), ms("2024-04-02"))
        check(catalogue)
        fresh.close()
        catalogue.close()


def test_another_template_names_anew_and_tells_equal_names_apart(tmp_path: Path):
    """As if every object had come under the new template."""
    records = [make(f"samesame-{n}", ms(NOON) + n * 1000) for n in range(5)]
    catalogue = opened(tmp_path)
    catalogue.apply(records)
    catalogue.close()
    catalogue = opened(tmp_path, name_template="{id8}")
    assert catalogue.record(at(catalogue, f"{DAY}/samesame.mp3")).id == "samesame-0"
    assert f"{DAY}/samesame-4.mp3" in files(catalogue)
    check(catalogue)


def test_types_dates_and_archived_narrow_the_tree_and_widen_it_again(tmp_path: Path):
    """What is hidden keeps its number and comes back without being fetched."""
    catalogue = opened(tmp_path)
    catalogue.apply(
        [
            make("one-1111", NOON, kind="voicemail"),
            make("two-2222", NOON, kind="voicemail", state="ARCHIVED"),
            make("old-3333", "2020-01-01", kind="voicemail"),
            make("rec-4444", NOON),
        ]
    )
    everything = files(catalogue)
    numbers = [only(catalogue, name) for name in ("one", "two", "old", "rec")]
    catalogue.close()
    hide = {"types": ("voicemail",), "since": date(2024, 1, 1), "archived": False}
    catalogue = opened(tmp_path, **hide)
    assert [path.rsplit("_")[-1] for path in files(catalogue)] == ["one-1111.mp3"]
    check(catalogue)
    catalogue.close()
    catalogue = opened(tmp_path)
    assert files(catalogue) == everything
    assert [only(catalogue, name) for name in ("one", "two", "old", "rec")] == numbers


def test_a_bad_template_is_refused_before_anything_changes(tmp_path: Path):
    """The catalogue stays as it was."""
    opened(tmp_path).close()
    with pytest.raises(UsageError, match="name_template"):
        opened(tmp_path, name_template="{nam}_{id8}")
    opened(tmp_path).close()


# the file


def test_the_file_is_private_whatever_the_umask(tmp_path: Path):
    """0600 in a 0700 folder, its side files too."""
    old = os.umask(0)
    try:
        catalogue = opened(tmp_path / "new")
        catalogue.apply([make("one-1111", NOON)])
        assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700
        for path in (tmp_path / "new").iterdir():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
    finally:
        os.umask(old)


def test_a_link_in_its_place_is_not_followed(tmp_path: Path):
    """A planted symlink is refused with a sentence."""
    (tmp_path / "catalogue.sqlite").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="cannot be opened"):
        opened(tmp_path)
    assert not (tmp_path / "elsewhere").exists()


def test_two_at_once_are_refused(tmp_path: Path):
    """The second one is told that the first has it."""
    catalogue = opened(tmp_path)
    catalogue.apply([make("one-1111", NOON)])
    with pytest.raises(UsageError, match="in use by another phonofs"):
        opened(tmp_path)


@pytest.mark.parametrize("version", [1, 99])
def test_a_file_with_another_schema_is_set_aside(tmp_path: Path, expected_log, version: int):
    """One sentence in the log says so; the catalogue begins anew."""
    expected_log.expect(f"has schema {version}, ")
    catalogue = opened(tmp_path)
    catalogue.apply([make("one-1111", NOON)])
    catalogue.close()
    file = sqlite3.connect(tmp_path / "catalogue.sqlite")
    file.execute(f"PRAGMA user_version = {version}")
    file.close()
    catalogue = opened(tmp_path)
    assert catalogue.is_empty()
    catalogue.apply([make("one-1111", NOON)])
    check(catalogue)
    catalogue.close()
    assert len(list(tmp_path.glob("catalogue.sqlite.damaged-*"))) == 1


def test_another_programs_database_is_not_taken_for_ours(tmp_path: Path):
    """It is refused and left alone."""
    file = sqlite3.connect(tmp_path / "catalogue.sqlite")
    file.execute("CREATE TABLE t (x)")
    file.execute("PRAGMA application_id = 1")
    file.close()
    with pytest.raises(UsageError, match="not a catalogue"):
        opened(tmp_path)


def damaged(kind: str, path: Path) -> None:
    content = bytearray(path.read_bytes())
    if kind == "text":
        content = bytearray(b"this is not a database" * 300)
    elif kind == "cut":
        del content[len(content) // 2 :]
    elif kind == "zeros":
        content[4096:] = bytes(len(content) - 4096)
    elif kind == "header":
        content[:200] = os.urandom(200)
    elif kind == "pages":
        for offset in range(4096, len(content), 4096):
            content[offset : offset + 64] = b"\xff" * 64
    path.write_bytes(content)


@pytest.mark.parametrize("kind", ["text", "cut", "zeros", "header", "pages"])
def test_a_damaged_file_is_set_aside_and_built_anew(tmp_path: Path, expected_log, kind):
    """The old one stays beside it, the log says so, and the mount goes on with an empty tree."""
    expected_log.expect("is damaged")
    catalogue = opened(tmp_path)
    catalogue.apply([make(uuid(n), NOON) for n in range(500)])
    catalogue.close()
    damaged(kind, tmp_path / "catalogue.sqlite")
    catalogue = opened(tmp_path)
    assert files(catalogue) == []
    assert len(expected_log.seen) == 1
    assert any("damaged-" in path.name for path in tmp_path.iterdir())
    catalogue.apply([make("one-1111", NOON)])
    check(catalogue)


def test_damage_found_in_use_is_an_error_and_looked_at_next_time(tmp_path: Path, expected_log):
    """A read that meets it fails; the next opening sets the file aside."""
    expected_log.expect("is damaged")
    catalogue = opened(tmp_path)
    catalogue._database.run("PRAGMA cache_size = 1")
    for n in range(0, 3000, 100):
        catalogue.apply([make(uuid(n + k), NOON) for k in range(100)])
    catalogue._database.run("PRAGMA wal_checkpoint(TRUNCATE)")
    numbers = [entry.ino for entry in catalogue.children(at(catalogue, DAY))]
    damaged("pages", tmp_path / "catalogue.sqlite")
    with pytest.raises(CatalogueError, match=r"is damaged .* mount again"):
        _ = [catalogue.record(ino) for ino in numbers]
    catalogue.close()
    assert files(opened(tmp_path)) == []


@pytest.mark.parametrize("altered", [pack([b'{"id": "other"}']), b"\x07nonsense", b""])
def test_a_record_that_was_altered_is_an_error_and_told_again(
    tmp_path: Path, expected_log, altered
):
    """What is kept is checked before it is believed; its day is then listed anew."""
    expected_log.expect("is damaged")
    catalogue = opened(tmp_path)
    record = make("one-1111", NOON)
    catalogue.apply([record])
    catalogue.coverage.mark_listed("us-east", ms("2024-09-01"), ms("2024-09-20"))
    ino = only(catalogue)
    catalogue._database.run("UPDATE record SET text = ?", altered)
    with pytest.raises(Malformed, match="one-1111 in the catalogue is damaged"):
        catalogue.record(ino)
    assert not catalogue.coverage.listed("us-east").covers(ms(NOON), ms(NOON) + 1)
    assert catalogue.coverage.listed("us-east").covers(ms("2024-09-01"), ms("2024-09-17"))
    catalogue.apply([record])
    assert catalogue.record(ino) == record
    catalogue._database.run("UPDATE record SET text = ?", altered)
    catalogue.coverage.mark_listed("us-east", ms("2024-09-01"), ms("2024-09-20"))
    catalogue.close()
    catalogue = opened(tmp_path, timezone="Asia/Tokyo")
    assert files(catalogue) == []
    assert not catalogue.coverage.listed("us-east").covers(ms(NOON), ms(NOON) + 1)
    catalogue.apply([record])
    assert catalogue.record(ino) == record
    check(catalogue)


def test_a_size_that_cannot_be_noted_is_only_said(tmp_path: Path, expected_log):
    """Who reads a file is not stopped by a full disk under the catalogue."""
    expected_log.expect("could not be noted")
    catalogue = opened(tmp_path)
    catalogue.apply([make("one-1111", NOON, size=10)])

    def full(sql: str, *values: object) -> None:
        raise CatalogueError("disk full")

    catalogue._database.run = full
    assert not catalogue.set_size(only(catalogue), 12)
    del catalogue._database.run
    assert catalogue.entry(only(catalogue)).size == 10


class Unreadable:
    """The connection to a database that cannot be read as a whole."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection

    def serialize(self) -> bytes:
        raise sqlite3.OperationalError("disk I/O error")

    def __getattr__(self, name: str) -> object:
        return getattr(self.connection, name)


@pytest.mark.parametrize("known", [1, 0])
def test_a_disk_that_fails_at_the_start_leaves_a_catalogue_in_memory(
    tmp_path: Path, expected_log, known
):
    """It has what was known, or is empty if that cannot be read, and then claims nothing."""
    expected_log.expect("cannot be written")
    catalogue = opened(tmp_path)
    catalogue.apply([make("one-1111", NOON)])
    catalogue.coverage.begin_following("us-east", ms("2024-09-20"))
    catalogue.coverage.mark_listed("us-east", ms("2024-09-17"), ms("2024-09-18"))
    if not known:
        catalogue._database._connection = Unreadable(catalogue._database._connection)

    def full(sql: str, *values: object) -> None:
        del catalogue._database.run
        raise CatalogueError("disk full")

    catalogue._database.run = full
    catalogue.begin(["us-east"])
    assert catalogue.only_in_memory
    assert len(files(catalogue)) == known
    spans = catalogue.coverage.listed("us-east")
    assert spans.covers(ms("2024-09-17"), ms("2024-09-18")) is bool(known)
    catalogue.apply([make("two-2222", NOON)])
    assert catalogue.coverage.newest_ms("us-east")
    assert len(files(catalogue)) == known + 1
    check(catalogue)


@pytest.mark.parametrize("readable", [True, False])
def test_what_was_read_from_a_disk_that_failed_is_never_taken_for_what_is_in_memory(
    tmp_path: Path, expected_log, readable: bool
) -> None:
    """However many rows have changed since: what is kept of a day is known by that number."""
    expected_log.expect("cannot be written")
    database = Database(tmp_path / "catalogue.sqlite")
    states = [database.state]

    def change(count: int) -> None:
        for _ in range(count):
            database.run("INSERT INTO metadata VALUES (?, '0')", f"note {len(states)}")
            states.append(database.state)

    change(20)
    if not readable:
        database._connection = Unreadable(database._connection)  # type: ignore[assignment]
    database.leave_disk(OSError("gone"))
    states.append(database.state)
    change(40)
    database.close()
    assert len(set(states)) == len(states) == 62


def test_a_day_read_again_is_as_it_is_now(tmp_path: Path):
    """Read once while nothing changes; after every change, and none that was taken back, anew."""
    catalogue = opened(tmp_path)
    catalogue.apply([make("one-1111", NOON, size=10), make("two-2222", "2024-10-01")])
    day = catalogue.parent(only(catalogue, "one-1111"))
    first = catalogue.children(day)
    assert catalogue.children(day) is first
    catalogue.set_size(first[0].ino, 12)
    assert [entry.size for entry in catalogue.children(day)] == [12]

    def taken_back() -> None:
        with catalogue._database.transaction():
            catalogue._database.run("UPDATE object SET size = 99")
            assert [entry.size for entry in catalogue.children(day)] == [99]
            raise CatalogueError("disk full")

    with pytest.raises(CatalogueError):
        taken_back()
    assert [entry.size for entry in catalogue.children(day)] == [12]
    catalogue.apply([make("new-3333", NOON, agentName="Zoe")])
    assert len(catalogue.children(day)) == 2


def test_an_object_that_was_looked_up_is_read_once_and_never_outdated(
    tmp_path: Path, monkeypatch
) -> None:
    statements: list[str] = []
    look_at_statements(monkeypatch, statements.append)
    catalogue = opened(tmp_path)
    catalogue.apply([make("one-1111", NOON, agentName="Jo", size=10)])
    ino = only(catalogue, "one-1111")
    day, name = (
        catalogue.parent(ino),
        "".join(entry.name for entry in catalogue.children(catalogue.parent(ino))),
    )
    catalogue.record(ino)
    statements.clear()
    assert catalogue.lookup(day, name) == catalogue.entry(ino)
    statements.clear()
    assert catalogue.lookup(day, name) is not None
    assert catalogue.record(ino).size == 10
    assert not [each for each in statements if each.startswith("SELECT")]

    catalogue.set_size(ino, 12)
    assert catalogue.lookup(day, name) == catalogue.entry(ino)
    assert catalogue.record(ino).size == 12

    def taken_back() -> None:
        with catalogue._database.transaction():
            catalogue.lookup(day, name)
            catalogue._database.run("UPDATE object SET size = 99")
            assert catalogue.record(ino).size == 99
            raise CatalogueError("disk full")

    with pytest.raises(CatalogueError):
        taken_back()
    assert catalogue.record(ino).size == 12
    catalogue.apply([make("one-1111", NOON, agentName="Jo", size=10, state="REVOKED")])
    with pytest.raises(NoSuchName):
        catalogue.record(ino)


def test_a_day_of_very_many_is_not_kept_in_memory(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("phonofs.catalogue.queries.LARGEST_KEPT", 2)
    catalogue = opened(tmp_path)
    catalogue.apply([make(uuid(n), NOON) for n in range(3)])
    day = catalogue.parent(only(catalogue, uuid(0)[:8]))
    assert catalogue.children(day) is not catalogue.children(day)
    assert catalogue._rows._day is None


def test_a_failing_disk_takes_nothing_in_by_halves(tmp_path: Path, monkeypatch):
    """An error in the middle of a page, or at its end, leaves file and memory as before; later it
    works."""
    failing: list[str] = []
    left = 0

    def look(statement: str) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            failing.append(statement)
            raise sqlite3.OperationalError("disk full")

    look_at_statements(monkeypatch, look)
    catalogue = opened(tmp_path)
    catalogue.apply([make("one-1111", NOON)])
    before = (tree(catalogue), catalogue.totals())
    for fail_at in range(1, 100):
        left = fail_at
        try:
            catalogue.apply([make(uuid(n), "2024-10-01") for n in range(3)])
        except CatalogueError:
            assert (tree(catalogue), catalogue.totals()) == before
            check(catalogue)
        else:
            break
    left = 0
    assert fail_at > 5
    assert failing[0].startswith("BEGIN")
    assert failing[-1] == "COMMIT"
    assert len(files(catalogue)) == 4
    check(catalogue)


KILLED = """
import os, sys
from pathlib import Path
sys.path[:0] = {paths!r}
from tests.support.catalogue_world import make, ms, opened, uuid
catalogue = opened(Path({folder!r}))
for n in range(0, 10**6, 20):
    day = ms("2024-09-17") + n * 60_000
    catalogue.apply([make(uuid(n + k), day) for k in range(20)])
    catalogue.coverage.mark_listed("us-east", day, day + 1000)
    print(n, flush=True)
"""


def test_kill_9_leaves_a_whole_catalogue(tmp_path: Path):
    """Killed at any point, every transaction that was done is there, none by halves."""
    code = KILLED.format(paths=[*sys.path, os.getcwd()], folder=str(tmp_path))
    for _ in range(3):
        command = [sys.executable, "-c", code]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            lines = [process.stdout.readline() for _ in range(15)]
            process.kill()
            lines += process.stdout.readlines()
        done = int(lines[-1])
        catalogue = opened(tmp_path)
        assert catalogue.find("us-east", uuid(done + 19)) is not None
        assert catalogue.totals()[0] % 20 == 0
        check(catalogue)
        catalogue.close()


# costs


def test_packing_is_lossless_and_small():
    """Any text comes back; a record takes a fraction of its length."""
    for text in (b"", b"x", os.urandom(3000), json.dumps({"a": "é" * 2000}).encode()):
        assert unpack(pack([text, text])) == [text, text]
    sources = [
        make(uuid(n), NOON, agentName="Ann", direction="INBOUND", callerId="+1").source
        for n in range(200)
    ]
    cut = list(batches(sources))
    assert [text for _, batch in cut for text in unpack(batch)] == sources
    assert all(len(unpack(batch)) == count for count, batch in cut)
    assert cut[0][0] == 1
    assert len(cut) > 3
    assert len(pack(sources[:1])) < len(sources[0]) / 2
    assert sum(len(batch) for _, batch in cut) < sum(map(len, sources)) / 4
    for damaged in (b"\x02", b"", pack(sources)[:-9]):
        with pytest.raises(ValueError, match="not a batch"):
            unpack(damaged)


@pytest.mark.skipif(sys.gettrace() is not None, reason="the time is the tracer's")
def test_costs_on_the_event_loop(tmp_path: Path):
    """Seconds of CPU, at most about four times what it costs on an idle machine."""
    catalogue = opened(tmp_path)
    records = [make(uuid(n), ms("2024-09-17") + n * 8000, agentName="Ann") for n in range(10_000)]
    pages = [records[n : n + 100] for n in range(0, 10_000, 100)]
    spent = sorted(measured(lambda page=page: catalogue.apply(page)) for page in pages)
    assert timely(spent[50], 0.020)
    day = at(catalogue, DAY)
    assert timely(min(measured(lambda: catalogue.children(day)) for _ in range(3)), 0.1)
    entries = catalogue.children(day)[:1000]

    def look() -> None:
        for entry in entries:
            catalogue.lookup(day, entry.name)
            catalogue.entry(entry.ino)

    assert timely(min(measured(look) for _ in range(3)), 1000 * 2 * 50e-6)


def measured(do) -> float:
    start = time.process_time()
    do()
    return time.process_time() - start


def mtime(catalogue) -> int:
    return catalogue.entry(only(catalogue)).mtime_ms


def test_the_mtime_follows_once_the_content_was_replaced(tmp_path: Path):
    """createdTime until then, updatedTime from then on; withdrawn and back with the same content
    is no replacement, with another one it is; a rebuild keeps it."""
    catalogue = opened(tmp_path)
    catalogue.apply([make("one-1111", NOON, checksum="a" * 32)])
    catalogue.apply([make("one-1111", NOON, checksum="a" * 32, updated="2024-09-18", callId="7")])
    assert mtime(catalogue) == ms(NOON)
    catalogue.apply([make("one-1111", NOON, updated="2024-09-19", state="REVOKED")])
    catalogue.apply([make("one-1111", NOON, checksum="a" * 32, updated="2024-09-20")])
    assert mtime(catalogue) == ms(NOON)
    gone = catalogue.known_objects("us-east", ms("2024-09-17"), ms("2024-09-18"))
    catalogue.reconcile(gone, set(), ms("2024-09-21"))
    catalogue.apply([make("one-1111", NOON, checksum="b" * 32, updated="2024-09-22")])
    assert mtime(catalogue) == ms("2024-09-22")
    catalogue.apply([make("one-1111", NOON, checksum="b" * 32, updated="2024-09-23", callId="8")])
    catalogue.close()
    catalogue = opened(tmp_path, timezone="Asia/Tokyo")
    assert mtime(catalogue) == ms("2024-09-23")


def test_reconciling_a_day_asks_for_many_rows_at_once(tmp_path: Path, monkeypatch):
    """A statement for each object known before would hold the event loop up."""
    statements: list[str] = []
    connect = sqlite3.connect

    def traced(*words, **options):
        connection = connect(*words, **options)
        connection.set_trace_callback(statements.append)
        return connection

    monkeypatch.setattr(sqlite3, "connect", traced)
    catalogue = opened(tmp_path)
    catalogue.apply([make(uuid(n), ms(NOON) + 1000 * n) for n in range(2000)])
    before = catalogue.known_objects("us-east", ms("2024-09-17"), ms("2024-09-18"))
    seen = {uuid(n) for n in range(1, 2000)}
    statements.clear()
    (gone,) = catalogue.reconcile(before, seen, ms("2024-09-18")).objects
    assert gone.record.id == uuid(0)
    assert len(statements) < 50
    check(catalogue)


def test_two_of_one_name_go_with_one_listing(tmp_path: Path):
    """The one that waited for the plain name gets it, and goes too; the third keeps it."""
    catalogue = opened(tmp_path)
    catalogue.apply([make(f"samesame-{n}", NOON) for n in range(3)])
    plain = min(files(catalogue), key=len)
    before = catalogue.known_objects("us-east", ms("2024-09-17"), ms("2024-09-18"))
    catalogue.reconcile(before, {"samesame-2"}, ms("2024-09-18"))
    assert catalogue.record(only(catalogue)).id == "samesame-2"
    assert files(catalogue) == [plain]
    check(catalogue)


async def test_what_is_written_is_brought_in_by_a_thread(tmp_path: Path):
    """A commit never writes the file itself, which syncs the disk twice: that is a thread's work
    while the event loop goes on with the catalogue."""
    catalogue = opened(tmp_path)
    path = tmp_path / "catalogue.sqlite"
    for n in range(300):
        noise = random.Random(n).randbytes(60_000).hex()
        catalogue.apply([make(uuid(n), ms(NOON) + 1000 * n, noise=noise)])
    assert path.with_name("catalogue.sqlite-wal").stat().st_size > 20 << 20
    assert path.stat().st_size < 1 << 20
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, catalogue.checkpoint)
        catalogue.apply([make("meanwhile", NOON)])
    assert path.stat().st_size > 15 << 20
    check(catalogue)
    catalogue.close()
    catalogue = opened(tmp_path)
    assert len(files(catalogue)) == 301


def test_of_damaged_files_one_is_kept(tmp_path: Path, expected_log):
    """They hold names and numbers of people: the newest is enough to look into."""
    expected_log.expect("is damaged")
    for number in range(3):
        catalogue = opened(tmp_path)
        catalogue.apply([make(uuid(n), NOON) for n in range(100)])
        catalogue.close()
        damaged("header", tmp_path / "catalogue.sqlite")
        for kept in tmp_path.glob("*.damaged-*"):
            kept.rename(f"{kept}{number}")  # as if it were of another second
    opened(tmp_path).close()
    assert len(list(tmp_path.glob("*.damaged-*"))) == 1
