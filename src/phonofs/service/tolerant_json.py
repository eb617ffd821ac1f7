"""JSON as the service and the gateways before it write it: decoded strictly, else leniently.

Pure. ``msgspec`` refuses a whole document for one unpaired surrogate escape, where ``json``
accepts it; a document that only ``json`` understands is mended, so that what comes out can
always be encoded again.
"""

import json
import math
from typing import Any

import msgspec

from phonofs.errors import Malformed, TooLarge

LONGEST_INTEGER = 30
"""Digits; more than any number of the service has, and no work to speak of."""


LENIENT_COST = 3
"""How much longer a value takes that is decoded leniently: up to 0.7 us."""

LIGHT = 1 << 18
"""Bytes of a document that can be decoded strictly whatever it holds: 10 ms, 10 MB."""

KEPT = 1 << 16
"""Bytes kept of a document that is too large."""


def weigh(body: bytes, most_values: int, what: str) -> None:
    """Raise TooLarge for a document with too many values or levels, before it is decoded.

    Decoding takes time and memory by the value: 60 MB of ``{},{}`` take a minute and gigabytes.
    Commas and brackets within texts count too, so ``most_values`` must be generous.
    """
    try:
        msgspec.json.decode(body, type=msgspec.Raw)  # only finds its end: 0.06 ms a page
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
    """The value ``body`` stands for, of lists, dicts, texts, finite numbers, booleans and None.

    Raises Malformed, naming ``what``, when it is no JSON at all.
    """
    try:
        return msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return decode_leniently(body, what)


def decode_leniently(body: bytes, what: str) -> Any:
    """As :func:`decode`, by way of ``json``: unpaired surrogates become U+FFFD, NaN None."""
    try:
        text = body.decode("utf-8-sig", "replace")
        loaded = json.loads(text, parse_int=_integer, parse_float=_float, parse_constant=_none)
        return mend(loaded)
    except (ValueError, RecursionError):
        raise Malformed(f"the answer for {what} is not JSON: {excerpt(body)}") from None


def mend(value: Any) -> Any:
    """Make every text in ``value`` encodable, in place; returns it.

    Without recursion, which would end at half the depth that ``json`` reads.
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
    """``text`` with U+FFFD in place of each unpaired surrogate."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def excerpt(body: bytes) -> str:
    """What kind of thing an answer is, without quoting what may be personal or secret."""
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
