"""Makes untrusted words safe to print. Pure.

Somebody on the telephone chooses what a transcript says, so its words must not control a terminal,
hide other words or change the direction in which they are read. Words stay words: only characters
that show nothing by themselves are removed.
"""

import unicodedata

_DIRECTIONS = frozenset([0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)])
"""The marks that change the direction of text (Unicode Annex 9)."""

_HIDDEN = frozenset(
    [0xFEFF, *range(0x206A, 0x2070), *range(0xFFF9, 0xFFFC), *range(0xE0000, 0xE0080)]
)
"""Characters with which text can be hidden in text: annotations, deprecated controls, tags. The
joiners U+200C and U+200D stay, since Persian words and emoji need them."""

MOST_MARKS = 30
"""Combining marks in a row that are kept, as in the Stream-Safe Text Format (Unicode Annex 15). To
put more of them into order takes the square of their number: hours for a few megabytes."""

_MARKUP = str.maketrans("<>{}\\", "＜＞｛｝＼")
"""What players take for markup in subtitles, and what is shown in its place."""


def _is_visible(character: str) -> bool:
    code = ord(character)
    nothing = code & 0xFFFE == 0xFFFE or 0xFDD0 <= code <= 0xFDEF
    unprintable = unicodedata.category(character) in ("Cc", "Cs")
    return not (unprintable or nothing or code in _DIRECTIONS or code in _HIDDEN)


def one_line(text: str) -> str:
    """Return the words of ``text`` in NFC on one line, with one space between two of them."""
    if not (text.isascii() and text.isprintable()):
        words = (_with_few_marks("".join(filter(_is_visible, word))) for word in text.split())
        text = unicodedata.normalize("NFC", " ".join(words))
    return " ".join(text.split())


def _with_few_marks(word: str) -> str:
    if word.isascii() or len(word) <= MOST_MARKS:
        return word
    kept: list[str] = []
    marks = 0
    for character in word:
        marks = marks + 1 if unicodedata.category(character)[0] == "M" else 0
        if marks <= MOST_MARKS:
            kept.append(character)
    return "".join(kept)


def many_lines(text: str) -> str:
    """Return ``text`` with each of its lines made safe; empty lines at its ends are dropped."""
    return "\n".join(map(one_line, text.splitlines())).strip("\n")


def without_markup(text: str) -> str:
    """Return text that has nothing in it that a player would take for markup or for a time."""
    return text.translate(_MARKUP)
