"""What is served: the same objects to both, as an account and as a tree of files. Pure but for
``write``, which puts the bytes on disk.

Names are made so that both mounts list a folder in the same order, with names of the same length.
"""

import hashlib
import json
import os
import random
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from itertools import accumulate
from pathlib import Path
from typing import overload

KIB = 1024
MIB = 1024 * KIB
DAY_MS = 86_400_000
FIRST_DAY_MS = int(datetime(2024, 1, 1, tzinfo=UTC).timestamp() * 1000)
MARK = b"needle in a haystack"
"""What grep looks for; stands once in each small file."""

DAYS = {
    "big": 0, "film": 1, "small": 2, "many": 3, "eight": 4, "door": 5, "limited": 6,
    "span1": 7, "span4": 8, "span8": 9, "span32": 10, "span128": 11, "crowd": 12,
}  # fmt: skip
"""Which day of January 2024 holds what. ``door`` is one small file: reading it warms the way;
``spanN`` one of N MiB (``big`` is the one of 512)."""

SPANS = (1, 4, 8, 32, 128)
"""Sizes in MiB of the files that are read whole, besides ``big``."""


@dataclass(frozen=True, slots=True)
class Thing:
    """One object. ``sparse``: its bytes are zeros; ``virtual``: it is only ever listed."""

    id: str
    name: str
    size: int
    created_ms: int
    md5: str = ""
    sparse: bool = False
    virtual: bool = False

    @property
    def day(self) -> str:
        """The folder, in both mounts: ``2024/2024-01/2024-01-03``."""
        return day_folder(self.created_ms)

    @property
    def path(self) -> str:
        """The path below rclone's mount and below the origin's root."""
        return f"{self.day}/{self.name}"


def day_folder(created_ms: int) -> str:
    """The folder of a time's UTC day."""
    return datetime.fromtimestamp(created_ms / 1000, UTC).strftime("%Y/%Y-%m/%Y-%m-%d")


def folder_of(group: str) -> str:
    """The folder of one of ``DAYS``."""
    return day_folder(FIRST_DAY_MS + DAYS[group] * DAY_MS)


def make(number: int, day: int, at: int, of: int, size: int, *, sparse: bool = False,
         virtual: bool = False) -> Thing:  # fmt: skip
    """The ``at``-th of ``of`` objects of a day; ``number`` is unique among all."""
    created_ms = FIRST_DAY_MS + day * DAY_MS + at * (DAY_MS // of) // 1000 * 1000
    clock = datetime.fromtimestamp(created_ms / 1000, UTC).strftime("%H%M%S")
    id8 = f"{number:08x}"
    return Thing(
        id=f"{id8}-0000-4000-8000-{number:012x}",
        name=f"{clock}_callrecording_outbound_Alex-Wilber_+16695555518_{id8}.mp3",
        size=size,
        created_ms=created_ms,
        sparse=sparse,
        virtual=virtual,
    )


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured; bytes and numbers of files."""

    big: int = 512 * MIB
    film: int = 1024 * MIB
    limited: int = 128 * MIB
    small: int = 50_000
    small_files: int = 120
    many_files: int = 10_000
    eight: int = 32 * MIB
    crowd: int = 8 * MIB


SHORT = Sizes()
LONG = Sizes(limited=512 * MIB, small_files=300, eight=64 * MIB)


def things(sizes: Sizes) -> list[Thing]:
    """All objects of the comparison, in the order of their creation."""
    plan: list[tuple[str, int, int, dict[str, bool]]] = [
        ("big", 1, sizes.big, {}),
        ("film", 1, sizes.film, {"sparse": True}),
        ("small", sizes.small_files, sizes.small, {}),
        ("many", sizes.many_files, 4321, {"virtual": True}),
        ("eight", 8, sizes.eight, {}),
        ("door", 1, 1000, {}),
        ("limited", 1, sizes.limited, {}),
        *((f"span{size}", 1, size * MIB, {}) for size in SPANS),
        ("crowd", 32, sizes.crowd, {}),
    ]
    made: list[Thing] = []
    for group, count, size, fields in plan:
        day = DAYS[group]
        made += [make(len(made) + k + 1, day, k, count, size, **fields) for k in range(count)]
    return made


class Days(Sequence[Thing]):
    """``counts[d]`` objects on day ``d``, in order, computed when asked for. They are virtual."""

    def __init__(self, counts: Sequence[int]) -> None:
        self._counts = counts
        self._ends = list(accumulate(counts))

    def __len__(self) -> int:
        return self._ends[-1]

    @overload
    def __getitem__(self, number: int) -> Thing: ...

    @overload
    def __getitem__(self, number: slice) -> Sequence[Thing]: ...

    def __getitem__(self, number: int | slice) -> Thing | Sequence[Thing]:
        if isinstance(number, slice):
            return [self[each] for each in range(*number.indices(len(self)))]
        if not 0 <= number < len(self):
            raise IndexError(number)
        day = bisect_right(self._ends, number)
        count = self._counts[day]
        at = number - self._ends[day] + count
        return make(number + 1, day, at, count, 4321, virtual=True)


def write(root: Path, plan: list[Thing]) -> list[Thing]:
    """Put the bytes below ``root`` (``tree/DAY/NAME`` and a link ``id/ID``); with their MD5."""
    (root / "id").mkdir(parents=True)
    noise = random.Random(8).randbytes(8 * MIB)
    return [thing if thing.virtual else _write(root, thing, noise) for thing in plan]


def _write(root: Path, thing: Thing, noise: bytes) -> Thing:
    path = root / "tree" / thing.path
    path.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("wb") as file:
        if thing.sparse:
            file.truncate(thing.size)
        else:
            for piece in _pieces(thing, noise):
                digest.update(piece)
                file.write(piece)
        file.flush()
        os.fsync(file)  # or the disk would still be busy with it while the first is measured
    (root / "id" / thing.id).hardlink_to(path)
    # No checksum for the film: nobody reads it whole, and no file system has to.
    md5 = "" if thing.sparse else digest.hexdigest()
    return replace(thing, md5=md5)


def _pieces(thing: Thing, noise: bytes) -> Iterator[bytes]:
    """The bytes: the object's own first line with the mark, then noise, turned for each one."""
    head = MARK + b" " + thing.id.encode() + b"\n"
    yield head[: thing.size]
    left = thing.size - len(head)
    turn = int(thing.id[:8], 16) * 4099 % len(noise)
    turned = noise[turn:] + noise[:turn]
    while left > 0:
        yield turned[:left]
        left -= len(turned)


def save(plan: list[Thing], file: Path) -> None:
    """The list for the origin, one JSON document."""
    file.write_text(json.dumps([asdict(thing) for thing in plan]))


def load(file: Path) -> list[Thing]:
    """What ``save`` wrote."""
    return [Thing(**fields) for fields in json.loads(file.read_text())]
