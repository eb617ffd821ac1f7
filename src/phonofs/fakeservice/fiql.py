"""The filter language of a search: parser and evaluator.

Pure and total: any text either parses or raises :class:`FilterError`, nothing else. The grammar
is the part of FIQL (draft-nottingham-atompub-fiql) that the service documents: ``==  !=  =gt=
=ge=  =lt=  =le=``, ``=in=(a,b)`` and ``=out=(a,b)``, ``;`` for AND (binds tighter), ``,`` for OR,
parentheses. ``createdTime`` and ``updatedTime`` are compared with epoch milliseconds.
"""

import re
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import eq, ge, gt, le, lt, ne
from typing import Any

TIME_FIELDS = frozenset({"createdTime", "updatedTime"})
MAX_LENGTH = 16_000
"""Characters in a filter; a longer filter would not fit into a request line either."""
MAX_DEPTH = 50
"""Nested parentheses: far more than anyone writes, far fewer than Python's stack allows."""

_TOKEN = re.compile(
    r"(?P<field>[\w.:-]+)(?:(?P<set>=in=|=out=)\((?P<values>[^;,()]+(?:,[^;,()]+)*)\)"
    r"|(?P<operator>==|!=|=gt=|=ge=|=lt=|=le=)(?P<value>[^;,()]+))|[;,()]"
)
"""A comparison, a comparison with a set of values, a separator or a parenthesis."""
_TIME = re.compile(r"-?[0-9]{1,18}")
_NUMBER = re.compile(r"-?[0-9]{1,18}(\.[0-9]{1,18})?")

Value = str | int | None
Fields = Mapping[str, Value]


class FilterError(Exception):
    """The filter cannot be parsed; the message says why."""


class TimeError(FilterError):
    """A time is not given in epoch milliseconds."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """``field operator value``, e.g. ``type==callrecording``."""

    field: str
    operator: str
    value: str


@dataclass(frozen=True, slots=True)
class And:
    """True if all parts are true, or if there are none."""

    parts: tuple["Expression", ...]


@dataclass(frozen=True, slots=True)
class Or:
    """True if at least one part is true; false if there are none."""

    parts: tuple["Expression", ...]


Expression = Comparison | And | Or
TRUE = And(())


def parse(text: str) -> Expression:
    """Parse a filter. Raises FilterError, also if the text is empty."""
    if len(text) > MAX_LENGTH:
        raise FilterError(f"the filter is longer than {MAX_LENGTH} characters")
    tokens: deque[Expression | str] = deque()
    at = 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            raise FilterError(f"not a comparison: {text[at : at + 80]!r}")
        tokens.append(_comparison(found) if found["field"] else found[0])
        at = found.end()
    return _parsed(tokens, 0)


def _parsed(tokens: deque[Expression | str], depth: int) -> Expression:
    """Take the tokens up to the parenthesis that closes this one, or to the end.

    ``;`` (all of them) binds tighter than ``,`` (any of them).
    """
    any_of: list[Expression] = []
    all_of: list[Expression] = []
    separator: Expression | str = ","
    while separator in (";", ","):
        first = tokens.popleft() if tokens else ""
        if first == "(" and depth < MAX_DEPTH:
            first = _parsed(tokens, depth + 1)
        if isinstance(first, str):
            raise FilterError(f"unexpected {first!r}" if first else "a comparison is missing")
        all_of.append(first)
        separator = tokens.popleft() if tokens else ""
        if separator != ";":
            any_of.append(all_of[0] if len(all_of) == 1 else And(tuple(all_of)))
            all_of = []
    if separator != (")" if depth else ""):
        raise FilterError(f"unexpected {separator!r}" if separator else "a parenthesis is open")
    return any_of[0] if len(any_of) == 1 else Or(tuple(any_of))


def _comparison(found: re.Match[str]) -> Expression:
    """Return the comparison: ``=in=`` is true if one value is equal, ``=out=`` if none is."""
    field, values = found["field"], (found["values"] or found["value"]).split(",")
    if field in TIME_FIELDS and not all(_TIME.fullmatch(value) for value in values):
        raise TimeError(f"{field} is compared with epoch milliseconds")
    if found["set"] == "=in=":
        return Or(tuple(Comparison(field, "==", value) for value in values))
    if found["set"] == "=out=":
        return And(tuple(Comparison(field, "!=", value) for value in values))
    return Comparison(field, found["operator"], found["value"])


def matches(expression: Expression, fields: Fields) -> bool:
    """Whether an object with these fields and tags matches the filter."""
    match expression:
        case And(parts):
            return all(matches(part, fields) for part in parts)
        case Or(parts):
            return any(matches(part, fields) for part in parts)
        case Comparison(field, operator, value):
            return _compare(fields.get(field), operator, value)


_COMPARE: Mapping[str, Callable[[Any, Any], Any]] = {
    "==": eq,
    "!=": ne,
    "=lt=": lt,
    "=le=": le,
    "=gt=": gt,
    "=ge=": ge,
}


def _compare(actual: Value, operator: str, wanted: str) -> bool:
    """Compare as numbers if both are numbers, else as texts."""
    if actual is None:
        return operator == "!="
    compare = _COMPARE[operator]
    if _NUMBER.fullmatch(wanted) and (isinstance(actual, int) or _NUMBER.fullmatch(actual)):
        return bool(compare(float(actual), float(wanted)))
    return bool(compare(str(actual), wanted))


def names(expression: Expression) -> frozenset[str]:
    """Return the fields and tags that the filter refers to."""
    if isinstance(expression, Comparison):
        return frozenset({expression.field})
    return frozenset().union(*(names(part) for part in expression.parts))
