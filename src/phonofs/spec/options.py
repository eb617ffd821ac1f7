"""The options of the file system: which there are, and that none of them is a secret. Pure."""

from collections.abc import Iterable

from phonofs.config import OPTIONS, nearest
from phonofs.units import parse_duration, parse_size

BLOCK_SIZE = 1 << 20
"""How much a small read of an open file asks for. The daemon reads further ahead by itself."""

_OF_FSSPEC = frozenset(
    (
        "asynchronous",
        "loop",
        "batch_size",
        "use_listings_cache",
        "listings_expiry_time",
        "max_paths",
    )
)
"""Options that fsspec gives to any file system. They change nothing here."""

OPTION_NAMES = ("autostart", "socket", "timeout", "block_size", "cache_type")


def check_options(names: Iterable[str]) -> None:
    """Raise ValueError, with the remedy, for an option that fsspec does not give to all."""
    for name in names:
        if name not in _OF_FSSPEC:
            raise ValueError(_refusal(name))


def _refusal(name: str) -> str:
    if name in {option.name for option in OPTIONS} or name in ("token", "password", "username"):
        return (
            f"{name} is no option of phonofs://, but of the profile: a file system is sent to "
            "other processes and must hold no secret; see phonofs.toml(5), and `phonofs login`"
        )
    hint = nearest(name, OPTION_NAMES) or f"; there are {', '.join(OPTION_NAMES)}"
    return f"{name} is no option of phonofs://{hint}"


def is_on(value: bool | str) -> bool:
    """Return whether a flag is set; fsspec gives those of the environment as texts."""
    return value not in (False, "", "0", "false", "False", "no", "off")


def seconds(value: float | str | None) -> float | None:
    """Return the timeout in seconds; a text is as in the configuration. Raises ValueError."""
    try:
        number = parse_duration(value) if isinstance(value, str) else value
    except ValueError as error:
        raise ValueError(f"timeout={value!r}: {error}") from None
    if number is not None and number <= 0:
        raise ValueError(f"timeout={value!r}: it must be more than 0")
    return number


def size(value: int | str) -> int:
    """Return the block size in bytes; a text is as in the configuration. Raises ValueError."""
    try:
        number = parse_size(value) if isinstance(value, str) else value
    except ValueError as error:
        raise ValueError(f"block_size={value!r}: {error}") from None
    if number < 1:
        raise ValueError(f"block_size={value!r}: it must be at least 1")
    return number
