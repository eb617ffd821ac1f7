"""Parses and checks the value of an option, given as a text or as a TOML value.

Pure. A reader takes (option, raw) and returns the value. It raises ValueError, whose message says
what would be accepted; the caller adds the place of the value.
"""

import hmac
import ipaddress
import re
import zoneinfo
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from phonofs.config.options import TEMPLATE_FIELDS, Kind, Option
from phonofs.units import Rate, parse_duration, parse_rate, parse_size


class Secret:
    """A text that is never printed or serialised; only ``reveal()`` returns it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text, for the code that sends or stores it."""
        return self._text

    def __repr__(self) -> str:
        return "Secret(…)"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._text.encode(), other._text.encode())

    def __hash__(self) -> int:
        return hash(self._text)

    def __reduce__(self) -> Any:
        raise TypeError("a secret is not written anywhere")


def nearest(word: str, known: Iterable[str]) -> str:
    """Return ``; did you mean X?`` if a known word is similar, else ''."""
    close = get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


def _text(option: Option, raw: object) -> str:
    if not isinstance(raw, str):
        raise ValueError("it must be a text in quotes")
    text = raw.strip()
    if not text:
        raise ValueError("it is empty")
    if not text.isprintable():
        raise ValueError("it holds control characters")
    if option.name == "subtype" and not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", text):
        raise ValueError("letters, digits, '.', '_' and '-' only")
    return text


def _secret(option: Option, raw: object) -> Secret:
    return Secret(_text(option, raw))


def _path(option: Option, raw: object) -> Path:
    path = Path(_text(option, raw))
    if not path.is_absolute() and path.parts[:1] != ("~",):
        raise ValueError("the path must begin with / or ~/")
    return path


def _url(option: Option, raw: object) -> str:
    text = _text(option, raw).rstrip("/")
    parts = urlsplit(text)
    host = parts.hostname
    if parts.scheme not in ("http", "https") or not host:
        raise ValueError("it must look like https://HOST")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("it may hold no user, query or fragment")
    _ = parts.port  # raises ValueError if it is not a number
    if parts.scheme == "http" and not is_loopback(host):
        raise ValueError("plain http would show the secret to others: use https")
    return text


def is_loopback(host: str) -> bool:
    """Return whether a host name or an address in a URL is a loopback address."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _list(option: Option, raw: object) -> tuple[str, ...]:
    items = raw.split(":") if isinstance(raw, str) else raw
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        raise ValueError("it must be a list of texts")
    words = [item.strip() for item in items if item.strip()]
    allowed = "._-" if option.name == "crawlers" else "_-"  # programs, or words of the service
    for word in words:
        if not re.fullmatch(rf"[A-Za-z0-9{allowed}]{{1,64}}", word):
            said = ", ".join(["letters", "digits", *(f"{each!r}" for each in allowed)])
            raise ValueError(f"{word!r} holds more than {said}")
    return tuple(dict.fromkeys(words))


def _zone(option: Option, raw: object) -> str:
    name = _text(option, raw)
    try:
        zoneinfo.ZoneInfo(name)
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
        hint = nearest(name, zoneinfo.available_timezones())
        raise ValueError(f"it is no IANA time zone such as Europe/Berlin{hint}") from None
    return name


def _date(option: Option, raw: object) -> date:
    if isinstance(raw, date) and not isinstance(raw, datetime):
        return raw
    try:
        return date.fromisoformat(_text(option, raw))
    except ValueError:
        raise ValueError("a date looks like 2024-09-17") from None


def _size(option: Option, raw: object) -> int:
    if isinstance(raw, int) and not isinstance(raw, bool):
        raw = str(raw)
    return parse_size(_text(option, raw))


def _duration(option: Option, raw: object) -> float:
    if isinstance(raw, int | float) and not isinstance(raw, bool):
        raw = str(raw)
    seconds = parse_duration(_text(option, raw))
    if seconds < option.least:
        raise ValueError(f"it must be at least {option.least:g} s")
    return seconds


def _rate(option: Option, raw: object) -> Rate | None:
    text = _text(option, raw)
    return None if text == "off" else parse_rate(text)


def _number(option: Option, raw: object) -> int:
    if isinstance(raw, bool) or not isinstance(raw, int | str):
        raise ValueError("it must be a whole number")
    if isinstance(raw, str) and not re.fullmatch(r"\s*[0-9]{1,20}\s*", raw):
        raise ValueError("it must be a whole number")
    number = int(raw)
    if not option.least <= number <= option.most:
        raise ValueError(f"it must lie between {option.least:g} and {option.most:.0f}")
    return number


def _mode(option: Option, raw: object) -> int:
    # An unquoted 222 in TOML is decimal; it is refused, because it may be meant as octal.
    if not isinstance(raw, str) or not re.fullmatch(r"0?[0-7]{1,3}", raw.strip()):
        raise ValueError('it is written in octal, in quotes: "0222"')
    return int(raw, 8)


def _flag(option: Option, raw: object) -> bool:
    if isinstance(raw, bool):
        return raw
    known = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
    if isinstance(raw, str) and raw.strip().lower() in known:
        return known[raw.strip().lower()]
    raise ValueError("it is either true or false")


def _choice(option: Option, raw: object) -> str:
    if isinstance(raw, str) and raw.strip().lower() in option.choices:
        return raw.strip().lower()
    hint = nearest(raw, option.choices) if isinstance(raw, str) else ""
    raise ValueError(f"it must be one of {', '.join(option.choices)}{hint}")


def _template(option: Option, raw: object) -> str:
    text = _text(option, raw)
    fields = re.findall(r"\{([^{}]*)\}", text)
    for name in fields:
        if name not in TEMPLATE_FIELDS:
            known = ", ".join(TEMPLATE_FIELDS)
            raise ValueError(f"it knows the fields {known}, not {name!r}")
    rest = re.sub(r"\{[^{}]*\}", "", text)
    if not fields or "{" in rest or "}" in rest or "/" in rest:
        raise ValueError("it must hold fields in braces, and no /")
    return text


def _name(option: Option, raw: object) -> str:
    text = raw.strip() if isinstance(raw, str) else raw
    if text == "":
        return ""
    if not isinstance(text, str) or not re.fullmatch(r"\.?[A-Za-z_][A-Za-z0-9._-]{0,62}", text):
        raise ValueError("a letter, then letters, digits, '.', '_' and '-'; a '.' may stand first")
    return text


def _address(option: Option, raw: object) -> str | None:
    text = _text(option, raw)
    if text == "off":
        return None
    parts = urlsplit(f"//{text}")
    if not parts.hostname or parts.port is None or parts.path:
        raise ValueError("it must look like 127.0.0.1:9188, or off")
    return text


READERS: Mapping[Kind, Callable[[Option, object], Any]] = {
    Kind.TEXT: _text,
    Kind.SECRET: _secret,
    Kind.PATH: _path,
    Kind.URL: _url,
    Kind.LIST: _list,
    Kind.ZONE: _zone,
    Kind.DATE: _date,
    Kind.SIZE: _size,
    Kind.DURATION: _duration,
    Kind.RATE: _rate,
    Kind.NUMBER: _number,
    Kind.MODE: _mode,
    Kind.FLAG: _flag,
    Kind.CHOICE: _choice,
    Kind.TEMPLATE: _template,
    Kind.NAME: _name,
    Kind.ADDRESS: _address,
}
