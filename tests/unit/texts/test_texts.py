"""Texts of transcripts: every word, in order, nothing else, and nothing that drives a terminal."""

import json
import re
import shutil
import subprocess
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phonofs.texts import forms, render
from phonofs.texts.forms import Utterance, Word
from phonofs.views.calls import Attached, Call, call_object
from phonofs.views.names import files
from tests.support.catalogue_world import make

VOCI = {
    "utterances": [
        {
            "start": 0.2,
            "end": 2.0,
            "channel": 0,
            "events": [
                {"word": "Hello", "start": 0.2, "end": 0.5},
                {"word": "Mr. Ö", "start": 0.6, "end": 2.0},
            ],
        },
        {"start": 2.1, "end": 4, "speaker": "external", "text": "Hi,\nthere."},
    ]
}
ANALYTICS = [
    {"text": "Good day.", "channel": 1, "timestampStart": 0, "timestampEnd": 1500},
    {"text": "Yes?", "channel": 0, "timestampStart": 1600, "timestampEnd": 61_000},
]
WHISPER = {
    "text": " One two. Three.",
    "segments": [
        {"id": 0, "start": 0.0, "end": 1.0, "text": " One two."},
        {"id": 1, "start": 3661.0, "end": 3662.5, "text": " Three."},
    ],
}


def said(document: object, duration_s: float | None = None) -> list[Utterance] | None:
    return forms.utterances(json.dumps(document).encode(), duration_s)


def text_of(document: object, duration_s: float | None = None) -> str:
    found = said(document, duration_s)
    assert found is not None
    return render.text_file(found).decode()


def test_the_form_of_the_speech_engine():
    assert text_of(VOCI) == "[00:00] channel 0: Hello Mr. Ö\n[00:02] external: Hi, there.\n"


def test_the_form_of_whisper():
    assert text_of(WHISPER) == "[00:00] One two.\n[1:01:01] Three.\n"


@pytest.mark.parametrize(
    ("duration_s", "second"), [(61, "[00:01]"), (70_000, "[26:40]"), (None, ""), (5, "")]
)
def test_the_form_without_a_documented_unit(duration_s: float | None, second: str):
    last = text_of(ANALYTICS, duration_s).splitlines()[1]
    assert last == f"{second} channel 0: Yes?".strip()


def test_a_fraction_means_seconds():
    found = said([{"text": "Yes", "timestampStart": 0.5, "timestampEnd": 1.0, "channel": 0}])
    assert found == [Utterance("Yes", "channel 0", 0.5, 1.0)]


UNKNOWN = [
    None,
    [],
    {},
    "text",
    {"transcript": "Hello."},
    {"utterances": "Hello."},
    {"utterances": [{"start": 1, "end": 2}]},
    {"utterances": [{"text": None, "events": []}]},
    {"utterances": [{"events": [{"w": "Hello"}]}]},
    {"segments": [{"text": "Hello"}, "more"]},
    [{"text": "Hello"}],
    [{"from": "visitor", "text": "Hello"}],
]


@pytest.mark.parametrize("document", UNKNOWN)
def test_an_unknown_form_has_no_text(document: object):
    assert said(document) is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe{}",
        b"[" * 100_000,
        b'{"segments": [' + b" " * forms.LARGEST + b"]}",
        b'{"x": [' + b"[]," * forms.MOST_VALUES + b'1], "segments": []}',
    ],
)
def test_what_is_no_json_or_too_large_has_no_text(content: bytes):
    assert forms.utterances(content) is None
    assert forms.summary(content) is None


def test_nothing_said_is_an_empty_text():
    assert text_of({"segments": []}) == ""
    assert render.subtitle_file(said({"utterances": []}) or []) == b""


def test_lone_surrogates_and_odd_numbers_cost_no_words():
    content = b'{"segments": [{"text": "a\\ud800b c", "start": NaN, "end": 1e999}, {"text": "d"}]}'
    found = forms.utterances(content)
    assert found is not None
    assert render.text_file(found) == b"ab c\nd\n"
    assert render.subtitle_file(found) is None


@pytest.mark.parametrize(("start", "end"), [(-1, 2), (3, 2), (1, 360_000), ("1", "2"), (True, 2)])
def test_subtitles_only_with_times_that_can_be_true(start: object, end: object):
    found = said({"segments": [{"text": "a", "start": start, "end": end}]})
    assert found is not None
    assert render.subtitle_file(found) is None


def test_two_sides_are_one_conversation():
    owner = [Utterance("Hello.", "owner", 0.0, 1.0), Utterance("Bye.", "owner", 5.0, 6.0)]
    external = [Utterance("Hi.", "external", 2.0, 3.0)]
    both = forms.spoken_by(forms.merged([owner, external]), {"owner": "Alex\x1b[1m Wilber"})
    assert render.text_file(both).decode().splitlines() == [
        "[00:00] Alex[1m Wilber: Hello.",
        "[00:02] external: Hi.",
        "[00:05] Alex[1m Wilber: Bye.",
    ]


def test_sides_without_times_stay_whole():
    sides = [[Utterance("a", "", 3.0, 4.0), Utterance("b")], [Utterance("c", "", 1.0, 2.0)]]
    assert [each.text for each in forms.merged(sides)] == ["a", "b", "c"]


def test_a_summary():
    assert forms.summary(b'{"summary": "Paid.\\r\\nCalls\\tback."}') == "Paid.\nCalls back."
    assert forms.summary(b'{"id": 1, "result": "Paid.", "status": "DONE"}') == "Paid."
    assert forms.summary(b'{"text": "Paid."}') is None
    assert forms.summary(b'{"summary": 5}') is None


def test_notes():
    assert forms.notes("\ufeffLate fee.\r\nÖ\n".encode()) == "Late fee.\nÖ"
    assert forms.notes(b"caf\xe9") == "café"
    assert forms.notes(b"a\0b") is None
    assert render.plain_file("") == b""
    assert render.plain_file("a\n\nb") == b"a\n\nb\n"


HOSTILE = "a\x1b]0;title\x07b \u202ecod.exe\u202c \x9b31m \u2066x\u2069 \U000e0041hidden \ufeffend"


def test_words_cannot_drive_a_terminal():
    text = text_of({"segments": [{"text": HOSTILE, "speaker": HOSTILE, "start": 1, "end": 2}]})
    assert text == "[00:01] {0}: {0}\n".format("a]0;titleb cod.exe 31m x hidden end")


@given(st.binary())
def test_notes_are_always_harmless(content: bytes):
    text = forms.notes(content)
    assert text is None or not any(unicodedata.category(c) == "Cc" for c in text.replace("\n", ""))


def test_words_are_no_markup():
    spoken = "<b>bold</b> {\\an8}top 00:00:01,000 --> 00:00:02,000"
    subtitles = render.subtitle_file([Utterance(spoken, "", 0.0, 1.0)]) or b""
    assert subtitles.count(b"-->") == 1
    assert not re.search(rb"[<{}\\]", subtitles)


def test_a_long_utterance_is_cut_at_its_words():
    words = tuple(Word(f"word{n}", n * 1.0, n + 0.5) for n in range(30))
    text = " ".join(word.text for word in words)
    cues = cues_of([Utterance(text, "Alex", 0.0, 29.5, words)])
    assert all(end - start <= render.CUE_S for start, end, _ in cues)
    assert all(len(line) <= render.CUE_CHARACTERS for _, _, line in cues)
    assert " ".join(line for _, _, line in cues) == f"Alex: {text}"


def test_an_utterance_without_times_of_words_is_one_subtitle():
    cues = cues_of([Utterance("word " * 60, "", 1.0, 60.0)])
    assert [(start, end) for start, end, _ in cues] == [(1.0, 60.0)]


def test_times_of_words_that_do_not_fit_are_not_used():
    events = [{"word": "a", "start": 5, "end": 6}, {"word": "b", "start": 2, "end": 3}]
    wrong = {"start": 0, "end": 9, "events": events}
    other = {"start": 0, "end": 9, "events": events[:1], "text": "a b"}
    for utterance in said({"utterances": [wrong, other]}) or []:
        assert utterance.words == ()
        assert utterance.text == "a b"


# all words, in their order, nothing else

SPOKEN = st.text(st.characters(exclude_categories=("Cc", "Cs", "Cf", "Cn", "Co")), max_size=120)
TIMES = st.floats(0, 1000)


@st.composite
def documents(draw: st.DrawFn) -> dict[str, object]:
    items = []
    start = 0.0
    for text in draw(st.lists(SPOKEN, max_size=6)):
        start += draw(TIMES)
        words = text.split()
        item: dict[str, object] = {"start": start, "end": start + 2 * len(words) + 1, "text": text}
        if draw(st.booleans()):
            item["events"] = [
                {"word": word, "start": start + 2 * n, "end": start + 2 * n + 1}
                for n, word in enumerate(words)
            ]
            if words and draw(st.booleans()):
                del item["text"]
        items.append(item)
    return {draw(st.sampled_from(["utterances", "segments"])): items}


def spoken_words(document: dict[str, object]) -> list[str]:
    [items] = document.values()
    found: list[str] = []
    for item in items:
        text = item.get("text") or " ".join(each["word"] for each in item.get("events", ()))
        found += unicodedata.normalize("NFC", " ".join(text.split())).split()
    return found


def test_marks_without_end_take_no_time_without_end():
    marks = "e" + "\u0301\u0327" * 200_000 + " end"
    assert len(text_of({"segments": [{"text": marks, "start": 0, "end": 1}]})) < 100
    marks = marks[:15_000]
    hostile = make("a", "2024-09-17T12:00:00", kind=marks, speaker=marks)
    main = call_object(1, "x.mp3", make("b", "2024-09-17T12:00:00"))
    found = call_object(2, "y.json", hostile)
    assert files(Call("2024-09-17", main, (Attached(found, main),)), dated=True)


@pytest.mark.promise("text-is-the-service-s")
@given(documents())
def test_a_text_has_all_words_in_their_order_and_nothing_else(document: dict[str, object]):
    found = said(document)
    if "segments" in document and any("text" not in each for each in document["segments"]):
        assert found is None  # whisper always writes the text
        return
    assert found is not None
    lines = render.text_file(found).decode().splitlines()
    assert all(re.match(r"\[[0-9:]+\] ", line) for line in lines)
    assert [word for line in lines for word in line.split()[1:]] == spoken_words(document)


@pytest.mark.promise("text-is-the-service-s")
@given(documents())
def test_subtitles_have_all_words_in_their_order_and_nothing_else(document: dict[str, object]):
    found = said(document)
    if found is None:
        return
    shown = [word for _, _, text in cues_of(found) for word in text.split()]
    marks = str.maketrans("<>{}\\", "＜＞｛｝＼")
    assert shown == [word.translate(marks) for word in spoken_words(document)]


def cues_of(utterances: list[Utterance]) -> list[tuple[float, float, str]]:
    """Parse subtitles in the simplest way: blocks of number, times and lines."""
    content = (render.subtitle_file(utterances) or b"").decode()
    cues = []
    for number, block in enumerate(filter(None, content.split("\n\n")), 1):
        head, times, *lines = block.split("\n")
        assert int(head) == number
        start, end = (seconds(time) for time in times.split(" --> "))
        cues.append((start, end, " ".join(lines)))
    return cues


def seconds(clock: str) -> float:
    hours, minutes, rest = clock.replace(",", ".").split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(rest)


@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="ffmpeg is not installed")
def test_a_player_reads_the_subtitles(tmp_path):
    hostile = "<font size=99>loud</font> {\\an8}up 2\\Nlines 00:00:09,000 --> 00:00:10,000 AT&T"
    lines = ["Hello, how can I help you?", HOSTILE, hostile, "42", "שלום", "🎧 ok", "word " * 40]
    spoken = [{"text": text, "start": n, "end": n + 1} for n, text in enumerate(lines)]
    found = said({"segments": spoken})
    assert found is not None
    file = tmp_path / "call.srt"
    file.write_bytes(render.subtitle_file(found) or b"")
    command = ["ffmpeg", "-v", "error", "-i", str(file), "-f", "webvtt", "-"]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert ran.stderr == ""
    _, *blocks = ran.stdout.strip().split("\n\n")
    assert len(blocks) == len(lines)
    for number, (block, line) in enumerate(zip(blocks, cues_of(found), strict=True)):
        times, *shown = block.split("\n")
        assert times.startswith(f"00:{number:02}.000 --> 00:{number + 1:02}.000")
        assert " ".join(shown).split() == line[2].split()
