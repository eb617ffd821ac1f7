"""Facets agree with the records they are made of, and a listing makes none."""

import sqlite3
import tempfile
from datetime import date
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from phonofs.catalogue import facets as facets_module
from phonofs.catalogue import search as search_module
from phonofs.catalogue.catalogue import Catalogue
from phonofs.catalogue.search import known_days, search_known
from phonofs.search.condition import Condition
from phonofs.search.facets import facets_of
from phonofs.search.options import condition_of
from tests.support.catalogue_world import make, ms, opened, uuid, world

NOON = "2024-09-17T12:00:00"
EVERYTHING = Condition()


def found(catalogue: Catalogue, condition: Condition = EVERYTHING) -> list[str]:
    """The paths of what matches, in order."""
    return [each.path for some in search_known(catalogue, condition) for each in some]


def facets_in(path: Path) -> int:
    with sqlite3.connect(path / "catalogue.sqlite") as connection:
        return connection.execute("SELECT count(*) FROM facet").fetchone()[0]


@pytest.fixture
def catalogue(tmp_path):
    catalogue = opened(tmp_path)
    yield catalogue
    catalogue.close()


async def test_listing_a_day_makes_no_facets(tmp_path):
    records = [make(uuid(n), ms("2024-09-17") + n * 60_000, agentName="Jo") for n in range(300)]
    async with world(tmp_path, records) as it:
        assert len(await it.ls("2024/2024-09/2024-09-17")) == 300
        assert facets_in(tmp_path) == 0
        assert len(found(it.catalogue, condition_of(agent="jo"))) == 300
        assert facets_in(tmp_path) == 300


def test_a_changed_record_is_found_by_what_it_says_now(catalogue):
    catalogue.apply([make("a", NOON, agentName="Jo"), make("b", NOON, agentName="Al")])
    assert len(found(catalogue, condition_of(agent="Jo"))) == 1
    catalogue.apply([make("a", NOON, updated="2024-09-18", agentName="Al")])
    assert found(catalogue, condition_of(agent="Jo")) == []
    assert len(found(catalogue, condition_of(agent="Al"))) == 2


@pytest.mark.promise("search-whole-or-said")
@pytest.mark.parametrize("state", ["REVOKED", "DELETED", "PENDING"])
def test_of_a_withdrawn_object_nothing_is_kept(tmp_path, catalogue, state):
    catalogue.apply([make("a", NOON, callerId="+4420CANARY", agentName="Canary-7")])
    assert found(catalogue)
    catalogue.apply([make("a", NOON, updated="2024-09-18", state=state)])
    assert found(catalogue) == []
    assert facets_in(tmp_path) == 0
    catalogue.close()
    assert b"Canary-7" not in (tmp_path / "catalogue.sqlite").read_bytes()


def test_an_object_that_comes_back_is_found_again(catalogue):
    catalogue.apply([make("a", NOON, agentName="Jo")])
    found(catalogue)
    catalogue.apply([make("a", NOON, updated="2024-09-18", state="REVOKED")])
    catalogue.apply([make("a", NOON, updated="2024-09-19", agentName="Jo")])
    assert len(found(catalogue, condition_of(agent="Jo"))) == 1


def test_a_catalogue_opened_for_another_zone_has_the_facets_of_its_days(tmp_path):
    catalogue = opened(tmp_path)
    catalogue.apply([make("a", "2024-09-17T23:30:00", agentName="Jo")])
    assert found(catalogue)[0].startswith("2024/2024-09/2024-09-17/")
    catalogue.close()
    catalogue = opened(tmp_path, timezone="Europe/London")
    asked = condition_of(agent="Jo", since="2024-09-18")
    assert found(catalogue, asked)[0].startswith("2024/2024-09/2024-09-18/")
    catalogue.close()


def test_an_object_changed_between_two_steps_of_a_search_is_not_missed(catalogue):
    """Its facets are outdated then, and have to be made once more before its day is looked at."""
    catalogue.apply([make(uuid(n), NOON, agentName="Jo") for n in range(600)])
    steps = search_known(catalogue, condition_of(agent="Jo"))
    next(steps)
    catalogue.apply([make(uuid(7), NOON, updated="2024-09-18", agentName="Jo")])
    catalogue.apply([make(uuid(999), NOON, agentName="Jo")])
    assert sum(len(some) for some in steps) == 601


@pytest.mark.promise("search-whole-or-said")
def test_a_large_day_is_looked_at_in_parts_and_found_whole_in_order(catalogue, monkeypatch):
    """Also if, at each step, one of its objects changes, and one comes."""
    for module in (facets_module, search_module):
        monkeypatch.setattr(module, "SLICE", 20)
    at_ms = ms(NOON)
    some = [make(uuid(7919 * n % 300), at_ms - n, agentName="Jo") for n in range(300)]
    catalogue.apply([*some, make(uuid(900), "2024-09-16", agentName="Jo")])
    paths, longest = [], 0
    for number, step in enumerate(search_known(catalogue, condition_of(agent="Jo"))):
        paths += [each.path for each in step]
        longest = max(longest, len(step))
        changed = uuid(37 * number % 300)
        catalogue.apply([make(changed, at_ms, updated="2024-09-18", agentName="Jo")])
        catalogue.apply([make(uuid(1000 + number), at_ms, agentName="Jo")])
    assert longest == 20
    assert paths == sorted(paths)
    assert {path[-12:-4] for path in paths} >= {f"{n:08x}" for n in (*range(300), 900)}


@pytest.mark.expected_log("is damaged")
def test_a_day_with_a_damaged_record_is_not_known(tmp_path):
    catalogue = opened(tmp_path)
    catalogue.apply([make("a", NOON, agentName="Jo"), make("b", NOON, agentName="Jo")])
    catalogue.coverage.set_watermark("us-east", ms("2024-09-20"))
    catalogue.coverage.mark_listed("us-east", 0, ms("2024-09-20"))
    ino = catalogue.find("us-east", "a")
    catalogue.close()
    with sqlite3.connect(tmp_path / "catalogue.sqlite") as connection:
        connection.execute("UPDATE record SET text = x'0011' WHERE ino = ?", [ino])
    catalogue = opened(tmp_path)
    catalogue.coverage.set_following("us-east")
    assert known_days(catalogue, "us-east") == [(date(2024, 9, 17), date(2024, 9, 19))]
    assert len(found(catalogue, condition_of(agent="Jo"))) == 1
    assert known_days(catalogue, "us-east") == [(date(2024, 9, 18), date(2024, 9, 19))]
    catalogue.apply([make("a", NOON, agentName="Jo")])
    assert len(found(catalogue, condition_of(agent="Jo"))) == 2
    catalogue.close()


NAMES = st.sampled_from(["Alex Wilber", "alex wilber", "Alexander", "Jo", "", "J*", "Größe"])
RECORDS = st.lists(
    st.fixed_dictionaries(
        {
            "created": st.sampled_from(["2024-09-16", "2024-09-17", "2024-12-31T23:59:59"]),
            "kind": st.sampled_from(["callrecording", "Voicemail"]),
            "agentName": NAMES,
            "queueName": NAMES,
            "callId": st.sampled_from(["1", "2", ""]),
            "address": st.sampled_from(["+12025550148", "2025550148", "1005", "Jo"]),
            "direction": st.sampled_from(["INBOUND", "OUTBOUND", "?"]),
            "duration": st.sampled_from(["1000", "65000", "", "x"]),
        }
    ),
    max_size=12,
)
CONDITIONS = st.fixed_dictionaries(
    {},
    optional={
        "agent": st.sampled_from(["Alex*", "alex-wilber", "*", "jo", "größe"]),
        "queue": st.sampled_from(["Jo", "*er"]),
        "number": st.sampled_from(["2025550148", "1005", "+1 202 555 0148"]),
        "call": st.sampled_from(["1", "3"]),
        "types": st.sampled_from([["voicemail"], ["callrecording", "x"]]),
        "direction": st.sampled_from(["in", "out"]),
        "longer": st.sampled_from(["1s", "30s"]),
        "shorter": st.just("1m"),
        "since": st.sampled_from(["2024-09-17", "2024-10"]),
        "until": st.sampled_from(["2024-09-17", "2024"]),
        "tags": st.sampled_from([["direction=*bound"], ["nothing=1"]]),
    },
)


@pytest.mark.promise("search-whole-or-said")
@settings(deadline=None)
@given(RECORDS, CONDITIONS)
def test_the_database_finds_what_the_condition_accepts(values, asked):
    assume(not (asked.get("since") == "2024-10" and asked.get("until") == "2024-09-17"))
    condition = condition_of(**asked)
    records = [make(uuid(n), **value) for n, value in enumerate(values)]
    with tempfile.TemporaryDirectory() as folder:
        catalogue = opened(Path(folder))
        try:
            catalogue.apply(records)
            paths = found(catalogue, condition)
        finally:
            catalogue.close()
    expected = [
        record
        for record in records
        if condition.accepts(facets_of(record))
        and condition.accepts_tags(record.tags)
        and (condition.since or date.min) <= day(record.created_ms) <= (condition.until or date.max)
    ]
    assert sorted(path[-12:-4] for path in paths) == sorted(record.id[:8] for record in expected)
    assert paths == sorted(paths)


def day(created_ms: int) -> date:
    return date.fromtimestamp(created_ms / 1000)
