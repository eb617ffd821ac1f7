"""Reads the JSON of transcripts and summaries. Pure.

The service documents no form for them, so each known form is a row of ``FORMS``: what Voci's
engine gives (the tag ``provider`` of the service's transcripts names it), what 8x8's API for speech
analytics gives, and what whisper writes. A content of another form has no text; nothing is guessed.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any, NamedTuple

import msgspec

from phonofs.texts.plain import many_lines, one_line

LARGEST = 16 << 20
"""Bytes of the largest content that is read: a day of speech in JSON is smaller."""

MOST_VALUES = 1_500_000
"""Values of the largest content that is read: with ``[],[]`` 16 MiB would take 350 MB of memory."""

_LAST_S = 100 * 3600.0
"""The last time within a call, in seconds, that a subtitle can state: two digits of hours."""


class Word(NamedTuple):
    """A spoken word, and when it was said, in seconds from the start."""

    text: str
    start_s: float
    end_s: float


class Utterance(NamedTuple):
    """What one speaker said in one go.

    text     the words, safe to print, on one line
    speaker  who said it, safe to print; '' if nothing tells
    start_s, end_s  when, in seconds from the start of the call; None if nothing tells
    words    the words of ``text``, in order, with their times; empty if they have none
    """

    text: str
    speaker: str = ""
    start_s: float | None = None
    end_s: float | None = None
    words: tuple[Word, ...] = ()


@dataclass(frozen=True, slots=True)
class Form:
    """How a transcript is written: a list of objects, each an utterance.

    within    the key of the list; '' if the list is the whole content
    start, end  the keys of its times
    speakers  the keys that may name the speaker; of a number, the key is part of the name
    words     the key of its words, each with ``word``, ``start`` and ``end``; '' for none
    unit      whether the times are in seconds; else their unit is not documented
    """

    within: str
    start: str
    end: str
    speakers: tuple[str, ...]
    words: str = ""
    seconds: bool = True


FORMS = (
    Form("utterances", "start", "end", ("speaker", "channel"), words="events"),
    Form("", "timestampStart", "timestampEnd", ("channel",), seconds=False),
    Form("segments", "start", "end", ("speaker",), words="words"),
)
"""The known forms: Voci's, that of 8x8's API for speech analytics, whisper's."""

_SUMMARIES = ("summary", "result")
"""The keys that may hold the text of a summary."""


def utterances(content: bytes, duration_s: float | None = None) -> list[Utterance] | None:
    """Return what a transcript says, in its order; None if its form is not known.

    ``duration_s`` is the length of the call, with which a unit of time can be told from another.
    """
    document = _decoded(content)
    for form in FORMS:
        items = document if not form.within else _get(document, form.within)
        if isinstance(items, list) and (form.within or items):
            found = _utterances(items, form, duration_s)
            if found is not None:
                return found
    return None


def summary(content: bytes) -> str | None:
    """Return the text of a summary, safe to print; None if its form is not known."""
    document = _decoded(content)
    for key in _SUMMARIES:
        text = _get(document, key)
        if isinstance(text, str):
            return many_lines(text)
    return None


def notes(content: bytes) -> str | None:
    """Return the text of an agent's notes, safe to print; None if they are not a text."""
    if len(content) > LARGEST:
        return None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("cp1252", "replace")
    return None if "\0" in text else many_lines(text)


def merged(sides: Iterable[list[Utterance]]) -> list[Utterance]:
    """Return the utterances of several transcripts of one call as one conversation.

    They are in the order of time. If an utterance has no time, the sides stay one after another.
    """
    said = [utterance for side in sides for utterance in side]
    times = [utterance.start_s for utterance in said if utterance.start_s is not None]
    if len(times) < len(said):
        return said
    order = sorted(range(len(said)), key=times.__getitem__)
    return [said[index] for index in order]


def spoken_by(said: Iterable[Utterance], names: Mapping[str, str]) -> list[Utterance]:
    """Return the utterances with the names of their speakers, where ``names`` has them."""
    return [each._replace(speaker=one_line(names.get(each.speaker, each.speaker))) for each in said]


def _decoded(content: bytes) -> Any:
    """Return the JSON value; None if it is not JSON, or too large, or nested too deep.

    Commas and brackets within texts count as values too.
    """
    values = content.count(b",") + content.count(b"[") + content.count(b"{")
    if len(content) > LARGEST or values > MOST_VALUES:
        return None
    try:
        return msgspec.json.decode(content)
    except (msgspec.DecodeError, RecursionError):
        pass
    try:
        return json.loads(content)  # accepts lone surrogates, which are not shown
    except (ValueError, RecursionError):
        return None


def _get(document: Any, key: str) -> Any:
    return document.get(key) if isinstance(document, dict) else None


def _utterances(items: list[Any], form: Form, duration_s: float | None) -> list[Utterance] | None:
    found: list[Utterance] = []
    for item in items:
        if not isinstance(item, dict) or (not form.within and form.start not in item):
            return None
        utterance = _utterance(item, form)
        if utterance is None:
            return None
        found.append(utterance)
    if not form.seconds:
        scale = _scale(found, duration_s)
        found = [_scaled(utterance, scale) for utterance in found]
    return [_timed(utterance) for utterance in found]


def _utterance(item: Mapping[str, Any], form: Form) -> Utterance | None:
    words = _words(item.get(form.words)) if form.words else []
    text = item.get("text")
    if text is None and words:
        text = " ".join(word for word, _, _ in words)
    if not isinstance(text, str):
        return None
    text = one_line(text)
    timed = [
        Word(one_line(word), start, end)
        for word, start, end in words or ()
        if start is not None and end is not None
    ]
    same = " ".join(word.text for word in timed).split() == text.split()
    speaker = next((found for key in form.speakers if (found := _speaker(key, item.get(key)))), "")
    start, end = _number(item.get(form.start)), _number(item.get(form.end))
    return Utterance(text, speaker, start, end, tuple(timed) if same else ())


def _words(items: Any) -> list[tuple[str, float | None, float | None]] | None:
    """Return words with their times; None if that is not what ``items`` are."""
    if not isinstance(items, list):
        return None
    found = []
    for item in items:
        word = _get(item, "word")
        if not isinstance(word, str):
            return None
        found.append((word, _number(item.get("start")), _number(item.get("end"))))
    return found


def _speaker(key: str, value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{key} {value}"
    return one_line(value) if isinstance(value, str) else ""


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if isfinite(number) else None


def _scale(found: Iterable[Utterance], duration_s: float | None) -> float | None:
    """Return how many seconds a unit of undocumented times is; None if that cannot be told.

    A fraction means seconds. Whole numbers are seconds if the last one is within the call, and
    milliseconds if that is within the call only when divided by 1000.
    """
    times = [time for each in found for time in (each.start_s, each.end_s) if time is not None]
    if any(not time.is_integer() for time in times):
        return 1.0
    if not times or not duration_s:
        return None
    last, most = max(times), 1.5 * duration_s + 5
    if last <= most:
        return 1.0
    return 0.001 if last / 1000 <= most else None


def _scaled(utterance: Utterance, scale: float | None) -> Utterance:
    start, end = utterance.start_s, utterance.end_s
    if scale is None or start is None or end is None:
        return utterance._replace(start_s=None, end_s=None)
    return utterance._replace(start_s=start * scale, end_s=end * scale)


def _timed(utterance: Utterance) -> Utterance:
    """Return an utterance without the times that cannot be true."""
    start, end = utterance.start_s, utterance.end_s
    if start is None or not 0 <= start < _LAST_S:
        return utterance._replace(start_s=None, end_s=None, words=())
    if end is None or not start <= end < _LAST_S:
        return utterance._replace(end_s=None, words=())
    within = [start, *(time for word in utterance.words for time in word[1:]), end]
    return utterance if within == sorted(within) else utterance._replace(words=())
