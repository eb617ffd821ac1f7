"""Presigned URLs: how the service hands them over, and how long they live. Pure."""

import re
from datetime import UTC, datetime
from urllib.parse import parse_qsl, urlsplit

from phonofs.errors import Malformed
from phonofs.service.backoff import http_date_s
from phonofs.service.tolerant_json import decode

LARGEST_ANSWER = 1 << 16
"""64 KiB: a URL of 8 KB in any wrapping; whatever is larger is content, not a URL."""

DEFAULT_LIFE_S = 1800.0
"""What such a URL lives where it does not say (support article on CSS downloads)."""

MARGIN = 0.1
LARGEST_MARGIN_S = 60.0
"""A URL is left alone for the last tenth of its life, at most a minute, so that a request that
is sent just in time also arrives in time."""

_FIELDS = ("url", "presignedUrl", "presignUrl", "preSignedUrl", "presigned_url", "signedUrl")


def parse_presigned(body: bytes) -> str | None:
    """The URL in an answer: in an object's field, as a JSON text, or as bare text; else None."""
    if len(body) > LARGEST_ANSWER:
        return None
    try:
        value = decode(body, "a presigned URL")
    except Malformed:
        value = body.decode("utf-8", "replace").strip()
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, dict):
        value = next((value[name] for name in _FIELDS if name in value), None)
    return value.strip() if isinstance(value, str) and _is_url(value.strip()) else None


def life_s(url: str, date: str | None, now_s: float) -> float | None:
    """How many seconds a URL may be used from now on; None where it does not say.

    Read from ``X-Amz-Date`` and ``X-Amz-Expires``, or from ``Expires`` (epoch seconds). The age
    is taken by the clock of the answer that gave it (``date``, its HTTP date), else by ours.
    """
    query = dict(parse_qsl(urlsplit(url).query))
    sent_s = http_date_s(date or "")
    here_s = now_s if sent_s is None else sent_s
    expires_s = _number(query.get("X-Amz-Expires"))
    if expires_s is not None:
        signed_s = _amz_date_s(query.get("X-Amz-Date", ""))
        left_s = expires_s if signed_s is None else signed_s + expires_s - here_s
    else:
        until_s = _number(query.get("Expires"))
        if until_s is None:
            return None
        left_s = until_s - here_s
    return max(0.0, left_s - min(LARGEST_MARGIN_S, abs(left_s) * MARGIN))


def _is_url(text: str) -> bool:
    return bool(re.fullmatch(r"https?://[!-~]+", text))


def _number(text: str | None) -> float | None:
    return float(text) if text and re.fullmatch(r"\d{1,11}", text, re.ASCII) else None


def _amz_date_s(text: str) -> float | None:
    try:
        return datetime.strptime(text, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None
