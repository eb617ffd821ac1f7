"""A search asks for what is not known, and says what it could not look at."""

from collections.abc import Callable

import pytest

from phonofs.catalogue.search import report, search_known
from phonofs.discovery import record_search
from phonofs.discovery.guesses import GUESSES
from phonofs.discovery.record_search import RecordSearch
from phonofs.errors import Unavailable
from phonofs.fakeservice.fiql import matches, parse
from phonofs.model import Record
from phonofs.search.answer import Answer
from phonofs.search.narrowing import narrowing
from phonofs.search.options import condition_of
from tests.support.catalogue_world import FakeService, World, make, ms, uuid, world

NUMBER = "+12025550148"


def account(days: int = 40) -> list[Record]:
    """Three objects a day; every third is of call 7, agent Jo and the number."""
    return [
        make(
            uuid(n),
            ms("2024-08-01") + (n // 3) * 86_400_000 + n % 3 * 3_600_000,
            callId="7" if n % 3 == 0 else f"c{n}",
            agentName="Jo" if n % 3 == 0 else "Al",
            address=NUMBER if n % 3 == 0 else "1005",
        )
        for n in range(3 * days)
    ]


async def search(it: World, *, offline: bool = False, **asked: object) -> tuple[int, Answer]:
    """Search as the mount does; how many were found, and the answer."""
    condition = condition_of(**asked)
    answer, settled = Answer(narrow=narrowing(condition)), set()
    if not offline:
        service = RecordSearch(it.catalogue, it.lister, lambda: ms("2024-09-20"))
        settled = await service.prepare(condition, answer)
    count = sum(len(some) for some in search_known(it.catalogue, condition))
    report(it.catalogue, condition, "it", ms("2024-09-20"), answer, settled)
    return count, answer


@pytest.mark.parametrize("asked", [{"call": "7"}, {"number": "1 202 555 0148"}])
async def test_a_call_or_number_costs_the_pages_of_its_answer(tmp_path, asked):
    """With nothing listed; there are 40 objects, that is one page."""
    async with world(tmp_path, account()) as it:
        count, answer = await search(it, **asked)
        assert (count, it.service.count()) == (40, 1)
        assert answer.asked == ["everything"]
        assert not answer.missing
        assert answer.narrow


async def test_an_answer_of_several_pages_is_whole(tmp_path):
    """Three pages; how many guesses beyond them are made depends on which answer comes first."""
    async with world(tmp_path, account(250)) as it:
        count, answer = await search(it, call="7")
        assert count == 250
        assert it.service.count() <= 3 + GUESSES
        assert not answer.missing


async def test_known_days_cost_no_request(tmp_path):
    async with world(tmp_path, account()) as it:
        await it.ls("2024/2024-08")
        await it.ls("2024/2024-08/2024-08-05")
        it.service.count()
        count, answer = await search(it, agent="Jo", since="2024-08-05", until="2024-08-05")
        assert (count, it.service.count()) == (1, 0)
        assert answer.known == ["2024-08-05"]


async def test_a_name_that_the_service_is_not_asked_for_is_looked_for_in_listed_days(tmp_path):
    """Few objects: their days are listed."""
    async with world(tmp_path, account(), service=FakeService(totals=True)) as it:
        count, answer = await search(it, agent="J*", since="2024-08-05", until="2024-08-14")
        assert count == 10
        assert not answer.missing
        assert answer.known == ["2024-08-05 to 2024-08-14"]


async def test_too_many_unknown_objects_are_said_not_listed(tmp_path, monkeypatch):
    monkeypatch.setattr(record_search, "MOST_LISTED", 20)
    async with world(tmp_path, account(), service=FakeService(totals=True)) as it:
        await it.open("2024/2024-08/2024-08-05")
        it.service.count()
        count, answer = await search(it, agent="J*", since="2024-08")
        assert it.service.count() <= record_search.MOST_COUNTED
        assert count < 40
        [missing] = answer.missing
        assert "it needs the records of" in missing
        assert "run phonofs index" in missing


@pytest.mark.parametrize(("days", "found"), [(9, 0), (10, 10)])
async def test_without_totals_it_is_the_days_that_are_bounded(tmp_path, monkeypatch, days, found):
    monkeypatch.setattr(record_search, "MOST_DAYS", days)
    async with world(tmp_path, account(), service=FakeService(totals=False)) as it:
        count, answer = await search(it, agent="J*", since="2024-08-05", until="2024-08-14")
        assert count == found
        assert bool(answer.missing) == (not found)


async def test_offline_asks_nothing_and_says_what_is_missing(tmp_path):
    async with world(tmp_path, account()) as it:
        count, answer = await search(it, call="7", offline=True)
        assert (count, it.service.count()) == (0, 0)
        assert answer.missing


async def test_a_service_that_is_away_is_said(tmp_path):
    async with world(tmp_path, account()) as it:
        it.service.error = Unavailable("it is away")
        _, answer = await search(it, call="7")
        [missing] = answer.missing
        assert missing == "everything could not be looked at: it is away"
        assert not answer.asked


async def test_each_region_is_asked(tmp_path):
    records = account()
    other = [make(uuid(1000 + n), "2024-08-02", region="uk", callId="7") for n in range(5)]
    async with world(tmp_path, records + other, regions=["uk", "us-east"]) as it:
        count, answer = await search(it, call="7")
        assert count == 45
        assert sorted(answer.asked) == ["uk: everything", "us-east: everything"]


def ignores_quotes_and_brackets(record: Record, text: str) -> bool:
    return True


def reads_or_as_everything(record: Record, text: str) -> bool:
    return "," in text or matches(parse(text), record.tags)


def takes_a_missing_tag_for_equal(record: Record, text: str) -> bool:
    return "callId" not in record.tags or matches(parse(text), record.tags)


def is_blind_to_case(record: Record, text: str) -> bool:
    return matches(parse(text.lower()), {k.lower(): v.lower() for k, v in record.tags.items()})


@pytest.mark.promise("search-whole-or-said")
@pytest.mark.parametrize(
    "dialect",
    [
        ignores_quotes_and_brackets,
        reads_or_as_everything,
        takes_a_missing_tag_for_equal,
        is_blind_to_case,
    ],
)
async def test_the_answer_does_not_depend_on_how_the_service_reads_a_filter(
    tmp_path, dialect: Callable[[Record, str], bool]
):
    """Whatever it returns too much is decided on here."""
    records = [
        *account(),
        make(uuid(5000), "2024-08-03"),
        make(uuid(5001), "2024-08-03", callId="A"),
    ]
    async with world(tmp_path, records, service=FakeService(narrowed=dialect)) as it:
        assert (await search(it, call="7"))[0] == 40
        assert (await search(it, call="a"))[0] == 0
        assert (await search(it, number=NUMBER))[0] == 40
