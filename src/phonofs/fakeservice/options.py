"""How the fake service answers if the service's documents leave a choice, and its limits.

Pure. ``phonofs demo --set NAME=VALUE``, ``POST /-/options`` and the tests use the names of one
dataclass. Each option is described once, here; ``--help`` and the manual are made from it.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import Field, dataclass, fields, replace
from typing import Annotated, Any, Literal, get_args

import msgspec

from phonofs.errors import UsageError
from phonofs.fakeservice.account import CUSTOMER

DEMO_KEY = "demo-key"
DEMO_SECRET = "demo-secret"  # noqa: S105 (of a service that is made up)

Number = Annotated[float, msgspec.Meta(ge=0, lt=1e12)]
WholeNumber = Annotated[int, msgspec.Meta(ge=1, lt=10**12)]


@dataclass(frozen=True, slots=True)
class Options:
    """The options; the defaults are what the real service does, as far as that is known.

    Each is annotated with its meaning. Names end with their unit.
    """

    content: Annotated[
        Literal["range", "presign", "redirect", "stream"],
        "how /content sends bytes: with ranges; ranges only from presigned URLs; a redirect to "
        "such a URL; whole bodies, and no URLs",
    ] = "range"
    presign_answer: Annotated[
        Literal["object", "string", "text"],
        'how a presigned URL is sent: as {"url": …}, as a JSON string, or as plain text',
    ] = "object"
    presign_host: Annotated[
        Literal["store", "api"],
        "whether presigned URLs lead to an origin of their own, or to that of the API",
    ] = "store"
    presign_token: Annotated[
        Literal["refuse", "ignore", "want"],
        "what a presigned URL does with the token of a request",
    ] = "refuse"  # noqa: S105 (not a token)
    presign_life_s: Annotated[
        Number, "life of a presigned URL, unless the request has presignTtlSeconds"
    ] = 1800.0
    sizes: Annotated[
        Literal["number", "string"], "whether the storedBytes of a record is a number or a string"
    ] = "number"
    page: Annotated[
        Literal["object", "array"], "whether a page is an object, or an array that contains it"
    ] = "object"
    total: Annotated[
        Literal["pages", "records", "absent"],
        "what the total of a page counts; absent: pages have no total",
    ] = "pages"
    page_limit: Annotated[WholeNumber, "the largest limit of a search; the documents say 100"] = (
        1000
    )
    over_limit: Annotated[
        Literal["refuse", "lower"],
        "whether a larger limit is answered with 400, or lowered silently",
    ] = "refuse"
    token_life_s: Annotated[Number, "life of a token"] = 1799.0
    products: Annotated[
        str, "the API products of the key, separated by commas; it needs storage"
    ] = "storage"
    key: Annotated[str, "the key that gets a token"] = DEMO_KEY
    secret: Annotated[str, "its secret"] = DEMO_SECRET
    customer_id: Annotated[
        str, "the customer of the sample account, and of objects added without one"
    ] = CUSTOMER
    restore_s: Annotated[Number, "how long it takes to restore an archived object"] = 0.0
    latency_s: Annotated[Number, "pause before each answer"] = 0.0
    most_requests: Annotated[
        Number,
        "requests to the API (not for tokens) in a window; to more the answer is 429 with a "
        "Retry-After to the end of the window; 0: unlimited",
    ] = 0.0
    window_s: Annotated[Number, "the window of most_requests"] = 60.0
    bytes_per_s: Annotated[Number, "speed of a body; 0: unlimited"] = 0.0


_FIELDS: Mapping[str, Field[Any]] = {each.name: each for each in fields(Options)}


def described_options() -> Iterator[tuple[str, str]]:
    """Yield each option as ``NAME=VALUE`` with the values it takes, and its meaning."""
    for name, each in _FIELDS.items():
        default = str(each.default).lower() if isinstance(each.default, bool) else each.default
        yield f"{name}={_values(each)}", f"{get_args(each.type)[-1]} (default: {default})"


def _values(option: Field[Any]) -> str:
    kind = get_args(option.type)[0]
    named = {str: "TEXT", bool: "true|false", int: "NUMBER", float: "NUMBER"}
    return named.get(kind) or "|".join(get_args(kind))


def options_from(settings: Iterable[str]) -> Options:
    """Parse options from texts ``NAME=VALUE``. Raises UsageError naming the one that is wrong."""
    given = dict(setting.partition("=")[::2] for setting in settings)
    return changed_options(Options(), given)


def changed_options(options: Options, choices: Mapping[str, object]) -> Options:
    """Return the options with some of them changed, from texts or values. Raises UsageError."""
    made: dict[str, Any] = {}
    for name, value in choices.items():
        if name not in _FIELDS:
            raise UsageError(f"{name!r} is not an option of the fake service: {', '.join(_FIELDS)}")
        option = _FIELDS[name]
        try:
            made[name] = msgspec.convert(str(value), option.type, strict=False)
        except msgspec.ValidationError as error:
            raise UsageError(f"{name}={value} must be {name}={_values(option)}") from error
    return replace(options, **made)
