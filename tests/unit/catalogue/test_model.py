"""The catalogue against a reference tree that is rebuilt naively from the object list.

Names come from a tiny alphabet, so that they collide; ids share their first eight characters.
"""

import shutil
import tempfile
from collections import defaultdict
from datetime import date
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from phonofs.catalogue.catalogue import Catalogue, TreeOptions
from phonofs.model import Record
from phonofs.tree.layout import Calendar
from phonofs.tree.naming import file_name
from tests.support.catalogue_world import HOUR_MS, Settings, check, files, make, ms

START = ms("2024-03-30T20:00:00")  # the clocks of Europe change on the 31st
IDS = [f"{'same' * 2}-{n}" for n in range(5)] + ["otherone-1", "otherone-2"]
RECORDS = st.builds(
    lambda id, hours, later, state, kind, name, region, size: make(
        id,
        START + hours * HOUR_MS // 2,
        updated=START + (hours + later) * HOUR_MS // 2,
        state=state,
        kind=kind,
        region=region,
        size=size,
        agentName=name,
        startTime=str(START),
    ),
    st.sampled_from(IDS),
    st.integers(0, 60),
    st.integers(0, 100),
    st.sampled_from(["AVAILABLE"] * 5 + ["ARCHIVED", "REVOKED", "PENDING"]),
    st.sampled_from(["voicemail", "meeting"]),
    st.sampled_from(["", "A", "a"]),
    st.sampled_from(["us-east", "uk"]),
    st.integers(0, 3),
)
WITHDRAWN = ("REVOKED", "DELETED")


class Reference:
    """The objects as last told, and the tree they make."""

    def __init__(self) -> None:
        self.records: dict[tuple[str, str], Record] = {}
        self.missing: set[tuple[str, str]] = set()

    def apply(self, record: Record) -> None:
        key = (record.region, record.id)
        old = self.records.get(key)
        if old is not None:
            stays = old.state in WITHDRAWN and record.updated_ms == old.updated_ms
            if record.updated_ms < old.updated_ms or stays:
                return
        self.records[key] = record
        self.missing.discard(key)

    def tree(self, shown: Settings, regions: list[str]) -> dict[str, tuple[str, str]]:
        """Path to (region, id) of all that is shown."""
        zone = ZoneInfo(shown.timezone)
        calendar = Calendar(zone)
        groups: dict[tuple[str, str], list[Record]] = defaultdict(list)
        for key, record in self.records.items():
            if key not in self.missing and record.region in regions and self.shows(shown, record):
                day = calendar.day_of(record.created_ms)
                above = f"{record.region}/" if len(regions) > 1 else ""
                folder = f"{above}{day:%Y}/{day:%Y-%m}/{day:%Y-%m-%d}"
                groups[folder, file_name(record, shown.name_template, zone)].append(record)
        paths = {}
        for (folder, name), records in groups.items():
            records.sort(key=lambda one: (one.created_ms, one.id))
            for rank, record in enumerate(records):
                longer = file_name(record, shown.name_template, zone, 1)
                paths[f"{folder}/{longer if rank else name}"] = (record.region, record.id)
        return paths

    def shows(self, shown: Settings, record: Record) -> bool:
        since = shown.since and Calendar(ZoneInfo(shown.timezone)).start_ms(shown.since)
        return (
            record.state in (["AVAILABLE", "ARCHIVED"] if shown.archived else ["AVAILABLE"])
            and (not shown.types or record.type in shown.types)
            and (not since or record.created_ms >= since)
        )


VIEWS = st.builds(
    Settings,
    timezone=st.sampled_from(["UTC", "Europe/Berlin", "Asia/Kolkata", "America/New_York"]),
    name_template=st.sampled_from(["{time}_{name}_{id8}", "{id8}"]),
    types=st.sampled_from([(), ("voicemail",)]),
    since=st.sampled_from([None, date(2024, 3, 31)]),
    archived=st.booleans(),
)


class CatalogueMachine(RuleBasedStateMachine):
    """Random tellings, listings and remounts; the tree is that of the reference after each."""

    @initialize(view=VIEWS)
    def begin(self, view: Settings) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.reference = Reference()
        self.view = view
        self.numbers: dict[tuple[str, str], int] = {}
        self.catalogue = self.opened()
        self.catalogue.set_regions(["us-east"])

    def opened(self) -> Catalogue:
        path = self.folder / "catalogue.sqlite"
        return Catalogue.open(path, TreeOptions.of(self.view), now_ms=lambda: ms("2024-09-20"))

    @rule(records=st.lists(RECORDS, min_size=1, max_size=8))
    def apply(self, records: list[Record]) -> None:
        before = self.paths()
        changes = self.catalogue.apply(records)
        for record in records:
            self.reference.apply(record)
        self.changes_explain(before, self.paths(), changes)

    def paths(self) -> dict[str, int]:
        return {path: self.at(path) for path in files(self.catalogue)}

    def at(self, path: str) -> int:
        ino = 1
        for name in path.split("/"):
            entry = self.catalogue.lookup(ino, name)
            assert entry is not None
            ino = entry.ino
        return ino

    def changes_explain(self, before, after, changes) -> None:
        """Every name that came, went or moved is among those to be forgotten."""
        told = {
            (self.catalogue.path(parent), name)
            for change in changes.objects
            for parent, name in change.entries
            if self.catalogue.path(parent) is not None
        }
        for path in {path for path in before | after if before.get(path) != after.get(path)}:
            assert tuple(path.rsplit("/", 1)) in told

    @rule(start=st.integers(0, 60), hours=st.integers(1, 60), seen=st.sets(st.sampled_from(IDS)))
    def reconcile(self, start: int, hours: int, seen: set[str]) -> None:
        span = (START + start * HOUR_MS // 2, START + (start + hours) * HOUR_MS // 2)
        before = self.catalogue.known_objects("us-east", *span)
        self.catalogue.reconcile(before, seen, span[1])
        for key, record in self.reference.records.items():
            shown = self.reference.shows(self.view, record)
            if (
                record.region == "us-east"
                and span[0] <= record.created_ms < span[1]
                and record.id not in seen
                and shown
            ):
                self.reference.missing.add(key)

    @rule(view=VIEWS)
    def remount(self, view: Settings) -> None:
        self.catalogue.close()
        self.view = view
        self.catalogue = self.opened()

    @rule(regions=st.sampled_from([["us-east"], ["us-east", "uk"], ["uk"]]))
    def regions(self, regions: list[str]) -> None:
        self.catalogue.set_regions(regions)

    @invariant()
    def the_tree_is_the_reference(self) -> None:
        if not hasattr(self, "catalogue"):
            return
        expected = self.reference.tree(self.view, self.catalogue.regions())
        assert sorted(files(self.catalogue)) == sorted(expected)
        for path, key in expected.items():
            ino = self.at(path)
            assert self.numbers.setdefault(key, ino) == ino
            assert self.catalogue.record(ino) == self.reference.records[key]
        assert len(set(self.numbers.values())) == len(self.numbers)
        check(self.catalogue)

    def teardown(self) -> None:
        if hasattr(self, "catalogue"):
            self.catalogue.close()
            shutil.rmtree(self.folder)


CatalogueMachine.TestCase.settings = settings(
    max_examples=25,
    stateful_step_count=15,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestCatalogueModel = pytest.mark.promise("inodes-permanent")(CatalogueMachine.TestCase)
