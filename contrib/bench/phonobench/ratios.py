"""From figures to ratios, their spread, and whether a target is reached. Pure.

A figure belongs to a round, and only figures of the same round are divided by each other: what
else the machine did at that time hits both. A ratio is always *how many times better than the
peer*: of speeds ours by theirs, of times theirs by ours.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True)
class Spread:
    """The least, the median and the greatest of a few numbers."""

    least: float
    median: float
    most: float

    @classmethod
    def of(cls, numbers: Sequence[float]) -> "Spread":
        """Raises ValueError where there are none."""
        if not numbers:
            raise ValueError("nothing was measured")
        return cls(min(numbers), median(numbers), max(numbers))


def ratios(ours: Sequence[float], theirs: Sequence[float], *, faster_is_more: bool) -> list[float]:
    """One ratio a round. A peer measured in fewer rounds is compared in those."""
    pairs = zip(ours, theirs, strict=False)
    return [us / them if faster_is_more else them / us for us, them in pairs if us and them]


def all_below(spread: Spread | None, floor: float) -> bool:
    """Whether even the best round lies below ``floor``; False if nothing was measured."""
    return spread is not None and spread.most < floor


def better(figures: dict[str, Sequence[float]], *, faster_is_more: bool) -> str | None:
    """Which of the peers does better by its median; None where none was measured."""
    measured = {name: median(each) for name, each in figures.items() if each}
    if not measured:
        return None
    choose = max if faster_is_more else min
    return choose(measured, key=lambda name: measured[name])


def reached(spread: Spread | None, target: float | None, *, at_most: bool = False) -> str:
    """``yes``, ``no``, or nothing where there is no target or no figure; by the median."""
    if spread is None or target is None:
        return ""
    good = spread.median <= target if at_most else spread.median >= target
    return "yes" if good else "no"
