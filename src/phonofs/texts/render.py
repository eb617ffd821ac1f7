"""Writes texts and subtitles. Pure.

Each function returns a whole file: UTF-8, lines that end with a newline. ``VERSION`` changes with
the bytes that they return, because the size of a file is kept.
"""

from collections.abc import Iterable, Iterator, Sequence
from textwrap import wrap
from typing import NamedTuple

from phonofs.texts.forms import Utterance
from phonofs.texts.plain import without_markup

VERSION = 1

CUE_S = 7.0
CUE_CHARACTERS = 84
"""How long a subtitle may be shown and how long it may be, if its words can be told apart: two
lines of 42 characters, the usual measure of television."""

_LINE_CHARACTERS = CUE_CHARACTERS // 2


class Cue(NamedTuple):
    """One subtitle, with its times in seconds."""

    start_s: float
    end_s: float
    text: str


def text_file(said: Iterable[Utterance]) -> bytes:
    """Return a conversation, one utterance a line: ``[00:04] Alex Wilber: Hello.``"""
    lines = (_line(utterance) for utterance in said if utterance.text)
    return "".join(f"{line}\n" for line in lines).encode()


def plain_file(text: str) -> bytes:
    """Return a text that ends with a newline, or nothing."""
    return f"{text}\n".encode() if text else b""


def subtitle_file(said: Sequence[Utterance]) -> bytes | None:
    """Return a conversation as SubRip subtitles; None if an utterance has no times."""
    blocks = []
    for utterance in said:
        if utterance.start_s is None or utterance.end_s is None:
            return None
        blocks += list(_cues(utterance, utterance.start_s, utterance.end_s))
    return "".join(_block(number, cue) for number, cue in enumerate(blocks, 1)).encode()


def _line(utterance: Utterance) -> str:
    speaker = f"{utterance.speaker}: " if utterance.speaker else ""
    if utterance.start_s is None:
        return speaker + utterance.text
    minutes, seconds = divmod(int(utterance.start_s), 60)
    hours, minutes = divmod(minutes, 60)
    time = f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes:02}:{seconds:02}"
    return f"[{time}] {speaker}{utterance.text}"


def _cues(utterance: Utterance, start_s: float, end_s: float) -> Iterator[Cue]:
    """Yield the subtitles of an utterance: one, or as many as its words' times allow."""
    text = f"{utterance.speaker}: " if utterance.speaker else ""
    if not utterance.words:
        if utterance.text:
            yield Cue(start_s, end_s, text + utterance.text)
        return
    first_s, last_s, empty = utterance.words[0].start_s, 0.0, True
    for word in utterance.words:
        long = len(text) + len(word.text) > CUE_CHARACTERS or word.end_s - first_s > CUE_S
        if long and not empty:
            yield Cue(first_s, last_s, text)
            text, first_s, empty = "", word.start_s, True
        text = word.text if empty and not text else f"{text.rstrip()} {word.text}"
        last_s, empty = word.end_s, False
    yield Cue(first_s, last_s, text)


def _block(number: int, cue: Cue) -> str:
    start_ms = int(cue.start_s * 1000)
    end_ms = max(int(cue.end_s * 1000), start_ms + 1)  # players skip what is shown for no time
    text = without_markup(cue.text)
    lines = wrap(text, _LINE_CHARACTERS, break_long_words=False, break_on_hyphens=False)
    return f"{number}\n{_clock(start_ms)} --> {_clock(end_ms)}\n" + "\n".join(lines) + "\n\n"


def _clock(time_ms: int) -> str:
    seconds, milliseconds = divmod(time_ms, 1000)
    minutes, seconds = divmod(seconds, 60)
    return f"{minutes // 60:02}:{minutes % 60:02}:{seconds:02},{milliseconds:03}"
