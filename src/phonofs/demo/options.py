"""How the stand-in answers where the service's documents leave a choice, and its limits.

Pure. One dataclass; ``phonofs demo --set NAME=VALUE`` and the tests use the same names.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from phonofs.demo.account import CUSTOMER
from phonofs.errors import UsageError

DEMO_KEY = "demo-key"
DEMO_SECRET = "demo-secret"  # noqa: S105 (of a service that is made up)

WAYS = ("range", "presign", "redirect", "stream")


@dataclass(frozen=True, slots=True)
class Options:
    """The choices. Times in seconds, 0 where something is off.

    content         how ``/content`` gives bytes: ``range`` (honours Range), ``presign`` (whole
                    bodies only, but a presigned URL is to be had, and that has ranges),
                    ``redirect`` (302 to such a URL), ``stream`` (whole bodies, no presigned URL)
    presign_answer  ``object``: ``{"url": …}``; ``string``: a JSON string; ``text``: plain text
    sizes           ``storedBytes`` as ``number`` or ``string``
    page            a page as an ``object`` or as an ``array`` that holds it
    total           whether a page says how many there are in all
    page_limit      the largest ``limit``
    over_limit      a larger one is ``refuse``\\ d with 400, or ``lower``\\ ed silently
    token_life_s    life of a token
    presign_life_s  life of a presigned URL
    latency_s       pause before each answer
    bytes_per_s     speed of a body; 0: as fast as it goes
    restore_s       how long bringing back an archived object takes
    editable        whether the key may restore (else 403)
    etag            whether content carries an ETag
    products        the API products of the key; without ``storage`` it is of no use
    key, secret     the one pair that gets a token
    customer_id     the customer of the made-up account, and of objects added without one
    """

    content: Literal["range", "presign", "redirect", "stream"] = "range"
    presign_answer: Literal["object", "string", "text"] = "object"
    sizes: Literal["number", "string"] = "number"
    page: Literal["object", "array"] = "object"
    total: bool = True
    page_limit: int = 100
    over_limit: Literal["refuse", "lower"] = "refuse"
    token_life_s: float = 1799.0
    presign_life_s: float = 1800.0
    latency_s: float = 0.0
    bytes_per_s: float = 0.0
    restore_s: float = 0.0
    editable: bool = True
    etag: bool = True
    products: str = "storage"
    key: str = DEMO_KEY
    secret: str = DEMO_SECRET
    customer_id: str = CUSTOMER


_NAMES = {each.name: type(each.default) for each in fields(Options)}
_CHOICES = {
    "content": WAYS,
    "presign_answer": ("object", "string", "text"),
    "sizes": ("number", "string"),
    "page": ("object", "array"),
    "over_limit": ("refuse", "lower"),
}


def options_from(settings: Iterable[str]) -> Options:
    """Options from texts ``NAME=VALUE``. Raises UsageError naming the one that is wrong."""
    given: dict[str, str] = {}
    for setting in settings:
        name, sign, value = setting.partition("=")
        if not sign:
            raise UsageError(f"{setting!r}: not NAME=VALUE with NAME one of {', '.join(_NAMES)}")
        given[name] = value
    return changed_options(Options(), given)


def changed_options(options: Options, choices: Mapping[str, object]) -> Options:
    """The options with some of them chosen anew, from texts or values. Raises UsageError."""
    made: dict[str, Any] = {}
    for name, value in choices.items():
        if name not in _NAMES:
            raise UsageError(f"{name!r} is not an option of the stand-in: {', '.join(_NAMES)}")
        made[name] = _value(name, _NAMES[name], str(value))
    return replace(options, **made)


def _value(name: str, kind: type, value: str) -> object:
    try:
        if kind is bool:
            return {"true": True, "false": False}[value.lower()]
        made = kind(value)
    except (KeyError, ValueError) as error:
        raise UsageError(f"{name}={value}: not a {kind.__name__}") from error
    if value not in _CHOICES.get(name, (value,)):
        raise UsageError(f"{name}={value}: one of {', '.join(_CHOICES[name])}")
    if kind in (int, float) and not 0 <= made < 1e12:
        raise UsageError(f"{name}={value}: out of range")
    return made
