"""The filter language of a search: parser and evaluator.

Pure and total: any text either parses or raises :class:`FilterError`, nothing else. The grammar
is the part of FIQL (draft-nottingham-atompub-fiql) that the service documents: ``==  !=  =gt=
=ge=  =lt=  =le=``, ``=in=(a,b)`` and ``=out=(a,b)``, ``;`` for AND (binds tighter), ``,`` for OR,
parentheses. ``createdTime`` and ``updatedTime`` are compared with epoch milliseconds.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import eq, ge, gt, le, lt, ne
from typing import Any

TIME_FIELDS = frozenset({"createdTime", "updatedTime"})
MAX_LENGTH = 16_000
"""Characters in a filter; a longer filter would not fit into a request line either."""
MAX_DEPTH = 50
"""Nested parentheses: far more than anyone writes, far fewer than Python's stack allows."""

_TOKEN = re.compile(r"[;,()]|[^;,()]+")
_COMPARISON = re.compile(r"(?P<field>[\w.:-]+)(?P<operator>==|!=|=gt=|=ge=|=lt=|=le=)(?P<value>.+)")
_SET = re.compile(r"(?P<field>[\w.:-]+)=(?P<operator>in|out)=")
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
    parser = _Parser(_TOKEN.findall(text))
    expression = parser.some(0)
    if parser.peek():
        raise FilterError(f"unexpected {parser.peek()!r}")
    return expression


class _Parser:
    """Recursive descent over the tokens. Invariant: ``_at`` is the index of the next token."""

    def __init__(self, tokens: list[str]) -> None:
        self._tokens = tokens
        self._at = 0

    def peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def take(self) -> str:
        token = self.peek()
        self._at += 1
        return token

    def some(self, depth: int) -> Expression:
        parts = self._list(",", self.every, depth)
        return parts[0] if len(parts) == 1 else Or(parts)

    def every(self, depth: int) -> Expression:
        parts = self._list(";", self.one, depth)
        return parts[0] if len(parts) == 1 else And(parts)

    def _list(
        self, separator: str, part: Callable[[int], Expression], depth: int
    ) -> tuple[Expression, ...]:
        parts = [part(depth)]
        while self.peek() == separator:
            self.take()
            parts.append(part(depth))
        return tuple(parts)

    def one(self, depth: int) -> Expression:
        first = self.take()
        among = _SET.fullmatch(first)
        if among is not None:
            return self._set(among["field"], among["operator"])
        if first != "(":
            return _comparison(first)
        if depth == MAX_DEPTH:
            raise FilterError(f"more than {MAX_DEPTH} parentheses within each other")
        inner = self.some(depth + 1)
        if self.take() != ")":
            raise FilterError("a parenthesis is not closed")
        return inner

    def _set(self, field: str, operator: str) -> Expression:
        """Parse a list: ``=in=`` is true if one value is equal, ``=out=`` if none is."""
        if self.take() != "(":
            raise FilterError(f"={operator}= takes a list in parentheses")
        values = [self._value()]
        while self.peek() == ",":
            self.take()
            values.append(self._value())
        if self.take() != ")":
            raise FilterError("a list is not closed")
        if operator == "in":
            return Or(tuple(_checked(Comparison(field, "==", value)) for value in values))
        return And(tuple(_checked(Comparison(field, "!=", value)) for value in values))

    def _value(self) -> str:
        value = self.take()
        if not value or value in ";,()":
            raise FilterError("a list holds no value where one should be")
        return value


def _comparison(token: str) -> Comparison:
    found = _COMPARISON.fullmatch(token)
    if found is None:
        raise FilterError(f"not a comparison: {token[:80]!r}")
    return _checked(Comparison(found["field"], found["operator"], found["value"]))


def _checked(comparison: Comparison) -> Comparison:
    """Return the comparison. Raises TimeError if a time is not compared with a number."""
    if comparison.field in TIME_FIELDS and not re.fullmatch(r"-?[0-9]{1,18}", comparison.value):
        raise TimeError(f"{comparison.field} is compared with epoch milliseconds")
    return comparison


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
    if actual is None:
        return operator == "!="
    left, right = _comparable(actual, wanted)
    return bool(_COMPARE[operator](left, right))


def _comparable(actual: str | int, wanted: str) -> tuple[float | str, float | str]:
    """Return both values as numbers if both are numbers, else both as texts."""
    if isinstance(actual, int) and _NUMBER.fullmatch(wanted):
        return actual, float(wanted) if "." in wanted else int(wanted)
    if _NUMBER.fullmatch(wanted) and _NUMBER.fullmatch(str(actual)):
        return float(actual), float(wanted)
    return str(actual), wanted


def names(expression: Expression) -> frozenset[str]:
    """Return the fields and tags that the filter refers to."""
    if isinstance(expression, Comparison):
        return frozenset({expression.field})
    return frozenset().union(*(names(part) for part in expression.parts))
