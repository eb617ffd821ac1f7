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
(globs), ``nth`` (a number or a list, counted from 1 among the requests that match the rule),
``every`` (each n-th), ``skip`` (not the first n), ``probability`` (0 to 1, from the seed),
``count`` (fires at most n times). The first rule that fires decides. ``fail`` says what happens:
one of FAILURES, with the parameters named there; ``phonofs demo --help`` lists them.
"""

import json
import random
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import msgspec
from msgspec import Meta

from phonofs.errors import UsageError
from phonofs.fakeservice.responses import Request

Kind = Literal[
    "token", "regions", "search", "record", "content", "presign", "store", "restore", "other"
]
KINDS = frozenset(get_args(Kind))

_Status = Annotated[int, Meta(ge=200, le=599)]
_Bytes = Annotated[int, Meta(ge=0, lt=1 << 62)]
_After = Annotated[int, Meta(ge=-1, lt=1 << 62)]
_Amount = Annotated[float, Meta(gt=0, lt=1e12)]
_Headers = dict[
    Annotated[str, Meta(pattern=r"^[\w-]+\Z")],
    Annotated[str, Meta(pattern=r"^[^\x00-\x1f\x7f]*\Z")] | None,
]


@dataclass(frozen=True, slots=True)
class Failure:
    """Something that can happen to a request: its description, its parameters and their defaults.

    ``parameters`` has the type and the default of each; a default of ``...`` marks a required one.
    """

    help: str
    parameters: Mapping[str, tuple[Any, Any]]


def _failure(help: str, **parameters: tuple[Any, Any]) -> Failure:
    return Failure(help, parameters)


FAILURES: Mapping[str, Failure] = {
    "status": _failure(
        "this status in place of the answer, with this body",
        status=(_Status, ...),
        retry_after=(Any, None),
        body=(str, ""),
        content_type=(str, "text/plain"),
    ),
    "html": _failure("a gateway's page in place of the answer", status=(_Status, 200)),
    "json": _failure("other JSON in place of the answer", value=(Any, ...), status=(_Status, 200)),
    "record": _failure(
        "fields of every record in the answer replaced (null: removed)",
        set=(dict[str, Any], ...),
    ),
    "headers": _failure(
        "header fields of the answer replaced (null: removed)", set=(_Headers, ...)
    ),
    "redirect": _failure(
        "a redirect to this URL; empty: to the same URL", to=(str, ""), status=(_Status, 302)
    ),
    "delay": _failure("a pause before the answer", seconds=(_Amount, ...)),
    "reset": _failure(
        "RST after this many bytes of the body (-1: before the headers)", after=(_After, -1)
    ),
    "cut": _failure(
        "the connection closed after this many bytes, fewer than the Content-Length",
        after=(_Bytes, 0),
    ),
    "stall": _failure(
        "nothing more after this many bytes of the body (-1: not even headers); the connection "
        "stays open",
        after=(_After, -1),
    ),
    "drip": _failure("a body as slow as this", bytes_per_s=(_Amount, ...)),
    "unframed": _failure(
        "a body without a stated length, which ends with the connection after this many bytes "
        "(-1: all of them)",
        after=(_After, -1),
    ),
    "short": _failure("a body this many bytes shorter, with that Content-Length", by=(_Bytes, 1)),
    "long": _failure("a body this many bytes longer, with that Content-Length", by=(_Bytes, 1)),
    "overrun": _failure("this many bytes more than the Content-Length", by=(_Bytes, 1)),
    "wrong_range": _failure(
        "206 for a range this many bytes further on, with that Content-Range", by=(_Bytes, 1)
    ),
    "as_200": _failure("200 for a range, with its Content-Range"),
    "whole": _failure("200 with the whole body for a range"),
    "flip": _failure(
        "the byte at this offset of the object, xor the mask",
        at=(_Bytes, 0),
        mask=(Annotated[int, Meta(ge=0, le=255)], 255),
    ),
    "encoding": _failure("a compressed body that was not asked for", encoding=(str, "gzip")),
    "endless": _failure("never a last page: after the end, the first page again"),
    "repeat": _failure("the first page again, whatever was asked for"),
    "empty": _failure("a page without records that is not the last"),
    "expired": _failure("a presigned URL that has already expired"),
    "revoke": _failure("all tokens revoked, after this request was accepted"),
}
"""The values of ``fail``. ``--help`` and the manual are made from this table."""


def described_failures() -> Iterator[tuple[str, str]]:
    """Yield each failure with its parameters and their defaults, and its description."""
    for name, failure in FAILURES.items():
        given = [
            each if default is ... else f"{each}={json.dumps(default)}"
            for each, (_, default) in failure.parameters.items()
        ]
        yield f"{name} ({', '.join(given)})" if given else name, failure.help


_SELECTORS: Mapping[str, Any] = {
    "name": str,
    "kind": list[Kind],
    "path": str,
    "id": str,
    "nth": list[int],
    "every": Annotated[int, Meta(ge=1)],
    "skip": int,
    "probability": float,
    "count": int,
}
"""The type of each key that selects requests; ``kind`` and ``nth`` may be single values too."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of the plan. ``index`` is its position, from 0.

    ``select`` says which requests it selects. ``fail``, one of FAILURES, happens to them, with
    the ``parameters``: all that it has.
    """

    name: str
    index: int
    select: Mapping[str, Any]
    fail: str
    parameters: Mapping[str, Any]

    def __getitem__(self, parameter: str) -> Any:
        return self.parameters[parameter]

    def matches(self, request: Request) -> bool:
        """Whether the rule selects this request, regardless of counts and chance."""
        select = self.select
        return (
            request.kind in select.get("kind", KINDS)
            and fnmatchcase(request.path, select.get("path", "*"))
            and fnmatchcase(request.id, select.get("id", "*"))
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


@dataclass(frozen=True, slots=True)
class Plan:
    """A validated fault plan."""

    rules: tuple[Rule, ...] = ()
    seed: int = 0


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

    def decide(self, request: Request) -> Rule | None:
        """Return the rule for this request, or None. Every rule that matches it counts it."""
        chosen = None
        for rule in self.plan.rules:
            if rule.matches(request) and self._fires(rule) and chosen is None:
                self.fired[rule.name] += 1
                chosen = rule
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
        except (OSError, ValueError) as error:
            raise UsageError(
                f"the fault plan {text!r} cannot be read: {getattr(error, 'strerror', error)}"
            ) from error
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
    seed = _checked("the fault plan", "seed", source.get("seed", 0), int)
    rules = _checked("the fault plan", "rule", source.get("rule", []), list[dict[str, Any]])
    made = tuple(_rule(index, each) for index, each in enumerate(rules))
    names = [rule.name for rule in made]
    repeated = [name for name in names if names.count(name) > 1]
    if repeated:
        raise UsageError(f"the fault plan has two rules named {repeated[0]!r}")
    return Plan(made, seed)


def _rule(index: int, source: Mapping[str, Any]) -> Rule:
    where = f"rule {index + 1} of the fault plan"
    fail = source.get("fail")
    if not isinstance(fail, str) or fail not in FAILURES:
        raise UsageError(f"{where}: 'fail' must be one of {', '.join(FAILURES)}")
    parameters = {}
    for name, (kind, default) in FAILURES[fail].parameters.items():
        value = source.get(name, default)
        if value is ...:
            raise UsageError(f"{where}: {fail!r} needs {name!r}")
        parameters[name] = _checked(where, name, value, kind)
    select = {}
    for name in source.keys() - parameters.keys() - {"fail"}:
        if name not in _SELECTORS:
            raise UsageError(f"{where}: unknown key {name!r}")
        value = source[name]
        if name in ("kind", "nth") and not isinstance(value, list):
            value = [value]
        select[name] = _checked(where, name, value, _SELECTORS[name])
    return Rule(select.get("name", f"{index + 1}:{fail}"), index, select, fail, parameters)


def _checked(where: str, name: str, value: Any, kind: Any) -> Any:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise UsageError(f"{where}: {name!r} cannot be {value!r}: {error}") from error
