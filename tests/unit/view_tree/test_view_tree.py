"""The order in which files of a view are read, the calls of a day, the sizes of texts."""

from dataclasses import dataclass

import pytest
import trio

from phonofs.catalogue.text_sizes import NO_TEXT
from phonofs.errors import NoSuchName, StaleInode
from phonofs.tree.layout import Directory, directory_of
from phonofs.view_tree import groups as groups_module
from phonofs.view_tree import place_numbers
from phonofs.view_tree import views as module
from phonofs.view_tree.call_index import CallIndex
from phonofs.view_tree.listings import ViewEntry
from phonofs.view_tree.recent_listings import FRESH_S, RecentListings
from phonofs.view_tree.text_files import TextFiles
from phonofs.view_tree.views import Views
from phonofs.views import places
from phonofs.views.calls import Call, agent_of, without_repeated
from phonofs.views.groups import Groups
from tests.support.catalogue_world import World, make, uuid, world

DAY = "2024/2024-09/2024-09-03"
NEXT_DAY = "2024/2024-09/2024-09-04"


def a_call(number: int, at: str, **tags: str) -> list:
    tags = {"callId": f"c{number}", "userName": "Ann" if number % 2 else "Bob", **tags}
    return [
        make(uuid(10 * number), f"{at}:00Z", **tags),
        make(uuid(10 * number + 1), f"{at}:30Z", kind="transcription", **tags),
    ]


def inos(calls: list) -> list[list[int]]:
    return [[each.ino for each in call.objects()] for call in calls]


@dataclass(frozen=True)
class ViewSettings:
    views: str = ".views"
    texts: bool = True
    read_deadline: float = 60.0


async def views_over(here: World) -> tuple[Views, CallIndex, ViewEntry]:
    """Return the views of an account of one region, their index, and their directory."""
    index, recent = CallIndex(here.catalogue), RecentListings(here.catalogue)
    texts = TextFiles(here.catalogue, None)
    views = Views(here.catalogue, here.lister, index, texts, recent, ViewSettings())
    await here.open("2024")
    top = views.above(1)
    assert top is not None
    return views, index, top


async def test_calls_are_joined_over_midnight_and_follow_changes(tmp_path):
    late = make(uuid(3), "2024-09-04T00:10:00Z", kind="transcription", callId="c1")
    records = [*a_call(1, "2024-09-03T23:59"), make(uuid(4), "2024-09-04T01:00:00Z")]
    async with world(tmp_path, records) as here:
        index = CallIndex(here.catalogue)
        day = await here.open(DAY)
        of = directory_of(day)
        assert of is not None
        [call] = await index.calls(of)
        assert len(list(call.objects())) == 2
        following = await here.open(NEXT_DAY)
        index.changed(here.catalogue.apply([late]))
        [call] = await index.calls(of)
        assert len(list(call.objects())) == 3
        assert index.changes == 1
        other = directory_of(following)
        assert other is not None
        assert len(await index.calls(other)) == 2


async def test_a_text_is_found_by_its_number(tmp_path):
    async with world(tmp_path, a_call(1, "2024-09-03T10:00")) as here:
        index = CallIndex(here.catalogue)
        recording, transcript = sorted(e.ino for e in here.catalogue.children(await here.open(DAY)))
        text = await index.text(1 << 56 | recording)
        assert [source.ino for source in text.sources] == [transcript]
        for wrong in (1 << 56 | transcript, 3 << 56 | recording, 1 << 56 | 1 << 40, recording):
            with pytest.raises(NoSuchName):
                await index.text(wrong)


async def test_who_reads_a_view_stays_in_it(tmp_path):
    records = [
        record for number in range(6) for record in a_call(number, f"2024-09-03T1{number}:00")
    ]
    async with world(tmp_path, records) as here:
        recent = RecentListings(here.catalogue)
        day = await here.open(DAY)
        entries = here.catalogue.children(day)
        anns = [e.ino for e in entries if "_Ann_" in e.name]
        others = [e.ino for e in entries if "_Bob_" in e.name]

        def after(ino: int, **how: int) -> list[int]:
            return [other for other, _ in recent.siblings(ino, 3, **how)]

        in_day = [e.ino for e in entries]
        place = in_day.index(anns[0])
        assert after(anns[0], pid=7) == in_day[place + 1 : place + 4]
        recent.listed_view(7, anns)
        recent.listed_day(8, day)
        assert after(anns[0], pid=7) == anns[1:4]
        assert after(anns[0], pid=7, by_inode=True) == sorted(i for i in anns if i > anns[0])[:3]
        assert after(anns[0], pid=9) == anns[1:4]
        assert after(anns[0], pid=8) == in_day[place + 1 : place + 4]
        assert after(others[-2], pid=7) == in_day[in_day.index(others[-2]) + 1 :][:3]
        await trio.sleep(FRESH_S + 1)
        assert after(anns[0], pid=9) == in_day[place + 1 : place + 4]
        assert after(1 << 50) == []


async def test_sizes_are_kept_until_a_source_changes(tmp_path):
    async with world(tmp_path, a_call(1, "2024-09-03T10:00")) as here:
        sizes = here.catalogue.text_sizes
        sizes.put(1 << 56 | 5, 77, 100, [5, 6])
        sizes.put(3 << 56 | 7, 78, NO_TEXT, [7])
        assert sizes.known([1 << 56 | 5, 3 << 56 | 7, 1]) == {
            1 << 56 | 5: (77, 100),
            3 << 56 | 7: (78, NO_TEXT),
        }
        assert sizes.made_of([8]) == set()
        assert sizes.made_of([6, 8]) == {1 << 56 | 5}
        sizes.forget([1 << 56 | 5], [6, 8])
        assert sizes.known([1 << 56 | 5, 3 << 56 | 7]) == {3 << 56 | 7: (78, NO_TEXT)}


async def test_a_view_asks_for_the_days_that_are_not_known(tmp_path):
    records = [
        record for number in range(8) for record in a_call(number, f"2024-09-0{number + 1}T10:00")
    ]
    async with world(tmp_path, records) as here:
        views, _, top = await views_over(here)
        assert top.is_directory
        by_agent = await views.lookup(top.ino, "by-agent", 0)
        [month] = await views.entries(by_agent.ino, 0)
        assert month.name == "2024-09"
        agents = await views.entries(month.ino, 0)
        assert [agent.name for agent in agents] == ["Ann", "Bob"]
        files = await views.entries(agents[0].ino, 0)
        assert len([file for file in files if file.ino < 1 << 55]) == 8
        assert all(file.sure == (file.ino < 1 << 55) for file in files)
        asked = len(here.service.asked)
        assert await views.entries(agents[0].ino, 0) == files
        assert (await views.lookup(agents[0].ino, files[0].name, 0)) == files[0]
        assert len(here.service.asked) == asked
        with pytest.raises(NoSuchName):
            await views.lookup(month.ino, "Cy", 0)
        assert views.parent(agents[0].ino) == month.ino
        assert views.parent(top.ino) == 1


@dataclass
class Grouping:
    """Counts how often the calls of a span are grouped by agent."""

    count: int = 0

    def groups(self) -> Groups:
        self.count += 1
        return Groups()


async def test_what_is_known_of_a_span_is_joined_once_until_that_span_changes(
    tmp_path, monkeypatch
):
    grouping = Grouping()
    monkeypatch.setattr(groups_module, "Groups", grouping.groups)
    records = [*a_call(1, "2024-08-30T10:00"), *a_call(2, "2024-09-20T10:00")]
    async with world(tmp_path, records) as here:
        views, index, top = await views_over(here)
        by_agent = await views.lookup(top.ino, "by-agent", 0)
        august = await views.lookup(by_agent.ino, "2024-08", 0)

        async def agents() -> list[str]:
            return [each.name for each in await views.entries(august.ino, 0)]

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(agents)
        assert await agents() == ["Ann"]
        assert grouping.count == 1
        index.changed(here.catalogue.apply(a_call(4, "2024-09-20T11:00")))
        assert await agents() == ["Ann"]
        assert grouping.count == 1
        index.changed(here.catalogue.apply(a_call(6, "2024-08-30T11:00")))
        assert await agents() == ["Ann", "Bob"]
        assert grouping.count == 2
        after = make(uuid(8), "2024-09-01T00:01:00Z", kind="transcription", callId="c1")
        index.changed(here.catalogue.apply([after]))
        assert await agents() == ["Ann", "Bob"]
        assert grouping.count == 3


async def test_what_is_kept_has_a_bound_and_may_be_dropped_while_somebody_waits(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(module, "FILES_KEPT", 1)
    monkeypatch.setattr(groups_module, "NUMBERS_KEPT", 1)
    records = [
        record for number in range(4) for record in a_call(number, f"2024-09-0{number + 1}T10:00")
    ]
    async with world(tmp_path, records) as here:
        views, _, top = await views_over(here)
        by_agent = await views.lookup(top.ino, "by-agent", 0)
        month = await views.lookup(by_agent.ino, "2024-09", 0)
        ann, bob = await views.entries(month.ino, 0)
        list_days = views._spans.list_days

        async def slowly(span: Directory) -> list[Directory]:
            await trio.sleep(1)
            return await list_days(span)

        of_ann = await views.entries(ann.ino, 0)
        monkeypatch.setattr(views._spans, "list_days", slowly)
        found: list[object] = []

        async def ask(of: int) -> None:
            found.append(await views.entries(of, 0))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, ann.ino)
            await trio.sleep(0.5)
            monkeypatch.setattr(views._spans, "list_days", list_days)
            nursery.start_soon(ask, bob.ino)
        assert of_ann in found
        assert len(views._listings) == 1
        for day in range(1, 5):
            of_day = await views.lookup(by_agent.ino, f"2024-09-0{day}", 0)
            assert len(await views.entries(of_day.ino, 0)) == 1
        assert len(views._groups._kept) == 1


async def calls_of(here: World, index: CallIndex, agent: str) -> list[Call]:
    """Return the calls of an agent in September, from all calls of each day."""
    found = []
    for number in range(1, 31):
        of = Directory(0, 2024, 9, number)
        await here.lister.list(of.ino)
        found += [call for call in await index.calls(of) if agent_of(call) == agent]
    return without_repeated(found)


@pytest.mark.parametrize("in_memory", [True, False])
async def test_the_calls_of_an_agent_are_the_same_if_days_are_not_in_memory(
    tmp_path, monkeypatch, in_memory
):
    """Of a call that two agents recorded, each has the recording that is theirs."""
    shared = {"callId": "c99"}
    records = [
        *(
            record
            for number in range(9)
            for record in a_call(number, f"2024-09-0{number + 1}T23:58")
        ),
        make(uuid(990), "2024-09-03T09:00:00Z", userName="Ann", **shared),
        make(uuid(991), "2024-09-03T09:05:00Z", userName="Bob", **shared),
        make(uuid(992), "2024-09-03T09:06:00Z", kind="summary", **shared),
        make(uuid(993), "2024-09-04T00:01:00Z", kind="transcription", sourceId=uuid(991), **shared),
        make(uuid(994), "2024-09-04T00:02:00Z", kind="transcription", callId="c2"),
        make(uuid(995), "2024-09-05T00:02:00Z", userName="Ann", kind="voicemail"),
    ]
    if not in_memory:
        monkeypatch.setattr("phonofs.view_tree.call_index.OBJECTS_KEPT", 1)
    async with world(tmp_path, records) as here:
        views, index, _ = await views_over(here)
        month = places.child(child_of(places.views_of(0), "by-agent"), "2024-09")
        assert month is not None
        for agent in ("Ann", "Bob"):
            found = await views._groups.calls(month, agent)
            assert found == await calls_of(here, CallIndex(here.catalogue), agent)
            assert {each.ino for call in found for each in call.objects()}
        assert bool(index._days) is in_memory


def child_of(place: places.Place, name: str) -> places.Place:
    found = places.child(place, name)
    assert found is not None
    return found


async def walk(views: Views, top: int) -> dict[str, int]:
    """Return the directories and links of the views by their paths, with their inode numbers."""
    found, waiting = {"": top}, [("", top)]
    while waiting:
        path, ino = waiting.pop()
        for entry in await views.entries(ino, 0):
            if entry.ino >= 1 << 55 and (entry.is_directory or entry.target):
                found[f"{path}/{entry.name}"] = entry.ino
                if entry.is_directory:
                    waiting.append((f"{path}/{entry.name}", entry.ino))
    return found


async def test_directories_are_found_again_by_their_numbers(tmp_path):
    """After a remount, and if more of them were used than are kept."""
    records = [
        record for number in range(8) for record in a_call(number, f"2024-09-0{number + 1}T10:00")
    ]
    async with world(tmp_path, records) as here:
        views, _, top = await views_over(here)
        found = await walk(views, top.ino)
        by_day = child_of(child_of(places.views_of(0), "by-agent"), "2024-09-03")
        found["/by-agent/2024-09-03"] = by_day.ino
        found["/by-agent/2024-09-03/Bob"] = child_of(by_day, "Bob").ino
        assert len(found) == len(set(found.values())) > 30
        for path, ino in found.items():
            again, _, _ = await views_over(here)  # nothing in memory but the catalogue
            entry = await again.entry_again(ino)
            assert (entry.ino, entry.name) == (ino, path.rpartition("/")[2] or ".views")
            if path:
                parent = await again.entry_again(again.parent(ino))
                assert parent.ino == found[path.rpartition("/")[0]]
            if entry.is_directory:
                assert await again.entries(ino, 0) == await views.entries(ino, 0)
            with pytest.raises(StaleInode):
                await again.entry_again(ino + (1 << 21) * 512 * 7)  # seven years later
        agent = found["/by-agent/2024-09/Ann"]
        for wrong in (agent + 1, agent | 1 << 54, 1 << 55 | 1, 7 << 52 | 1 << 55, agent | 1 << 60):
            with pytest.raises(StaleInode):
                await views.entry_again(wrong)


async def test_a_number_that_two_names_can_have_means_none_of_them(tmp_path, monkeypatch):
    monkeypatch.setattr(places, "name_number", lambda name: (1 << 21) - 1)
    records = [*a_call(1, "2024-09-01T10:00"), *a_call(2, "2024-09-01T11:00")]
    async with world(tmp_path, records) as here:
        views, _, top = await views_over(here)
        found = await walk(views, top.ino)
        ann, bob = found["/by-agent/2024-09/Ann"], found["/by-agent/2024-09/Bob"]
        assert ann != bob
        assert places.decoded(ann)[0] == places.decoded(bob)[0]
        assert {(await views.entry_again(ino)).name for ino in (ann, bob)} == {"Ann", "Bob"}
        again, _, _ = await views_over(here)
        for ino in (ann, bob):
            with pytest.raises(StaleInode):
                await again.entry_again(ino)


async def test_not_more_places_are_kept_than_the_bound(tmp_path, monkeypatch):
    monkeypatch.setattr(place_numbers, "PLACES_KEPT", 5)
    records = [
        record for number in range(8) for record in a_call(number, f"2024-09-0{number + 1}T10:00")
    ]
    async with world(tmp_path, records) as here:
        views, _, top = await views_over(here)
        found = await walk(views, top.ino)
        assert await walk(views, top.ino) == found
        assert len(views._numbers._places) == 5
