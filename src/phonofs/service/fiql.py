"""Writes a search in FIQL, the filter language of the service. Pure.

The service's dialect has ``==  !=  =gt=  =ge=  =lt=  =le=``, ``;`` for AND, ``,`` for OR, and
parentheses; times are UTC epoch milliseconds (developer guide, "Searching for objects").
"""

import re
from collections.abc import Iterable

from phonofs.model import Query

_WORD = re.compile(r"[A-Za-z0-9_.:-]{1,100}")

EVERYTHING = "createdTime=ge=0"
"""The filter for a query without conditions: it matches every object."""


def fiql(query: Query) -> str:
    """Return the filter for ``query``.

    Its intervals are half-open, as in :class:`~phonofs.model.Query`. Raises
    ValueError if a type or state holds characters that could be read as FIQL syntax.
    """
    terms = [
        *_bound("createdTime=ge=", query.created_from_ms),
        *_bound("createdTime=lt=", query.created_until_ms),
        *_bound("updatedTime=ge=", query.updated_from_ms),
        *_bound("updatedTime=lt=", query.updated_until_ms),
        *_one_of("type", query.types),
        *_one_of("objectState", query.states),
        *([query.narrow] if query.narrow else []),
    ]
    return ";".join(terms) or EVERYTHING


def _bound(comparison: str, value_ms: int | None) -> list[str]:
    return [] if value_ms is None else [f"{comparison}{value_ms}"]


def _one_of(field: str, words: Iterable[str]) -> list[str]:
    choices = [f"{field}=={_checked(word)}" for word in words]
    if len(choices) < 2:
        return choices
    return [f"({','.join(choices)})"]


def _checked(word: str) -> str:
    if not _WORD.fullmatch(word):
        raise ValueError(f"{word!r} cannot stand in a filter")
    return word
