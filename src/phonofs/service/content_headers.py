"""Headers of content: the range that is requested, and the validated one of a response. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from phonofs.errors import Changed, Malformed
from phonofs.priority import Priority
from phonofs.service.record_limits import LARGEST_OBJECT

Headers = Mapping[str, str]
"""Names in lower case; repeated ones joined by a comma."""

_SPAN = re.compile(r"bytes[ \t]+(\d{1,19})-(\d{1,19})/(\d{1,19}|\*)", re.ASCII | re.IGNORECASE)
_NO_SPAN = re.compile(r"bytes[ \t]+\*/(\d{1,19})", re.ASCII | re.IGNORECASE)
"""Range units are case-insensitive (RFC 9110, 14.1)."""

_MEDIA = ("audio/", "video/", "image/")
"""Types of content that is never JSON or XML; other type labels are not reliable."""


@dataclass(frozen=True, slots=True)
class ContentRange:
    """A ``Content-Range``: bytes ``[start, stop)`` of ``total`` (None: not stated)."""

    start: int
    stop: int
    total: int | None


@dataclass(frozen=True, slots=True)
class RangeRequest:
    """A request for bytes ``[start, stop)`` of an object (``stop`` None: to its end).

    ``what`` names it in messages. ``etag`` is that of the bytes already present; ``mime_type``,
    ``size``, ``region``, ``id`` and ``fingerprint`` are those of the record.
    """

    what: str
    start: int
    stop: int | None
    etag: str | None = None
    mime_type: str = ""
    size: int = 0
    region: str = ""
    id: str = ""
    fingerprint: str = ""
    urgent: bool | Priority = True

    @property
    def key(self) -> tuple[str, str, str]:
        """The key of its link; new content, of another fingerprint, may have another one."""
        return self.region, self.id, self.fingerprint

    def headers(self) -> dict[str, str]:
        """Return the request headers (a weak ETag is not allowed in ``If-Range``)."""
        last = "" if self.stop is None else self.stop - 1
        headers = {"Range": f"bytes={self.start}-{last}"}
        if self.etag and re.fullmatch(r"[!-~]{1,200}", self.etag) and self.etag[:2] != "W/":
            headers["If-Range"] = self.etag
        return headers

    def whole(self) -> "RangeRequest":
        """Return a request for the whole object."""
        return replace(self, start=0, stop=None)

    def is_whole(self, total: int | None) -> bool:
        """Whether all of an object of ``total`` bytes is requested."""
        return self.start == 0 and (self.stop is None or (total is not None and total <= self.stop))


@dataclass(frozen=True, slots=True)
class ContentHeaders:
    """What a response says of its body: bytes ``[start, stop)`` of ``total``; None if not stated.

    is_partial  whether the response says that it is a part, whatever its status
    framed      whether a length or a last chunk marks the end. Otherwise the end of the
                connection does, which does not show that everything came (RFC 9112, 8)
    """

    start: int
    stop: int | None
    total: int | None
    etag: str
    is_partial: bool = False
    framed: bool = True


def validated_headers(status: int, headers: Headers, wanted: RangeRequest) -> ContentHeaders:
    """Return what a 200, 206 or 416 says of its body; a 200 may have a ``Content-Range``.

    Raises Malformed if it does not match the request, Changed if the ETag differs.
    """
    _check_kind(headers, wanted)
    etag = headers.get("etag", "").strip()
    if status == 206 or (status == 200 and "content-range" in headers):
        announced = _part(headers, wanted, etag)
    elif status == 416:
        announced = _nothing(headers, wanted, etag)
    else:
        total = content_length(headers)
        framed = total is not None or "transfer-encoding" in headers
        announced = ContentHeaders(0, total, total, etag, framed=framed)
    if announced.total is not None and announced.total > LARGEST_OBJECT:
        raise Malformed(f"{wanted.what} is said to have {announced.total} bytes")
    if wanted.etag and etag and _strong(etag) != _strong(wanted.etag):
        raise Changed(f"{wanted.what} has other content than before", by_etag=True)
    return announced


def content_range(value: str | None) -> ContentRange | None:
    """Parse ``bytes 0-99/200`` or ``bytes 0-99/*``; None if it is neither."""
    match = _SPAN.fullmatch((value or "").strip())
    if match is None:
        return None
    start, stop = int(match[1]), int(match[2]) + 1
    total = None if match[3] == "*" else int(match[3])
    if start >= stop or (total is not None and stop > total):
        return None
    return ContentRange(start, stop, total)


def unsatisfied_total(value: str | None) -> int | None:
    """Return the total of a 416's ``bytes */200``; None if it is not stated."""
    match = _NO_SPAN.fullmatch((value or "").strip())
    return int(match[1]) if match else None


def content_length(headers: Headers) -> int | None:
    """Return ``Content-Length`` if it is valid (with a ``Transfer-Encoding`` it is not)."""
    value = headers.get("content-length", "").strip()
    if "transfer-encoding" in headers or not re.fullmatch(r"\d{1,19}", value, re.ASCII):
        return None
    return int(value)


def _check_kind(headers: Headers, wanted: RangeRequest) -> None:
    encoding = headers.get("content-encoding", "").strip().lower()
    if encoding not in ("", "identity"):
        raise Malformed(f"{wanted.what} came encoded, although it was asked for as it is")
    kind, own = headers.get("content-type", "").lower(), wanted.mime_type.lower()
    if kind.startswith("text/html") and "html" not in own:
        raise Malformed(f"a web page came in place of {wanted.what}")
    if own.startswith(_MEDIA) and re.match(r"(application|text)/([\w.-]+\+)?(json|xml)\b", kind):
        raise Malformed(f"a message came in place of {wanted.what}")


def _part(headers: Headers, wanted: RangeRequest, etag: str) -> ContentHeaders:
    span = content_range(headers.get("content-range"))
    if span is None or span.start != wanted.start:
        raise Malformed(f"another part of {wanted.what} came than was asked for")
    if wanted.stop is not None and span.stop > wanted.stop:
        raise Malformed(f"more of {wanted.what} came than was asked for")
    length = content_length(headers)
    if length is not None and length != span.stop - span.start:
        raise Malformed(f"the part of {wanted.what} that came has another length than it says")
    return ContentHeaders(span.start, span.stop, span.total, etag, is_partial=True)


def _nothing(headers: Headers, wanted: RangeRequest, etag: str) -> ContentHeaders:
    """A 416: the object ends before the requested range. S3 may not say where."""
    total = unsatisfied_total(headers.get("content-range"))
    if total is None and wanted.start == wanted.size == 0:
        total = 0
    if total is None or total > wanted.start:
        raise Malformed(f"the service cannot give a part of {wanted.what}, and does not say why")
    return ContentHeaders(wanted.start, wanted.start, total, etag)


def _strong(etag: str) -> str:
    return etag.removeprefix("W/")
