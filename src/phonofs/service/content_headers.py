"""What an answer with content promises, checked against what was asked for. Pure."""

import re
from dataclasses import dataclass, replace

from phonofs.errors import Changed, Malformed
from phonofs.service.records import LARGEST_OBJECT
from phonofs.service.responses import Headers, content_length, content_range, unsatisfied_total

_MEDIA = ("audio/", "video/", "image/")
"""Kinds of content that no JSON or XML can be, whatever the label of others is worth."""


@dataclass(frozen=True, slots=True)
class RangeRequest:
    """Bytes ``[start, stop)`` of an object (``stop`` None: to its end), ``what`` for messages.

    ``etag`` is that of the bytes one has already, ``mime_type`` and ``size`` the record's.
    """

    what: str
    start: int
    stop: int | None
    etag: str | None = None
    mime_type: str = ""
    size: int = 0

    def headers(self) -> dict[str, str]:
        """The headers that ask for it (a weak ETag may not stand in ``If-Range``)."""
        last = "" if self.stop is None else self.stop - 1
        headers = {"Range": f"bytes={self.start}-{last}"}
        if self.etag and re.fullmatch(r"[!-~]{1,200}", self.etag) and self.etag[:2] != "W/":
            headers["If-Range"] = self.etag
        return headers

    def whole(self) -> "RangeRequest":
        """The same object from its first byte to its last."""
        return replace(self, start=0, stop=None)

    def is_whole(self, total: int | None) -> bool:
        """Whether an object of ``total`` bytes is wanted from its first to its last."""
        return self.start == 0 and (self.stop is None or (total is not None and total <= self.stop))


@dataclass(frozen=True, slots=True)
class ContentHeaders:
    """The bytes ``[start, stop)`` that will come, of ``total``; None where it is not said.

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
    """What a 200, 206 or 416 promises; a 200 with a ``Content-Range`` is the part it names.

    Raises Malformed where it is not what was asked for, Changed where the ETag is another one.
    """
    _check_kind(headers, wanted)
    etag = headers.get("etag", "").strip()
    if status == 206 or (status == 200 and "content-range" in headers):
        promise = _part(headers, wanted, etag)
    elif status == 416:
        promise = _nothing(headers, wanted, etag)
    else:
        total = content_length(headers)
        framed = total is not None or "transfer-encoding" in headers
        promise = ContentHeaders(0, total, total, etag, framed=framed)
    if promise.total is not None and promise.total > LARGEST_OBJECT:
        raise Malformed(f"{wanted.what} is said to have {promise.total} bytes")
    if wanted.etag and etag and _strong(etag) != _strong(wanted.etag):
        raise Changed(f"{wanted.what} has other content than before", by_etag=True)
    return promise


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
    """A 416: the object ends before what was asked for. S3 may not say where."""
    total = unsatisfied_total(headers.get("content-range"))
    if total is None and wanted.start == wanted.size == 0:
        total = 0
    if total is None or total > wanted.start:
        raise Malformed(f"the service cannot give a part of {wanted.what}, and does not say why")
    return ContentHeaders(wanted.start, wanted.start, total, etag)


def _strong(etag: str) -> str:
    return etag.removeprefix("W/")
