"""What the conditions, the range and the response parameters of a request ask for. Pure.

Used for GetObject and HeadObject. Conditions are those of RFC 9110, 13, which "Conditional
requests" in the Amazon S3 User Guide agrees with.
"""

import re

from phonofs.http_dates import http_date_s
from phonofs.s3door.errors import S3Error
from phonofs.s3door.request import Request

RESPONSE_HEADERS = (
    "Cache-Control",
    "Content-Disposition",
    "Content-Encoding",
    "Content-Language",
    "Content-Type",
    "Expires",
)
"""The headers that a client may choose by a parameter such as ``response-content-type``."""

_RANGE = re.compile(r"bytes=[ \t]*([0-9]*)-([0-9]*)[ \t]*", re.IGNORECASE)
_ETAG = re.compile(r'[ \t]*(W/)?(?:"([^"]*)"|([^\s",]+))[ \t]*(?:,|$)')
_LONGEST_OFFSET = 19
"""Digits of the largest 64-bit offset."""


def is_wanted(request: Request, etag: str, modified_s: float) -> bool:
    """Return whether the client wants the object; if not, the answer is 304 without a body.

    ``etag`` is in quotes, as it is sent. Raises S3Error (412) if a condition does not hold.
    """
    match, unmodified = request.header("if-match"), _date_s(request, "if-unmodified-since")
    if match is not None:
        if not _names(match, etag):
            raise _failed("If-Match")
    elif unmodified is not None and modified_s // 1 > unmodified:
        raise _failed("If-Unmodified-Since")
    none_match, since = request.header("if-none-match"), _date_s(request, "if-modified-since")
    if none_match is not None:
        return not _names(none_match, etag, weakly=True)
    return since is None or modified_s // 1 > since


def _failed(condition: str) -> S3Error:
    return S3Error("PreconditionFailed", f"the condition {condition} does not hold")


def _date_s(request: Request, name: str) -> float | None:
    """Return the time of a header; None if there is none, or no valid one (RFC 9110, 13.1.3)."""
    header = request.header(name)
    return None if header is None else http_date_s(header)


def _names(header: str, etag: str, *, weakly: bool = False) -> bool:
    """Return whether a list of ETags has this one, or is ``*``.

    A weak one counts only if ``weakly``. One without quotes is taken as if it had them, as Amazon
    does. A list that cannot be read to its end names nothing.
    """
    if header.strip() == "*":
        return True
    found, position = False, 0
    while position < len(header):
        match = _ETAG.match(header, position)
        if match is None:
            return False
        opaque = match[3] if match[2] is None else match[2]
        found |= f'"{opaque}"' == etag and (weakly or not match[1])
        position = match.end()
    return found


def range_of(request: Request, size: int, etag: str, modified_s: float) -> tuple[int, int] | None:
    """Return start and stop of the range that the client asks for; None if it is the whole.

    As with Amazon, anything but one range of bytes is answered by the whole object. So is a range
    for another version than this one (If-Range). Raises S3Error (416) if no byte is in the range.
    """
    header = request.header("range")
    found = None if header is None else _RANGE.fullmatch(header)
    if found is None or found.groups() == ("", ""):
        return None
    if not _is_this_version(request, etag, modified_s):
        return None
    first, last = (_offset(digits) for digits in found.groups())
    if first is None:
        start, stop = max(0, size - (last or 0)), size
    elif last is None:
        start, stop = first, size
    elif last < first:
        return None
    else:
        start, stop = first, min(last + 1, size)
    if start >= size:
        raise S3Error(
            "InvalidRange", "the range is beyond the end", (("Content-Range", f"bytes */{size}"),)
        )
    return start, stop


def _offset(digits: str) -> int | None:
    """Return an offset, None for no digits. One beyond 64 bits is beyond the end of any object."""
    if not digits:
        return None
    digits = digits.lstrip("0") or "0"
    return int(digits) if len(digits) <= _LONGEST_OFFSET else 10**_LONGEST_OFFSET


def _is_this_version(request: Request, etag: str, modified_s: float) -> bool:
    """Return whether If-Range allows a range: by an exact ETag or date (RFC 9110, 13.1.5)."""
    header = request.header("if-range")
    if header is None or header.strip() == etag:
        return True
    return http_date_s(header) == modified_s // 1


def response_headers(request: Request) -> dict[str, str]:
    """Return the headers that the client chose for its answer by ``response-*`` parameters.

    To be called for signed requests only. Raises S3Error if a value cannot stand in a header.
    """
    parameters = request.parameters
    if not parameters:
        return {}
    names = {f"response-{name.lower()}": name for name in RESPONSE_HEADERS}
    found = {
        name: parameters[each].strip(" ") for each, name in names.items() if each in parameters
    }
    for name, value in found.items():
        if not re.fullmatch(r"[ -~\xa0-\xff]*", value):
            raise S3Error(
                "InvalidArgument", f"response-{name.lower()} cannot be the value of a header"
            )
    return found
