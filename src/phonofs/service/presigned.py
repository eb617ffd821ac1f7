"""Presigned URLs: how the service returns them, how long they live, and their cache.

A presigned URL leads to an object's content in an object store, without a token. Pure, apart
from the locks of the cache.
"""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import parse_qsl, urlsplit

import trio
from cachetools import TLRUCache

from phonofs.errors import Malformed
from phonofs.http_dates import http_date_s
from phonofs.service.tolerant_json import decode

LARGEST_ANSWER = 1 << 16
"""64 KiB: a URL of 8 KB in any wrapping. A larger response is content, not a URL."""

DEFAULT_LIFE_S = 1800.0
"""Lifetime of a URL that does not state it (support article on CSS downloads)."""

MARGIN = 0.1
LARGEST_MARGIN_S = 60.0
"""A URL is not used in the last tenth of its lifetime, at most a minute, so that a request that
is sent in time also arrives in time."""

MOST_LINKS = 4096
"""About 1 KB each."""

Key = tuple[str, str, str]
"""Region, id and fingerprint of an object."""

_FIELDS = ("url", "presignedUrl", "presignUrl", "preSignedUrl", "presigned_url", "signedUrl")


def parse_presigned(body: bytes) -> str | None:
    """Return the URL in a response: in a field of an object, as a JSON string, or as bare text."""
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
    """Return for how many seconds from now a URL may be used; None if it does not say.

    Read from ``X-Amz-Date`` and ``X-Amz-Expires``, or from ``Expires`` (epoch seconds). The
    current time is the ``Date`` of the response that contained the URL, or else our clock.
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


@dataclass(frozen=True, slots=True)
class PresignedUrl:
    """A URL that may be used until ``until`` (trio's clock)."""

    url: str = field(repr=False)
    until: float


class PresignedUrlCache:
    """The presigned URLs of objects, at most :data:`MOST_LINKS`; the least recently used go first.

    Owns them, and a lock for each object whose URL is being requested: only one task requests it.
    """

    def __init__(self) -> None:
        self._links: TLRUCache[Key, PresignedUrl] = TLRUCache(
            MOST_LINKS, ttu=lambda _key, link, _now: link.until, timer=trio.current_time
        )
        self._locks: dict[Key, trio.Lock] = {}

    def get(self, key: Key) -> PresignedUrl | None:
        """Return the URL of an object, if there is one that has not expired."""
        return self._links.get(key)

    def put(self, key: Key, link: PresignedUrl) -> None:
        """Cache a URL."""
        self._links[key] = link

    def drop(self, key: Key, link: PresignedUrl) -> None:
        """Drop a URL that no longer works, unless another has replaced it."""
        if self._links.get(key) is link:
            del self._links[key]

    @asynccontextmanager
    async def lock(self, key: Key) -> AsyncIterator[None]:
        """Let one task at a time request the URL of an object."""
        lock = self._locks.setdefault(key, trio.Lock())
        async with lock:
            try:
                yield
            finally:
                if not lock.statistics().tasks_waiting:
                    self._locks.pop(key, None)


def _is_url(text: str) -> bool:
    return bool(re.fullmatch(r"https?://[!-~]+", text))


def _number(text: str | None) -> float | None:
    return float(text) if text and re.fullmatch(r"\d{1,11}", text, re.ASCII) else None


def _amz_date_s(text: str) -> float | None:
    try:
        return datetime.strptime(text, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None
