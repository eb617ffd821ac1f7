"""Decodes JSON from the service and its gateways: strictly first, and leniently if that fails.

Pure. ``msgspec`` refuses a whole document because of one unpaired surrogate escape, but ``json``
accepts it. A document that only ``json`` accepts is repaired, so that the decoded value can always
be encoded again.
"""

import json
import math
from typing import Any

import msgspec

from phonofs.errors import Malformed, TooLarge

LONGEST_INTEGER = 30
"""Digits; more than any number of the service has, and still cheap to decode."""


LENIENT_COST = 3
"""How many times longer it takes to decode a value leniently: up to 0.7 us."""

LIGHT = 1 << 18
"""Documents of up to this many bytes are decoded strictly whatever they hold: 10 ms, 10 MB."""

KEPT = 1 << 16
"""Bytes kept of a document that is too large."""


def weigh(body: bytes, most_values: int, what: str) -> None:
    """Raise TooLarge if a document has too many values or levels, before it is decoded.

    Decoding takes time and memory for each value: 60 MB of ``{},{}`` take a minute and gigabytes.
    Commas and brackets within strings count too, so ``most_values`` must be generous.
    """
    try:
        msgspec.json.decode(body, type=msgspec.Raw)  # only finds its end: 0.06 ms per page
    except RecursionError:
        raise TooLarge(f"the answer for {what} is nested too deeply", body[:KEPT]) from None
    except (msgspec.MsgspecError, UnicodeDecodeError):
        most_values //= LENIENT_COST
    else:
        if len(body) <= LIGHT:
            return
    values = body.count(b",") + body.count(b"[") + body.count(b"{")
    if values > most_values:
        raise TooLarge(f"the answer for {what} holds too many values", body[:KEPT])


def decode(body: bytes, what: str) -> Any:
    """Return the value of ``body``: lists, dicts, strings, finite numbers, booleans and None.

    Raises Malformed, which names ``what``, if it is not JSON at all.
    """
    return decode_source(body, what)[0]


def decode_source(body: bytes, what: str) -> tuple[Any, bytes | None]:
    """Return the value as :func:`decode`, and ``body``, or None if it had to be repaired."""
    try:
        return msgspec.json.decode(body), body
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return decode_leniently(body, what), None


def decode_leniently(body: bytes, what: str) -> Any:
    """Do the same as :func:`decode` with ``json``; unpaired surrogates become U+FFFD, NaN None."""
    try:
        text = body.decode("utf-8-sig", "replace")
        loaded = json.loads(text, parse_int=_integer, parse_float=_float, parse_constant=_none)
        return mend(loaded)
    except (ValueError, RecursionError):
        raise Malformed(f"the answer for {what} is not JSON: {excerpt(body)}") from None


def mend(value: Any) -> Any:
    """Make every string in ``value`` encodable, in place; return the value.

    Recursion is not used, because it would end at half the depth that ``json`` reads.
    """
    root = [value]
    left: list[list[Any] | dict[str, Any]] = [root]
    while left:
        holder = left.pop()
        if isinstance(holder, dict):
            items = [(mend_text(key), item) for key, item in holder.items()]
            holder.clear()
            holder.update((key, _mended(item)) for key, item in items)
            found = list(holder.values())
        else:
            holder[:] = found = [_mended(item) for item in holder]
        left += [item for item in found if isinstance(item, list | dict)]
    return root[0]


def _mended(item: Any) -> Any:
    return mend_text(item) if isinstance(item, str) else item


def mend_text(text: str) -> str:
    """Return ``text`` with U+FFFD in place of each unpaired surrogate."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def excerpt(body: bytes) -> str:
    """Return what kind of document a body is, without quoting personal or secret content."""
    start = body[:200].lstrip().lower()
    if not start:
        return "it is empty"
    if start.startswith((b"<!doctype", b"<html")):
        return "it is a web page"
    return "it is XML" if start.startswith(b"<") else f"{len(body)} bytes of something else"


def _integer(digits: str) -> int | None:
    return int(digits) if len(digits) <= LONGEST_INTEGER else None


def _float(digits: str) -> float | None:
    number = float(digits)
    return number if math.isfinite(number) else None


def _none(_constant: str) -> None:
    return None
