"""The fault plan: which requests fail, and how. Data, not code; pure.

A plan is TOML or JSON: a ``seed`` and a list ``rule``. Each rule says which requests it selects and
what happens to them::

    seed = 7
    [[rule]]
    kind = "content"        # or a list; see KINDS
    probability = 0.3
    fail = "status"
    status = 503
    retry_after = 1

These keys select requests; a request must satisfy all that are given: ``kind``, ``path`` and ``id``
(globs), ``region``, ``nth`` (a number or a list, counted from 1 among the requests that match the
rule), ``every`` (each n-th), ``skip`` (not the first n), ``from_s`` / ``until_s`` (seconds since
the first request), ``probability`` (0 to 1, from the seed), ``count`` (fires at most n times). The
first rule that fires decides. ``fail`` says what happens: one of FAILURES, with the parameters
named there; ``phonofs demo --help`` lists them.
"""

import json
import random
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from phonofs.errors import UsageError

KINDS = frozenset(
    {"token", "regions", "search", "record", "content", "presign", "store"} | {"restore", "other"}
)


@dataclass(frozen=True, slots=True)
class Failure:
    """Something that can happen to a request: its description, its parameters and their defaults.

    A default of ``...`` marks a required parameter.
    """

    help: str
    parameters: Mapping[str, Any]


def _failure(help: str, **parameters: Any) -> Failure:
    return Failure(help, parameters)


FAILURES: Mapping[str, Failure] = {
    "status": _failure(
        "this status in place of the answer",
        status=...,
        retry_after=None,
        body="",
        content_type="text/plain",
    ),
    "html": _failure("a gateway's page in place of the answer", status=200),
    "json": _failure("any other JSON in place of the answer", value=..., status=200),
    "text": _failure(
        "this text in place of a JSON answer, half of one for instance", body=..., status=200
    ),
    "bomb": _failure(
        "JSON that is cheap to send and dear to read: so many zeros, objects or arrays in place of "
        "records, or tags of one record, or nested lists in it",
        of="zeros",
        items=1_000_000,
    ),
    "record": _failure(
        "fields laid over every record of the answer (null: taken out)",
        set=...,
    ),
    "headers": _failure(
        "header fields laid over those of the answer (null: taken out), and so many lines more",
        set={},
        lines=0,
    ),
    "etag": _failure("this ETag", etag='"changed"'),
    "redirect": _failure("a redirect to a URL, to itself if that is empty", to="", status=302),
    "delay": _failure("a pause before the answer", seconds=...),
    "interim": _failure(
        "so many interim answers before the answer (-1: without an end)", code=100, number=1000
    ),
    "reset": _failure("RST after so many bytes of the body (-1: before the headers)", after=-1),
    "cut": _failure(
        "the end of the connection after so many bytes, fewer than the Content-Length", after=0
    ),
    "stall": _failure(
        "no further byte after so many of the body (-1: not even headers); the connection stays "
        "open",
        after=-1,
    ),
    "drip": _failure("a body as slow as this", bytes_per_s=...),
    "chunks": _failure("a body in chunks of so many bytes", bytes=1),
    "unframed": _failure(
        "a body without a stated length, which ends with the connection after so many bytes (-1: "
        "after all)",
        after=-1,
    ),
    "short": _failure("a body so many bytes shorter, its Content-Length in agreement", by=1),
    "long": _failure("a body so many bytes longer, its Content-Length in agreement", by=1),
    "overrun": _failure("so many bytes more than the Content-Length says", by=1),
    "wrong_range": _failure("206 for a range so many bytes further on, which it says", by=1),
    "as_200": _failure("200 for a range, with its Content-Range"),
    "whole": _failure("200 with the whole body for a range"),
    "flip": _failure("the byte at this offset of the object, xor the mask", at=0, mask=255),
    "encoding": _failure("the body compressed although nobody asked", encoding="gzip"),
    "endless": _failure("never a last page: beyond the end comes the last page again"),
    "repeat": _failure("the first page again, whatever was asked for"),
    "empty": _failure("a page without records that is not the last"),
    "expired": _failure("a presigned URL that is dead from birth"),
    "revoke": _failure("all tokens die, also this request's; it goes on"),
}
"""The values of ``fail``. ``--help`` and the manual are made from this table."""


def described_failures() -> Iterator[tuple[str, str]]:
    """Yield each failure with its parameters and their defaults, and its description."""
    for name, failure in FAILURES.items():
        given = [
            each if default is ... else f"{each}={json.dumps(default)}"
            for each, default in failure.parameters.items()
        ]
        yield f"{name} ({', '.join(given)})" if given else name, failure.help


_SELECTORS: Mapping[str, tuple[type, ...]] = {
    "name": (str,),
    "kind": (str, list),
    "path": (str,),
    "id": (str,),
    "region": (str,),
    "nth": (int, list),
    "every": (int,),
    "skip": (int,),
    "from_s": (int, float),
    "until_s": (int, float),
    "probability": (int, float),
    "count": (int,),
}


@dataclass(frozen=True, slots=True)
class Asked:
    """What a rule sees of a request. ``at_s`` is in seconds since the first request."""

    kind: str
    path: str
    id: str = ""
    region: str = ""
    at_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to one request: ``fail`` is one of FAILURES, with all its parameters."""

    fail: str
    parameters: Mapping[str, Any]
    rule: str

    def __getitem__(self, name: str) -> Any:
        return self.parameters[name]


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of the plan. ``index`` is its position, from 0."""

    name: str
    index: int
    select: Mapping[str, Any]
    fault: Fault

    def matches(self, asked: Asked) -> bool:
        """Whether the rule selects this request, regardless of counts and chance."""
        select = self.select
        return (
            asked.kind in select.get("kind", KINDS)
            and fnmatchcase(asked.path, select.get("path", "*"))
            and fnmatchcase(asked.id, select.get("id", "*"))
            and asked.region == select.get("region", asked.region)
            and select.get("from_s", 0) <= asked.at_s < select.get("until_s", float("inf"))
        )

    def fires(self, number: int, chance: float) -> bool:
        """Whether the rule fires for the ``number``-th request that matches; ``chance``: 0 to 1."""
        select = self.select
        return (
            number in select.get("nth", (number,))
            and number % select.get("every", 1) == 0
            and number > select.get("skip", 0)
            and chance < select.get("probability", 1)
        )


@dataclass(frozen=True)
class Plan:
    """A validated fault plan; ``source`` is the decoded text it was made from."""

    rules: tuple[Rule, ...] = ()
    seed: int = 0
    source: Mapping[str, Any] = field(default_factory=dict)


class Faults:
    """Applies a plan: decides for each request, and counts how often each rule fired.

    Owns the counts. Invariant: ``fired[name] <= met[name]``; both have every rule's name.
    """

    def __init__(self, plan: Plan | None = None) -> None:
        self.plan = plan or Plan()
        self.met = {rule.name: 0 for rule in self.plan.rules}
        self.fired = dict(self.met)
        self._chances = [
            random.Random(f"{self.plan.seed}:{rule.index}")  # noqa: S311
            for rule in self.plan.rules
        ]

    def decide(self, asked: Asked) -> Fault | None:
        """Return what happens to this request, or None. Every rule that matches it counts it."""
        chosen = None
        for rule in self.plan.rules:
            if rule.matches(asked) and self._fires(rule) and chosen is None:
                self.fired[rule.name] += 1
                chosen = rule.fault
        return chosen

    def _fires(self, rule: Rule) -> bool:
        self.met[rule.name] += 1
        chance = self._chances[rule.index].random()
        left = self.fired[rule.name] < rule.select.get("count", float("inf"))
        return left and rule.fires(self.met[rule.name], chance)


def load(text: str) -> Plan:
    """Read the plan in ``text``: a path to a file, or TOML or JSON itself. Raises UsageError."""
    if "\n" not in text and "=" not in text and not text.lstrip().startswith(("{", "[")):
        try:
            text = Path(text).read_text(encoding="utf-8")
        except OSError as error:
            why = error.strerror
            raise UsageError(f"the fault plan {text!r} cannot be read: {why}") from error
        except ValueError as error:
            raise UsageError(f"the fault plan {text!r} cannot be read: {error}") from error
    return plan(_decoded(text))


def _decoded(text: str) -> Any:
    is_json = text.lstrip().startswith("{") or text.lstrip().startswith(("[{", "[]"))
    try:
        return json.loads(text) if is_json else tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        kind = "JSON" if is_json else "TOML"
        raise UsageError(f"the fault plan is not valid {kind}: {error}") from error


def plan(source: Any) -> Plan:
    """Check a decoded plan (or a bare list of rules). Raises UsageError naming the rule."""
    if isinstance(source, list):
        source = {"rule": source}
    if not isinstance(source, dict) or set(source) - {"seed", "rule"}:
        raise UsageError("the fault plan must have a list 'rule' and may have a 'seed', no more")
    rules, seed = source.get("rule", []), source.get("seed", 0)
    if not isinstance(rules, list) or not isinstance(seed, int):
        raise UsageError("in the fault plan 'rule' must be a list and 'seed' a whole number")
    made = tuple(_rule(index, each) for index, each in enumerate(rules))
    names = [rule.name for rule in made]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"the fault plan has two rules named {name!r}")
    return Plan(made, seed, source)


def _rule(index: int, source: Any) -> Rule:
    where = f"rule {index + 1} of the fault plan"
    if not isinstance(source, dict):
        raise UsageError(f"{where} must be a table")
    fail = source.get("fail")
    if not isinstance(fail, str) or fail not in FAILURES:
        raise UsageError(f"{where}: 'fail' must be one of {', '.join(FAILURES)}")
    name = str(source.get("name", f"{index + 1}:{fail}"))
    parameters = _parameters(where, fail, source)
    select = _select(where, source, FAILURES[fail].parameters)
    return Rule(name, index, select, Fault(fail, parameters, name))


def _parameters(where: str, fail: str, source: Mapping[str, Any]) -> Mapping[str, Any]:
    made = {name: source.get(name, default) for name, default in FAILURES[fail].parameters.items()}
    for name, value in made.items():
        if value is ...:
            raise UsageError(f"{where}: {fail!r} needs {name!r}")
        if not _fits(value, name, fail):
            raise UsageError(f"{where}: {name!r} cannot be {value!r}")
    return made


def _whole(low: int, high: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and low <= value <= high


def _is_amount(value: Any) -> bool:
    return type(value) in (int, float) and 0 < value < 1e12


def _are_headers(fields: Any) -> bool:
    """Whether these can be sent as header fields; null removes a field."""
    if not isinstance(fields, dict) or not all(map(_HEADER.fullmatch, fields)):
        return False
    values = [value for value in fields.values() if value is not None]
    return all(isinstance(value, str) and value.isprintable() for value in values)


_HEADER = re.compile(r"[\w-]+", re.ASCII)
_CHECKS: Mapping[str, Callable[[Any], bool]] = {
    "status": _whole(200, 599),
    "of": lambda value: value in ("zeros", "objects", "arrays", "tags", "nested"),
    "code": lambda value: value in (100, 102, 103),
    "retry_after": lambda value: True,
    "value": lambda value: True,
    "bytes": _whole(1, 1 << 20),
    "items": _whole(0, 10**8),
    "lines": _whole(0, 10**6),
    **dict.fromkeys(("after", "by", "at", "mask", "number"), _whole(-1, (1 << 62) - 1)),
    **dict.fromkeys(("seconds", "bytes_per_s"), _is_amount),
}
"""Checks a parameter's value; a parameter without a check is a text."""


def _fits(value: Any, name: str, fail: str) -> bool:
    if name == "set":
        return isinstance(value, dict) if fail == "record" else _are_headers(value)
    return _CHECKS[name](value) if name in _CHECKS else isinstance(value, str)


def _select(
    where: str, source: Mapping[str, Any], parameters: Mapping[str, Any]
) -> Mapping[str, Any]:
    select = {}
    for name, value in source.items():
        if name == "fail" or name in parameters:
            continue
        if name not in _SELECTORS:
            raise UsageError(f"{where}: unknown key {name!r}")
        if not isinstance(value, _SELECTORS[name]) or isinstance(value, bool):
            raise UsageError(f"{where}: {name!r} cannot be {value!r}")
        select[name] = value
    return _settled(where, select)


def _settled(where: str, select: dict[str, Any]) -> Mapping[str, Any]:
    """Turn single values into lists, and check the values. Raises UsageError."""
    for name in ("kind", "nth"):
        if name in select and not isinstance(select[name], list):
            select[name] = [select[name]]
    unknown = [kind for kind in map(str, select.get("kind", ())) if kind not in KINDS]
    if unknown:
        raise UsageError(f"{where}: unknown kind {unknown[0]!r}, one of {', '.join(sorted(KINDS))}")
    if not all(type(each) is int for each in select.get("nth", ())) or select.get("every", 1) < 1:
        raise UsageError(f"{where}: 'nth' and 'every' are whole numbers from 1")
    return select
