"""Calls, names and directories of the views: pure functions, and what an attacker tries."""

import unicodedata
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phonofs.model import Record
from phonofs.tree.layout import FIRST_OBJECT_INO as BASE
from phonofs.tree.layout import Directory
from phonofs.views import calls, names, places
from phonofs.views.calls import Call, CallObject
from phonofs.views.groups import Groups
from phonofs.views.names import TextKind

DAY = "2026-11-17"
RECORDING = "093012_callrecording_outbound_Alex-Wilber_+16695555518_9984564e.mp3"
STEM = RECORDING.removesuffix(".mp3")
CALL_TAGS = {
    "callId": "1666686434952",
    "userName": "Alex  Wilber",
    "direction": "OUTBOUND",
    "calleeName": "Ruth Calloway",
    "calleeId": "+16695555518",
    "duration": "61000",
}


def made(ino: int, name: str, type: str, state: str = "AVAILABLE", **tags: str) -> CallObject:
    record = Record(
        id=f"id{ino}", region="us", type=type, mime_type="", object_name="", size=1,
        created_ms=1_000_000 + ino, updated_ms=0, state=state, checksum="", tags=tags, source=b"",
    )  # fmt: skip
    return calls.call_object(ino, name, record)


def a_call(**changes: Any) -> list[CallObject]:
    call = CALL_TAGS["callId"]
    transcript = {**CALL_TAGS, "sourceId": "id1", "result": "ok", "duration": "61"}
    return [
        made(1, RECORDING, "callrecording", **CALL_TAGS),
        made(2, "a.json", "transcription", **transcript, speaker="external"),
        made(3, "b.json", "transcription", **transcript, speaker="owner"),
        made(4, "c.json", "summary", callId=call, sourceObjectId="id3"),
        made(5, "d.txt", "agentnotes", callId=call),
        made(6, "e.json", "postcallsurvey", callId=call),
        made(7, "f.mp4", "screenrecording", callId=call),
        made(8, "g.wav", "voicecommentrecording", callId=call, pcsQuestionNumber="1"),
        made(9, "h.json", "transcription", callId=call, sourceId="id8", pcsQuestionNumber="1"),
        made(10, "i.json", "sentimentScore", callId=call),
    ]


def names_of(call: Call, *, dated: bool = False) -> dict[str, int]:
    return {file.name.removeprefix(STEM): file.ino for file in names.files(call, dated=dated)}


def test_a_call_is_one_stem():
    [call] = calls.joined(DAY, a_call())
    conversation, subtitles = TextKind.CONVERSATION << 56, TextKind.SUBTITLES << 56
    assert names_of(call) == {
        ".mp3": 1,
        ".txt": conversation | 1,
        ".srt": subtitles | 1,
        ".transcript.owner.json": 3,
        ".transcript.external.json": 2,
        ".summary.json": 4,
        ".summary.txt": TextKind.SUMMARY << 56 | 4,
        ".agentnotes.txt": 5,
        ".notes.txt": TextKind.NOTES << 56 | 5,
        ".survey.json": 6,
        ".screen.mp4": 7,
        ".screen.srt": subtitles | 1,
        ".comment-1.wav": 8,
        ".comment-1.transcript.json": 9,
        ".comment-1.txt": conversation | 8,
        ".comment-1.srt": subtitles | 8,
        ".sentiment.json": 10,
    }
    texts = dict(names.texts(call))
    assert [each.ino for each in texts[".txt"].sources] == [3, 2]
    assert [each.ino for each in texts[".comment-1.txt"].sources] == [9]


def test_a_length_in_seconds_is_told_from_one_in_milliseconds():
    times = {"startTime": "1763371812000", "endTime": "1763371977000"}
    for duration in ("165000", "165"):
        tags = {**CALL_TAGS, **times, "duration": duration}
        assert made(1, RECORDING, "callcenterrecording", **tags).duration_ms == 165_000


def test_texts_only():
    [call] = calls.joined(DAY, a_call())
    assert [file.name.removeprefix(STEM) for file in names.text_files(call)] == [
        ".txt",
        ".comment-1.txt",
        ".summary.txt",
        ".notes.txt",
    ]


def test_the_date_stands_before_a_name_of_a_month():
    [call] = calls.joined(DAY, a_call())
    found = names.files(call, dated=True)
    assert all(file.name.startswith(f"{DAY}_{STEM}.") for file in found)


@pytest.mark.parametrize(("state", "result"), [("ARCHIVED", "ok"), ("AVAILABLE", "failed")])
def test_no_text_of_what_cannot_be_read(state: str, result: str):
    objects = [
        made(1, RECORDING, "callrecording", callId="c"),
        made(2, "a.json", "transcription", state, callId="c", result=result),
    ]
    [call] = calls.joined(DAY, objects)
    assert names_of(call) == {".mp3": 1, ".transcript.json": 2}


def test_what_came_after_midnight_belongs_to_its_call():
    today, after = a_call()[:1], a_call()[1:3]
    [call] = calls.joined(DAY, today, after)
    assert [each.what.ino for each in call.attached] == [2, 3]
    tomorrow = calls.joined("2026-11-18", after)
    assert [each.main.ino for each in tomorrow] == [2, 3]
    assert [each.main.ino for each in calls.without_repeated([call, *tomorrow])] == [1]


def test_a_transcript_alone_has_its_own_stem():
    [call] = calls.joined(DAY, [made(2, "x.json", "transcription", callId="c")])
    found = {file.name: file.ino for file in names.files(call, dated=False)}
    assert found == {"x.json": 2, "x.txt": 1 << 56 | 2, "x.srt": 2 << 56 | 2}


def test_the_newest_transcript_of_a_side_is_its_text():
    objects = a_call()[:3]
    objects.append(made(11, "z.json", "transcription", callId=objects[0].call, speaker="owner"))
    [call] = calls.joined(DAY, objects)
    text = dict(names.texts(call))[".txt"]
    assert [each.ino for each in text.sources] == [11, 2]
    assert {".transcript.owner.json", ".transcript.owner-2.json"} <= set(names_of(call))


def test_several_recordings_of_a_call():
    objects = [
        made(1, "a.mp3", "callrecording", callId="c"),
        made(2, "b.mp3", "callrecording", callId="c"),
        made(3, "x.json", "transcription", callId="c", sourceId="id2"),
        made(4, "y.json", "summary", callId="c", sourceObjectId="id3"),
        made(5, "z.txt", "agentnotes", callId="c"),
    ]
    found = {call.main.ino: [each.what.ino for each in call.attached]
             for call in calls.joined(DAY, objects)}  # fmt: skip
    assert found == {1: [5], 2: [3, 4]}


def test_objects_that_name_each_other_as_source():
    objects = [
        made(1, "a.mp3", "callrecording", callId="c"),
        made(2, "x.json", "summary", callId="c", sourceId="id3"),
        made(3, "y.json", "summary", callId="c", sourceId="id2"),
    ]
    [call] = calls.joined(DAY, objects)
    assert {".summary.json", ".summary-2.json", ".summary.txt", ".summary-2.txt"} <= {
        file.name.removeprefix("a") for file in names.files(call, dated=False)
    }


def test_names_of_agents_differ_by_more_than_case():
    objects = [
        made(BASE + n, f"{n}.mp3", "callrecording", agentName=agent)
        for n, agent in enumerate(["jo smith", "Jo Smith", "", "Ann", "  "])
    ]
    first, second = Directory(0, 2026, 11, 16), Directory(0, 2026, 11, 17)
    grouped = Groups()
    grouped.add(first, calls.joined(DAY, objects[:1]), calls.agent_of)
    grouped.add(second, calls.joined(DAY, objects[1:]), calls.agent_of)
    assert grouped.names() == ["Ann", "Jo-Smith"]
    assert "jo-smith" not in grouped
    found = {name: list(grouped.days(name)) for name in (*grouped.names(), "jo-smith", "Al")}
    assert found == {
        "Ann": [(second, {BASE + 3})],
        "Jo-Smith": [(first, {BASE}), (second, {BASE + 1})],
        "jo-smith": [],
        "Al": [],
    }


def test_equal_names_are_told_apart():
    first = Call(DAY, made(1, "x.json", "transcription"))
    second = Call(DAY, made(2, "x.txt", "agentnotes"))
    every = [file for call in (first, second) for file in names.files(call, dated=False)]
    found = names.unique(every)
    assert [file.name for file in found] == ["x.json", "x.notes.txt", "x.srt", "x.txt", "x_2.txt"]
    assert len({file.name for file in found}) == len(found)


WORDS = st.text(max_size=300) | st.text(
    st.sampled_from('aA-_. /\\\0\n\x1b\u202e\u200b\udcffé\u0301\U0001f600:*?"<>|+'), max_size=300
)


@given(st.lists(WORDS, min_size=7, max_size=7), st.integers(1, 250))
def test_no_name_can_drive_a_terminal(words: list[str], length: int):
    speaker, question, agent, queue, type, source, party = words
    tags = {
        "callId": "c", "speaker": speaker, "pcsQuestionNumber": question, "agentName": agent,
        "queueName": queue, "sourceId": source, "callerName": party,
    }  # fmt: skip
    stem = "é" * (length // 2) + "a"
    objects = [
        made(1, f"{stem}.mp3", "callrecording", **tags),
        made(2, f"{stem}.json", "transcription", **tags),
        made(3, f"{stem}.wav", "voicecommentrecording", **tags),
        made(1 << 50, "other.json", type, **tags),
    ]
    found = [file for call in calls.joined(DAY, objects) for file in names.files(call, dated=True)]
    shown = [file.name for file in names.unique(found)]
    shown += [each for each in (objects[0].agent, objects[0].queue) if each]
    for name in shown:
        assert len(name.encode()) <= 255
        assert name not in (".", "..")
        assert not name.startswith(("-", "."))
        assert not set(name) & set('/\\<>:"|?*')
        assert not any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") for c in name)


# directories


def test_the_directories_of_the_views():
    views = places.views_of(0)
    assert [place.name for place in places.top_places(views)] == [
        "by-agent", "by-day", "by-queue", "latest", "text", "today", "yesterday",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "lists", "span"),
    [
        ("by-day/2026-11-17", "CALLS", "2026-11-17"),
        ("by-agent/2026", "NAMES", "2026"),
        ("by-agent/2026-11", "NAMES", "2026-11"),
        ("by-queue/2026-11-17/Support", "CALLS", "2026-11-17"),
        ("text/2026/2026-11/2026-11-17", "TEXTS", "2026-11-17"),
        ("text/2026", "DATES", "2026"),
        ("latest", "NEWEST", ""),
        ("by-day/2026-11", None, None),
        ("by-day/2026-11-31", None, None),
        ("by-agent/2026-1", None, None),
        ("text/2026-11", None, None),
        ("by-name", None, None),
        ("latest/a", None, None),
        ("by-day/2026-11-17/a", None, None),
    ],
)
def test_a_path_of_the_views(path: str, lists: str | None, span: str | None):
    place: places.Place | None = places.views_of(2)
    for name in path.split("/"):
        assert place is not None
        place = places.child(place, name)
    if lists is None:
        assert place is None
    else:
        assert place is not None
        assert (place.lists.name, place.span.name, place.region) == (lists, span, 2)


def test_inode_numbers_of_places_are_apart_from_all_others():
    seen = set()
    for region in range(3):
        for path in ("by-day", "by-agent", "text"):
            place = places.child(places.views_of(region), path)
            assert place is not None
            seen.add(place.ino)
            assert places.VIEW_BIT <= place.ino < places.VIEW_BIT << 1
            assert names.text_of_ino(place.ino) is None
    assert len(seen) == 9
    assert max(Directory(254, 9998, 12, 31).ino, 1 << 31) < places.VIEW_BIT
    assert min(TextKind) << names.KIND_SHIFT >= places.VIEW_BIT << 1


PATHS = st.sampled_from(
    ["", "by-day", "by-agent", "by-queue", "latest", "text", "today", "yesterday", "by-day/DAY",
     "by-agent/YEAR", "by-agent/MONTH", "by-queue/DAY", "text/YEAR", "text/YEAR/MONTH",
     "text/YEAR/MONTH/DAY", "by-agent/MONTH/NAME", "by-queue/YEAR/NAME", "by-agent/DAY/NAME"]
)  # fmt: skip


@given(st.integers(0, 254), st.dates(Directory(0, 1970).first_day), PATHS, st.text(min_size=1))
def test_an_inode_number_says_which_place_it_is(region: int, day: date, path: str, name: str):
    parts = {"YEAR": f"{day:%Y}".zfill(4), "MONTH": str(day)[:7], "DAY": str(day), "NAME": name}
    place: places.Place | None = places.views_of(region)
    for part in filter(None, path.split("/")):
        assert place is not None
        place = places.child(place, parts.get(part, part))
    if day.year == 9999:
        return
    assert place is not None
    named = path.endswith("NAME")
    expected = places.above(place) if named else place, places.name_number(name) if named else 0
    assert places.decoded(place.ino) == expected


@given(st.integers(0, (1 << 60) - 1) | st.integers(1 << 55, (1 << 56) - 1))
def test_no_other_number_is_that_of_a_place(ino: int):
    found = places.decoded(ino)
    if found is not None:
        place, number = found
        assert place.ino + number == ino
        assert not number or place.lists is places.Lists.NAMES


def test_inode_numbers_of_texts():
    assert names.text_of_ino(3 << 56 | 1 << 31) == (TextKind.SUMMARY, 1 << 31)
    assert names.text_of_ino(1 << 31) is None
    assert names.text_of_ino(9 << 56 | 1 << 31) is None


def test_today_and_yesterday():
    today, yesterday = places.top_places(places.views_of(0))[-2:]
    assert places.link_target(today, date(2027, 1, 1)) == "../2027/2027-01/2027-01-01"
    assert places.link_target(yesterday, date(2027, 1, 1)) == "../2026/2026-12/2026-12-31"


def test_equal_names_stay_apart_however_long_they_are():
    long = "Ж" * 123 + ".json"
    taken = [names.ViewFile(long, 1), names.ViewFile(long, 1 << 58)]
    second = names.unique(taken)[1].name
    found = names.unique([*taken, names.ViewFile(second, 7), names.ViewFile("x", 8)])
    shown = {file.name: file.ino for file in found}
    assert sorted(shown.values()) == [1, 7, 8, 1 << 58]
    assert max(len(name.encode()) for name in shown) <= 255
    first = names.ViewFile(second, 7)  # whose name is what another one would get
    assert len(names.unique([first, *taken])) == 3
