"""How the fake service answers if the service's documents leave a choice, and its limits.

Pure. ``phonofs demo --set NAME=VALUE``, ``POST /-/options`` and the tests use the names of one
dataclass. Each option is described once, here; ``--help`` and the manual are made from it.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import Field, dataclass, field, fields, replace
from typing import Any, Literal, get_args

from phonofs.errors import UsageError
from phonofs.fakeservice.account import CUSTOMER

DEMO_KEY = "demo-key"
DEMO_SECRET = "demo-secret"  # noqa: S105 (of a service that is made up)

DELIVERY_METHODS = ("range", "presign", "redirect", "stream")


def _option(default: Any, help: str) -> Any:
    """Make a field of Options with its default and its meaning in one sentence."""
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True, slots=True)
class Options:
    """The options; the defaults are what the real service does, as far as that is known.

    The meaning of each is in its ``help``. Names end with their unit.
    """

    content: Literal["range", "presign", "redirect", "stream"] = _option(
        "range",
        "how /content gives bytes: it honours Range; only presigned URLs do; it redirects to "
        "such a URL; whole bodies and no URLs",
    )
    presign_answer: Literal["object", "string", "text"] = _option(
        "object", 'a presigned URL comes as {"url": …}, as a JSON string, or as plain text'
    )
    presign_host: Literal["store", "api"] = _option(
        "store", "presigned URLs lead to an origin of their own, or to that of the API"
    )
    presign_token: Literal["refuse", "ignore", "want"] = _option(
        "refuse", "what a presigned URL does with a request that carries a token"
    )
    presign_life_s: float = _option(
        1800.0, "life of a presigned URL, unless presignTtlSeconds asks for another"
    )
    sizes: Literal["number", "string"] = _option(
        "number", "the storedBytes of a record is a number or a string"
    )
    page: Literal["object", "array"] = _option(
        "object", "a page is an object, or an array that holds it"
    )
    total: Literal["pages", "records", "absent"] = _option(
        "pages", "what a page's total counts, or that there is none"
    )
    page_limit: int = _option(1000, "the largest limit of a search; the documents say 100")
    over_limit: Literal["refuse", "lower"] = _option(
        "refuse", "a larger limit is answered 400, or lowered without a word"
    )
    search_window: int = _option(
        0, "searches whose pageKey + limit is beyond this are answered 400; 0: none is"
    )
    bad_time: Literal["error", "refuse"] = _option(
        "error", "a time in a filter that is not in epoch milliseconds is answered 500, or 400"
    )
    token_life_s: float = _option(1799.0, "life of a token")
    products: str = _option(
        "storage", "the API products of the key; without storage it is of no use"
    )
    key: str = _option(DEMO_KEY, "the key that gets a token")
    secret: str = _option(DEMO_SECRET, "its secret")
    customer_id: str = _option(
        CUSTOMER, "the customer of the made-up account, and of objects added without one"
    )
    editable: bool = _option(True, "whether the key may restore; else 403")
    restore_s: float = _option(0.0, "how long bringing back an archived object takes")
    etag: bool = _option(True, "whether content carries an ETag")
    latency_s: float = _option(0.0, "pause before each answer")
    bytes_per_s: float = _option(0.0, "speed of a body; 0: as fast as it goes")


_FIELDS: Mapping[str, Field[Any]] = {each.name: each for each in fields(Options)}


def described_options() -> Iterator[tuple[str, str]]:
    """Yield each option as ``NAME=VALUE`` with the values it takes, and its meaning."""
    for name, each in _FIELDS.items():
        values = "|".join(_choices(each)) or ("TEXT" if each.type is str else "NUMBER")
        default = str(each.default).lower() if isinstance(each.default, bool) else each.default
        yield f"{name}={values}", f"{each.metadata['help']} (default: {default})"


def options_from(settings: Iterable[str]) -> Options:
    """Parse options from texts ``NAME=VALUE``. Raises UsageError naming the one that is wrong."""
    given: dict[str, str] = {}
    for setting in settings:
        name, sign, value = setting.partition("=")
        if not sign:
            raise UsageError(f"{setting!r}: not NAME=VALUE with NAME one of {', '.join(_FIELDS)}")
        given[name] = value
    return changed_options(Options(), given)


def changed_options(options: Options, choices: Mapping[str, object]) -> Options:
    """Return the options with some of them changed, from texts or values. Raises UsageError."""
    made: dict[str, Any] = {}
    for name, value in choices.items():
        if name not in _FIELDS:
            raise UsageError(f"{name!r} is not an option of the fake service: {', '.join(_FIELDS)}")
        made[name] = _value(_FIELDS[name], str(value))
    return replace(options, **made)


def _value(option: Field[Any], value: str) -> object:
    name, choices = option.name, _choices(option)
    kind: Any = type(option.default)
    if kind is bool:
        value = value.lower()
    if choices and value not in choices:
        raise UsageError(f"{name}={value}: one of {', '.join(choices)}")
    try:
        made = value == "true" if kind is bool else kind(value)
    except ValueError as error:
        raise UsageError(f"{name}={value}: not a number") from error
    if kind in (int, float) and not 0 <= made < 1e12:
        raise UsageError(f"{name}={value}: out of range")
    return made


def _choices(option: Field[Any]) -> tuple[str, ...]:
    """Return the values an option can have; empty if any value of its type is allowed."""
    return ("true", "false") if option.type is bool else get_args(option.type)
