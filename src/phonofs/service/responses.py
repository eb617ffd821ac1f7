"""What an answer's status and headers mean, in the words of :mod:`phonofs.errors`. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from phonofs.errors import Archived, Gone, Malformed, Refused, ServiceError, Unavailable
from phonofs.service.backoff import retry_after_s, transient

REDIRECTS = frozenset({301, 302, 303, 307, 308})

_SPAN = re.compile(r"bytes[ \t]+(\d{1,19})-(\d{1,19})/(\d{1,19}|\*)", re.ASCII | re.IGNORECASE)
_NO_SPAN = re.compile(r"bytes[ \t]+\*/(\d{1,19})", re.ASCII | re.IGNORECASE)
"""Range units are case-insensitive (RFC 9110, 14.1)."""

Headers = Mapping[str, str]
"""Names in lower case; repeated ones joined by a comma."""


@dataclass(frozen=True, slots=True)
class Span:
    """What a ``Content-Range`` says: bytes ``[start, stop)`` of ``total`` (None: not said)."""

    start: int
    stop: int
    total: int | None


def asked_pause_s(status: int, headers: Headers, now_s: float) -> float | None:
    """The pause before the next try that an answer asks for; ``now_s`` in epoch seconds.

    With a 429 the origin asks all requests for it, with any other status it is this request's.
    """
    if not transient(status):
        return None
    return retry_after_s(headers.get("retry-after"), headers.get("date"), now_s)


def failure(status: int, what: str, *, body: bytes = b"", pause_s: float | None = None,
            of_object: bool = False) -> ServiceError:  # fmt: skip
    """The error that an unsuccessful answer for ``what`` is.

    Only of an object (``of_object``) does 404 mean that it is gone; elsewhere it means that we
    ask at the wrong place.
    """
    if transient(status):
        return Unavailable(f"the service answers {what} with status {status}", pause_s)
    if of_object and status in (403, 409, 400) and _says_archived(body):
        return Archived(f"{what} lies in cold storage and must be restored first")
    if status == 401:
        return Refused(f"the service refuses {what} even with a fresh token")
    if status == 403:
        return Refused(
            f"the API key is not allowed to ask for {what}: the user who made it may lack the role "
            "'Storage API', which the 8x8 Admin Console gives"
        )
    if of_object and status in (404, 410):
        return Gone(f"the service has no {what} any more")
    if status in REDIRECTS:
        return Malformed(f"the service answers {what} with a redirect")
    return Malformed(f"the service answers {what} with status {status}")


def content_range(value: str | None) -> Span | None:
    """The span of ``bytes 0-99/200`` or ``bytes 0-99/*``; None where it is neither."""
    match = _SPAN.fullmatch((value or "").strip())
    if match is None:
        return None
    start, stop = int(match[1]), int(match[2]) + 1
    total = None if match[3] == "*" else int(match[3])
    if start >= stop or (total is not None and stop > total):
        return None
    return Span(start, stop, total)


def unsatisfied_total(value: str | None) -> int | None:
    """The total of a 416's ``bytes */200``; None where it does not say."""
    match = _NO_SPAN.fullmatch((value or "").strip())
    return int(match[1]) if match else None


def content_length(headers: Headers) -> int | None:
    """``Content-Length`` where it holds (it does not beside a ``Transfer-Encoding``)."""
    value = headers.get("content-length", "").strip()
    if "transfer-encoding" in headers or not re.fullmatch(r"\d{1,19}", value, re.ASCII):
        return None
    return int(value)


def _says_archived(body: bytes) -> bool:
    """S3 names it ``InvalidObjectState``; what the service itself says is not documented."""
    text = body[:4096].lower()
    return b"invalidobjectstate" in text or b"archived" in text
