"""What a search asks for: names as file names show them, numbers by their ends, durations."""

import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phonofs.errors import UsageError
from phonofs.search.condition import Condition, matches
from phonofs.search.facets import duration_ms, facets_of
from phonofs.search.narrowing import narrowing
from phonofs.search.options import condition_of
from tests.support.catalogue_world import make

NOON = "2024-09-17T12:00:00"


def accepts(condition: Condition, **tags: str) -> bool:
    record = make("a", NOON, **tags)
    return condition.accepts(facets_of(record)) and condition.accepts_tags(record.tags)


@pytest.mark.parametrize(
    ("pattern", "name", "same"),
    [
        ("Alex Wilber", "Alex Wilber", True),
        ("alex-wilber", " ALEX  Wilber ", True),
        ("Alex", "Alex Wilber", False),
        ("Al*", "Alex Wilber", True),
        ("*wilber", "Alex Wilber", True),
        ("A*W*r", "Alex Wilber", True),
        ("Alex *", "Alexander", False),
        ("Müller", "MU\u0308LLER", True),
        ("Straße", "STRASSE", True),
        ("a.c", "abc", False),
        ("", "Alex", False),
        ("*", "", True),
        ("ab*ba", "aba", False),
        ("a**a", "aa", True),
        ("*ab*abc", "abcabc", True),
        ("*a" * 40 + "*b", "a" * 512, False),
    ],
)
def test_names_are_compared_as_file_names_show_them(pattern, name, same):
    assert matches(pattern, name) is same


@given(st.text(max_size=40))
def test_every_name_matches_itself(name):
    assert matches(name.replace("*", ""), name.replace("*", ""))


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("16695555518", True),
        ("+1 (669) 555-5518", True),
        ("6695555518", True),
        ("555518", True),
        ("55518", False),
        ("116695555518", False),
        ("1005", True),
        ("005", False),
    ],
)
def test_numbers_match_whole_or_by_at_least_six_digits_at_the_end(asked, found):
    tags = {"address": "+16695555518", "callerId": "1005", "calleeId": "Priya Raman"}
    assert accepts(condition_of(number=asked), **tags) is found


@pytest.mark.parametrize(
    ("kind", "tags", "size", "expected_ms"),
    [
        ("callrecording", {"duration": "65000"}, 65 * 2000, 65_000),
        ("callcenterrecording", {"duration": "65"}, 65 * 2000, 65_000),
        ("callrecording", {"duration": "65000"}, 0, 65_000),
        ("transcription", {"duration": "65"}, 0, 65_000),
        ("callrecording", {"duration": "70", "startTime": "1000", "endTime": "66000"}, 1, 70_000),
        ("callrecording", {"startTime": "1000", "endTime": "66000"}, 1, 65_000),
        ("callrecording", {"duration": " 65.5 ", "startTime": "0", "endTime": "65000"}, 1, 65_500),
        ("callrecording", {"duration": "0"}, 1, 0),
        ("callrecording", {"duration": "long"}, 1, None),
        ("callrecording", {}, 1, None),
    ],
)
def test_the_unit_of_a_duration_is_the_plausible_one(kind, tags, size, expected_ms):
    assert duration_ms(make("a", NOON, kind=kind, size=size, **tags)) == expected_ms


def test_what_has_no_duration_is_neither_longer_nor_shorter():
    assert not accepts(condition_of(longer="0s"))
    assert not accepts(condition_of(shorter="1h"))
    assert accepts(condition_of(longer="1m", shorter="1h"), duration="65000")
    assert not accepts(condition_of(longer="65s"), duration="65000")


def test_everything_that_is_asked_for_must_hold():
    tags = {"agentName": "Alex Wilber", "queueName": "Level 3", "callId": "77", "agentId": "a1"}
    asked = {"agent": "Alex*", "queue": "level-3", "call": "77", "tags": ["agentId=A*"]}
    assert accepts(condition_of(**asked), **tags)
    for name, other in {"agent": "Jo", "queue": "4", "call": "7", "tags": ["agentId=b"]}.items():
        assert not accepts(condition_of(**asked | {name: other}), **tags)
    assert accepts(condition_of(direction="in"), direction="Inbound ")
    assert not accepts(condition_of(direction="in"), direction="OUTBOUND")
    assert accepts(condition_of(types=["x", "CallRecording"]))


def test_only_equality_without_syntax_is_asked_of_the_service():
    assert narrowing(condition_of(call="int-1a:2")) == "callId==int-1a:2"
    assert narrowing(condition_of(call="1;objectState==REVOKED")) == ""
    assert narrowing(condition_of(agent="Alex", since="2024", tags=["a=b"])) == ""
    number = narrowing(condition_of(number="+1 202"))
    assert number.startswith("(address==1202,address==+1202,callerId==1202,")


def test_a_month_and_a_year_are_all_their_days():
    condition = condition_of(since="2024-02", until="2024-02")
    assert (str(condition.since), str(condition.until)) == ("2024-02-01", "2024-02-29")
    assert str(condition_of(until="2024").until) == "2024-12-31"
    assert msgspec.convert(msgspec.to_builtins(condition), Condition) == condition


@pytest.mark.parametrize(
    "asked",
    [
        {"since": "yesterday"},
        {"since": "2024-02-30"},
        {"since": "2024-03", "until": "2024-02"},
        {"number": "call me"},
        {"number": "+"},
        {"agent": " "},
        {"agent": "*" * 1001},
        {"longer": "long"},
        {"tags": ["agentId"]},
        {"tags": ["=x"]},
    ],
)
def test_what_is_not_understood_is_an_error(asked):
    with pytest.raises(UsageError):
        condition_of(**asked)


@given(st.text("ab*", max_size=8), st.text("ab", max_size=10))
def test_a_star_is_any_text(pattern, name):
    expression = ".*".join(map(re.escape, pattern.split("*")))
    assert matches(pattern, name) == bool(re.fullmatch(expression, name))


@pytest.mark.parametrize(
    "asked",
    [
        {"longer_ms": 1 << 63},
        {"shorter_ms": -1},
        {"number": "1);callId==*;(x==1"},
        {"agent": "x" * 1001},
        {"tags": {"a": "\u0301" * 1001}},
        {"types": ["a"] * 101},
        {"tags": {str(number): "a" for number in range(101)}},
    ],
)
def test_what_no_command_asks_for_is_not_understood(asked):
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(asked, Condition)
