"""The client of the storage service: regions, searches, records, content, restore.

Used by discovery, the reader and the commands. Errors are those of :mod:`phonofs.errors`.
"""

import logging
import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any, TypeVar

import httpx
import trio

from phonofs.errors import (
    Gone,
    Malformed,
    OffsetRefused,
    Refused,
    Unavailable,
)
from phonofs.model import Page, Query, Record
from phonofs.priority import Priority
from phonofs.service.auth import TokenProvider
from phonofs.service.backoff import pause_s, retryable
from phonofs.service.content import Body, ContentFetcher
from phonofs.service.content_headers import RangeRequest
from phonofs.service.errors_map import check
from phonofs.service.record_limits import LARGEST_RECORD, most_values
from phonofs.service.records import parse_page, parse_record
from phonofs.service.search_pages import SearchPages, refused_at
from phonofs.service.session import Transport, new_request
from phonofs.service.tolerant_json import decode, weigh
from phonofs.units import Rate

log = logging.getLogger(__name__)

KNOWN_REGIONS = ("us-west", "us-east", "uk", "ap", "ca", "eu")
"""Each of them lists the regions with the customer's data (developer guide; ``eu``: users)."""

FAILURES_OF_AN_OFFSET = 4
"""After this many responses with status 500, an offset counts as refused: some search engines
respond so beyond their window."""

LARGEST_RECORD_ANSWER = 2 * LARGEST_RECORD
LARGEST_REGIONS_ANSWER = 1 << 16

MOST_REPORTS = 1000
"""Rejected records that are logged, each once."""

_Result = TypeVar("_Result")


class Client:
    """Sends requests to the service, and retries them.

    Owns what was learned of it: how content is delivered (:class:`ContentFetcher`), which pages
    each region gives (:class:`SearchPages`), and which rejected records were logged.
    """

    def __init__(
        self,
        transport: Transport,
        tokens: TokenProvider,
        *,
        read_deadline_s: float = 60.0,
        delivery_methods: Mapping[str, str] | None = None,
    ) -> None:
        """``delivery_methods`` are those of an earlier run."""
        self._transport = transport
        self._tokens = tokens
        self._deadline_s = read_deadline_s
        self._contents = ContentFetcher(transport, tokens, delivery_methods or {})
        self._pages = SearchPages(transport, tokens)
        self._reported: set[str] = set()

    @property
    def delivery_methods(self) -> dict[str, str]:
        """The delivery method of each region in which it is known, to be remembered."""
        return self._contents.methods.all()

    def delivery_method(self, region: str) -> str:
        """``range``, ``presign``, ``redirect``, ``stream``, or '' if it is not known yet."""
        return self._contents.methods.get(region) or ""

    def failed_methods(self, region: str) -> dict[str, str]:
        """Delivery methods that failed in a region, and why; another one is used meanwhile."""
        return self._contents.methods.failed().get(region, {})

    def seekable(self, region: str) -> bool | None:
        """Whether content can start in the middle of an object; None while that is not known."""
        return self._contents.methods.seekable(region)

    async def regions(self) -> list[str]:
        """Return the regions with this customer's data.

        Retries on Unavailable until ``read_deadline``; raises the error of the last try.
        """
        return await self._retry("the regions", self._regions)

    async def search(
        self,
        region: str,
        query: Query,
        page_key: int = 0,
        limit: int = 100,
        *,
        urgent: bool | Priority = True,
    ) -> Page:
        """Return the page of results at offset ``page_key``, with at most ``limit`` records.

        A page may be shorter than ``limit``; the next one begins after its last record. A record
        that is too large is a page of its own and is rejected. Retries on Unavailable until
        ``read_deadline``.

        Raises OffsetRefused if the service answers at offset 0 but not at ``page_key``.
        """
        body = await self.search_text(region, query, page_key, limit, urgent=urgent)
        return self.read_page(body, region)

    async def search_text(
        self, region: str, query: Query, page_key: int, limit: int, *, urgent: bool | Priority
    ) -> bytes:
        """Return the unparsed response that :meth:`search` and :meth:`read_page` parse."""
        failures = 0

        async def once() -> bytes:
            nonlocal failures
            response, body = await self._pages.get(region, query, page_key, limit, urgent)
            if response.status_code == 500:
                failures += 1
                if page_key and failures >= FAILURES_OF_AN_OFFSET and self._pages.answered(region):
                    raise OffsetRefused(refused_at(region, page_key, response))
            check(response, body, f"a search in {region}")
            return body

        return await self._retry(f"a search in {region}", once)

    def read_page(self, body: bytes, region: str) -> Page:
        """Parse the response to a search. Raises Malformed.

        Each rejected record is logged once, however often it comes.
        """
        page = parse_page(body, region)
        for sentence in page.rejected:
            if sentence not in self._reported and len(self._reported) < MOST_REPORTS:
                self._reported.add(sentence)
                log.warning("%s", sentence)
        return page

    async def record(self, region: str, id: str) -> Record:
        """Return an object's record. Raises Gone if there is no such object (any more)."""

        async def once() -> Record:
            request = new_request("record", self._transport.url(region, "objects", id))
            response, body = await self._ask(request, LARGEST_RECORD_ANSWER)
            check(response, body, f"object {id}", of_object=True)
            weigh(body, most_values(1), f"object {id}")
            record = parse_record(body, region)
            if record.id != id:
                raise Malformed(f"the service answers object {id} with another one")
            return record

        return await self._retry(f"object {id}", once)

    async def restore(self, region: str, id: str, days: int) -> None:
        """Request that an archived object be restored for ``days`` (1 to 10) days.

        That takes up to 24 hours. Raises Refused if the key may not restore objects, Gone if
        there is no such object.
        """
        request = new_request(
            "restore",
            self._transport.url(region, "objects", id, "restore"),
            "POST",
            headers={"Content-Type": "application/json"},
            content=b'{"expirationDays": %d}' % max(1, min(days, 10)),
        )
        response, body = await self._ask(request, LARGEST_RECORD_ANSWER)
        if response.status_code == 403:
            raise Refused(f"the API key may not restore object {id}: it needs edit access")
        check(response, body, f"object {id}", of_object=True)

    @asynccontextmanager
    async def content(
        self,
        record: Record,
        start: int,
        stop: int | None,
        *,
        urgent: bool | Priority = True,
        etag: str | None = None,
    ) -> AsyncIterator[Body]:
        """Request the bytes ``[start, stop)`` of an object (``stop`` None: to its end).

        ``etag`` is that of bytes already present; the rest is returned only if the content is
        still the same. Not retried, except that an expired token or presigned URL is renewed once.

        Raises Archived, Refused, Gone, Changed, Unavailable, Malformed.
        """
        if start < 0 or (stop is not None and stop <= start):
            raise ValueError("an empty part of an object cannot be asked for")
        request = _range_request(record, start, stop, urgent, etag)
        async with aclosing(await self._contents.open(request)) as body:
            yield body

    @asynccontextmanager
    async def whole_content(
        self, record: Record, *, urgent: bool | Priority = True
    ) -> AsyncIterator[Body]:
        """Request all of an object without a range, which shows how long it is.

        Not retried; raises the errors of :meth:`content`.
        """
        request = _range_request(record, 0, None, urgent)
        async with aclosing(await self._contents.open_whole(request)) as body:
            yield body

    def paused_s(self) -> float:
        """Return for how many more seconds the service wants no requests; 0 if it takes them."""
        return self._transport.gates.longest_s

    @property
    def max_rate(self) -> Rate | None:
        """How often requests are sent at most; None: as often as is needed."""
        return self._transport.slots.rate.most

    def set_max_rate(self, rate: Rate | None) -> None:
        """Send requests no more often than this from now on."""
        self._transport.slots.set_rate(rate)

    def statistics(self) -> dict[str, Any]:
        """Return the transport's statistics, and ``token``, ``ways`` and ``failed_ways``.

        ``ways`` has the delivery method of each region, ``failed_ways`` the methods that failed
        in each region, and why.
        """
        return {
            **self._transport.statistics(),
            "token": self._tokens.statistics(),
            "ways": self.delivery_methods,
            "failed_ways": self._contents.methods.failed(),
        }

    async def _regions(self) -> list[str]:
        """Ask the known regions one after another until one answers."""
        error: Exception = Malformed("the service names no regions")
        for region in KNOWN_REGIONS:
            request = new_request("regions", self._transport.url(region, "regions"))
            try:
                response, body = await self._ask(request, LARGEST_REGIONS_ANSWER)
                check(response, body, "the regions")
                return parse_regions(body)
            except (Malformed, Gone) as other:
                error = other
        raise error

    async def _ask(self, request: httpx.Request, limit_bytes: int) -> tuple[httpx.Response, bytes]:
        return await self._transport.request(request, limit_bytes=limit_bytes, auth=self._tokens)

    async def _retry(self, what: str, once: Callable[[], Awaitable[_Result]]) -> _Result:
        """Retry until it works or ``read_deadline`` has passed; the pauses are those of backoff."""
        deadline = trio.current_time() + self._deadline_s
        error = Unavailable(f"the service did not answer {what} within {self._deadline_s:g} s")
        attempt = 0
        with trio.move_on_at(deadline):
            while True:
                try:
                    return await once()
                except Unavailable as failed:
                    error = failed
                wait_s = pause_s(attempt, random.random(), error.retry_after_s)  # noqa: S311
                if not retryable(error) or trio.current_time() + wait_s >= deadline:
                    break
                log.debug("%s: %s; trying again in %.1f s", what, error, wait_s)
                await trio.sleep(wait_s)
                attempt += 1
        raise error


def _range_request(
    record: Record,
    start: int,
    stop: int | None,
    urgent: bool | Priority,
    etag: str | None = None,
) -> RangeRequest:
    return RangeRequest(
        f"object {record.id}",
        start,
        stop,
        etag,
        record.mime_type,
        record.size,
        record.region,
        record.id,
        record.fingerprint,
        urgent,
    )


def parse_regions(body: bytes) -> list[str]:
    """Parse a list of regions, either alone or in a field. Raises Malformed."""
    value = decode(body, "the regions")
    if isinstance(value, dict):
        value = value.get("regions", value.get("content"))
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise Malformed("the service names no regions")
    if not all(re.fullmatch(r"[a-z0-9][a-z0-9-]{0,39}", name) for name in value):
        raise Malformed("the service names a region that cannot be one")
    return list(dict.fromkeys(value))
