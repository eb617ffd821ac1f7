"""Names the files of a call in a view. Pure.

All of them begin with the name that the recording has in the date tree, without its extension, so
that a player finds the subtitles beside the audio. Names in the date tree are safe (``tree``), and
what is added here comes from tables or is cleaned in the same way.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from enum import IntEnum
from typing import NamedTuple

from phonofs.tree.naming import MAX_BYTES
from phonofs.tree.sanitize import clean, cut
from phonofs.views.calls import COMMENT, NOTES, SUMMARY, TRANSCRIPT, Call, CallObject, hash_of

KIND_SHIFT = 56
"""The inode number of a text is that of an object, with its kind from this bit on."""

STEM_BYTES = 160
"""The longest common beginning of names, without the date; what is added has at most 84 bytes."""

_LABELS = {
    TRANSCRIPT: "transcript",
    "screenrecording": "screen",
    COMMENT: "comment",
    "postcallsurvey": "survey",
    "sentimentScore": "sentiment",
}
"""What is added to the name of a call's recording, by type; else the type itself."""

_LABEL_BYTES = 32
"""How much of an unknown type is added to a name."""


class TextKind(IntEnum):
    """The kinds of texts that are made of objects; a number stands in inode numbers for ever."""

    CONVERSATION = 1
    SUBTITLES = 2
    SUMMARY = 3
    NOTES = 4
    CSV = 5
    JSON_LINES = 6
    CHECKSUMS = 7


class Text(NamedTuple):
    """A text, and what it is made of.

    of       the recording or other object whose text it is
    sources  the objects with its words, in order
    """

    kind: TextKind
    of: CallObject
    sources: tuple[CallObject, ...]

    @property
    def ino(self) -> int:
        """Its inode number, which is permanent because that of the object is."""
        return self.kind << KIND_SHIFT | self.of.ino

    @property
    def version(self) -> int:
        """A hash of all that its bytes depend on, but for how it is written."""
        speakers = [(each.speaker, each.owner, each.party) for each in self.sources]
        contents = [each.content for each in self.sources]
        return hash_of(self.kind, self.of.duration_ms, speakers, contents)

    @property
    def made_of(self) -> tuple[int, ...]:
        """The inode numbers of the objects without which it would not be the same."""
        return (self.of.ino, *(each.ino for each in self.sources))

    @property
    def modified(self) -> int:
        """When the newest of its sources changed last (epoch ms)."""
        return max(each.modified for each in self.sources)


class Manifest(NamedTuple):
    """A list of the objects of a day.

    day      the inode number of the day
    version  a hash of all records, with their names
    """

    kind: TextKind
    day: int
    version: int
    calls: Sequence[Call]

    @property
    def ino(self) -> int:
        """Its inode number."""
        return self.kind << KIND_SHIFT | self.day

    @property
    def made_of(self) -> tuple[int, ...]:
        """No contents: records only."""
        return ()

    @property
    def modified(self) -> int:
        """When the newest of the records changed last (epoch ms)."""
        return max((each.modified for call in self.calls for each in call.objects()), default=0)


MANIFESTS = {
    "MD5SUMS": TextKind.CHECKSUMS,
    "calls.csv": TextKind.CSV,
    "calls.jsonl": TextKind.JSON_LINES,
}
"""The lists of a day, by name."""


class ViewFile(NamedTuple):
    """A file of a view: a name of an object, or of what is made (then ``text`` is not None)."""

    name: str
    ino: int
    text: Text | Manifest | None = None


def manifests(day: int, version: int, calls: Sequence[Call]) -> list[ViewFile]:
    """Return the lists of the objects of a day, with their names.

    A list of checksums without any would be an error for md5sum, so there is none then.
    """
    summed = any(each.summed for call in calls for each in call.objects())
    found = (
        (name, Manifest(kind, day, version, calls))
        for name, kind in MANIFESTS.items()
        if summed or kind is not TextKind.CHECKSUMS
    )
    return [ViewFile(name, manifest.ino, manifest) for name, manifest in found]


def names_of_objects(calls: Iterable[Call]) -> list[tuple[str, CallObject]]:
    """Return the objects of a day's calls with the names that the view of the day gives them."""
    calls = list(calls)
    objects = {each.ino: each for call in calls for each in call.objects()}
    every = unique(file for call in calls for file in files(call, dated=False))
    return [(file.name, objects[file.ino]) for file in every if file.text is None]


def text_of_ino(ino: int) -> tuple[TextKind, int] | None:
    """Return kind and object of a text's inode number; None if it is none of a text."""
    try:
        return TextKind(ino >> KIND_SHIFT), ino & ((1 << KIND_SHIFT) - 1)
    except ValueError:
        return None


def texts(call: Call) -> Iterator[tuple[str, Text]]:
    """Yield the texts of a call with what they add to its name."""
    labels = dict(_labelled(call))
    for of in (call.main, *(each.what for each in call.attached if each.what.type == COMMENT)):
        label = labels.get(of.ino, "")
        sources = _sides(call, of)
        if sources:
            yield f"{label}.txt", Text(TextKind.CONVERSATION, of, sources)
            yield f"{label}.srt", Text(TextKind.SUBTITLES, of, sources)
    for type, kind, ending in (
        (SUMMARY, TextKind.SUMMARY, ".summary"),
        (NOTES, TextKind.NOTES, ".notes"),
    ):
        found = [each for each in call.objects() if each.type == type and each.readable]
        for number, each in enumerate(sorted(found, key=lambda each: each.order), 1):
            yield f"{_numbered(ending, number)}.txt", Text(kind, each, (each,))


def _sides(call: Call, of: CallObject) -> tuple[CallObject, ...]:
    """Return the transcripts of a recording: the newest of each side, the owner's first."""
    found = [each.what for each in call.attached if each.of.ino == of.ino]
    found += [of]  # a transcript that belongs to no recording
    newest = {
        each.speaker: each
        for each in sorted(found, key=lambda each: each.order)
        if each.type == TRANSCRIPT and each.readable
    }
    return tuple(newest[speaker] for speaker in sorted(newest, reverse=True))


def files(call: Call, *, dated: bool) -> list[ViewFile]:
    """Return the files of a call: its objects under one stem, and their texts.

    ``dated`` puts the date before the name, for a directory of more than one day.
    """
    return list(_files(call, dated=dated))


def _files(call: Call, *, dated: bool) -> Iterator[ViewFile]:
    shown = shown_stem(call, dated=dated)
    yield ViewFile(shown + _split(call.main.name)[1], call.main.ino)
    labels = dict(_labelled(call))
    screens = []
    for each in call.attached:
        label = labels[each.what.ino]
        yield ViewFile(shown + label + _split(each.what.name)[1], each.what.ino)
        if each.what.type == "screenrecording":
            screens.append(label)
    for ending, text in texts(call):
        yield ViewFile(shown + ending, text.ino, text)
        if text.kind is TextKind.SUBTITLES and text.of is call.main:
            for label in screens:
                yield ViewFile(f"{shown}{label}.srt", text.ino, text)


def text_files(call: Call) -> list[ViewFile]:
    """Return the texts of a call that are for reading, without subtitles."""
    shown = shown_stem(call, dated=False)
    return [
        ViewFile(shown + ending, text.ino, text)
        for ending, text in texts(call)
        if text.kind is not TextKind.SUBTITLES
    ]


def shown_stem(call: Call, *, dated: bool) -> str:
    """Return how all names of a call begin: the name in the date tree, perhaps with the date."""
    stem = _split(call.main.name)[0]
    if len(stem.encode()) > STEM_BYTES:
        mark = hashlib.sha256(call.main.name.encode()).hexdigest()[:16]
        stem = f"{cut(stem, STEM_BYTES - 17)}_{mark}"
    return f"{call.day}_{stem}" if dated else stem


def unique(found: Iterable[ViewFile]) -> list[ViewFile]:
    """Return files sorted by name; of equal names, all but the first get their inode number."""
    taken: dict[str, ViewFile] = {}
    for file in found:
        name = file.name
        stem, ending = _split(name)
        number = file.ino
        while name in taken:
            mark = f"_{number:x}{ending}"
            name = cut(stem, MAX_BYTES - len(mark.encode())) + mark
            number += 1
        taken[name] = file._replace(name=name)
    return [taken[name] for name in sorted(taken)]


def _split(name: str) -> tuple[str, str]:
    """Split a name of the date tree, which always has an extension, before its last dot."""
    stem, _, extension = name.rpartition(".")
    return stem, f".{extension}"


def _labelled(call: Call) -> Iterator[tuple[int, str]]:
    """Yield what each attached object adds to the name, by inode number: ``.transcript.owner``."""
    seen = Counter[str]()
    for each in call.attached:
        what = each.what
        label = (
            _LABELS.get(what.type) or cut(clean(what.type[:STEM_BYTES]), _LABEL_BYTES) or "object"
        )
        if what.type == COMMENT and what.question:
            label += f"-{what.question}"
        if each.of.type == COMMENT and each.of.question:
            label = f"comment-{each.of.question}.{label}"
        if what.speaker:
            label += f".{what.speaker}"
        seen[label] += 1
        yield what.ino, _numbered(f".{label}", seen[label])


def _numbered(label: str, number: int) -> str:
    return label if number == 1 else f"{label}-{number}"
