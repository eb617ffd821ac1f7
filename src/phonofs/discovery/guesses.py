"""Decides where to look for the end of a listing of unknown length. Pure. Used by ``pagination``.

A guess is a page that is requested although nothing says that it exists. If it exists, so do all
before it, which can then be requested side by side. If it does not, it is a miss, and the end is
before it.
"""

from collections.abc import Sequence
from math import ceil, pow

_MISSES = 4
"""Without a ``total``, so many pages beyond the end are risked, once two pages came full. Each
one that is not risked costs a day of 1,000 to 4,000 objects some round trips."""

_PAGES_A_MISS = 20
"""Of a large day one page in so many is risked: 5 %. One more confirms the end (``doubted``)."""

GUESSES = 3
"""Guesses side by side. If they exist, all pages before the furthest one do."""

_REACH = 3
"""How far a guess reaches while the end is unknown: this times what the misses left allow."""

UNBOUNDED = 1 << 62
"""Nothing is known to be the end."""


def next_guess(sure: int, step: int, bound: int, misses: int, guesses: Sequence[int]) -> int | None:
    """Return the offset of the next guess; None if there is to be none now.

    sure     where the first page begins that may not exist
    step     how far the next page begins behind one
    bound    the least offset that is not to be requested, or UNBOUNDED
    misses   how many there were
    guesses  those in flight

    With ``n`` misses left, ``m`` pages are cut at ``m ** (n / (n + 1))``, so that a miss leaves a
    range that the other guesses can search.
    """
    pages = sure // step
    left = max(_MISSES if pages > 2 else 1, pages // _PAGES_A_MISS) - misses - len(guesses)
    if left < 1:
        return None
    share = left / (left + 1)
    if bound == UNBOUNDED:
        first = max([sure, *(key + step for key in guesses)])
        ahead = max(2, ceil(_REACH * pow(first // step, share)))
        return first + (ahead - 1) * step
    unknown = -(-(bound - sure) // step)
    if guesses or unknown < 1:
        return None
    return sure + (min(ceil(pow(unknown, share)), -(-unknown // 2)) - 1) * step
