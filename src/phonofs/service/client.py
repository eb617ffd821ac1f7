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
    TooLarge,
    Unavailable,
)
from phonofs.model import Page, Query, Record
from phonofs.priority import Priority
from phonofs.service.auth import TokenProvider
from phonofs.service.backoff import pause_s, retryable
from phonofs.service.content import Body, ContentFetcher
from phonofs.service.content_headers import RangeRequest
from phonofs.service.errors_map import failure
from phonofs.service.fiql import fiql
from phonofs.service.record_limits import LARGEST_RECORD, largest_page, most_values
from phonofs.service.records import parse_page, parse_record
from phonofs.service.session import Transport, new_request
from phonofs.service.tolerant_json import decode, weigh
from phonofs.units import Rate

log = logging.getLogger(__name__)

KNOWN_REGIONS = ("us-west", "us-east", "uk", "ap", "ca", "eu")
"""Each of them lists the regions with the customer's data (developer guide; ``eu``: users)."""

LIMITS = (100, 50, 25, 10)
"""Page sizes to try if the service refuses larger ones; 100 is the documented maximum."""

LIMIT_LIFE_S = 3600.0
"""How long a learned limit is used: the refusal may have had another reason."""

TOO_MUCH = frozenset({400, 413, 416, 422})
"""Statuses of a search whose page is too large or whose offset is too far."""

TOO_FAR = TOO_MUCH | {404}
"""Statuses of a search whose offset is too far."""

FAILURES_OF_AN_OFFSET = 4
"""After this many responses with status 500, an offset counts as refused: some search engines
respond so beyond their window."""

LARGEST_RECORD_ANSWER = 2 * LARGEST_RECORD
LARGEST_REGIONS_ANSWER = 1 << 16

MOST_REPORTS = 1000
"""Rejected records that are logged, each once."""

_RECORD_FOLLOWS = re.compile(rb'\s*(?:\[\s*)?\{(?:[^][{}]*,)?\s*"content"\s*:\s*\[\s*\{')
"""How a page with a record begins.

No two runs of white space may be adjacent in it: matching white space alone would take
quadratic time.
"""

_UNREADABLE = b'{"content": [null], "lastPage": false}'
"""Replaces a page of one record that cannot be read."""

_Result = TypeVar("_Result")


class Client:
    """Sends requests to the service, and retries them.

    Owns what was learned of it: how content is delivered (:class:`ContentFetcher`), the largest
    page that each region accepts, and which rejected records were logged.

    _limits    for each region, the learned limit and until when it is used (trio's clock)
    _answered  for each region, the largest limit that was accepted at offset 0
    """

    def __init__(
        self,
        transport: Transport,
        keeper: TokenProvider,
        *,
        read_deadline_s: float = 60.0,
        delivery_methods: Mapping[str, str] | None = None,
    ) -> None:
        """``delivery_methods`` are those of an earlier run."""
        self._transport = transport
        self._keeper = keeper
        self._deadline_s = read_deadline_s
        self._contents = ContentFetcher(transport, keeper, delivery_methods or {})
        self._limits: dict[str, tuple[int, float]] = {}
        self._answered: dict[str, int] = {}
        self._learning = trio.Lock()
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
            response, body = await self._search(region, query, page_key, limit, urgent)
            if response.status_code == 500:
                failures += 1
                if page_key and failures >= FAILURES_OF_AN_OFFSET and region in self._answered:
                    raise OffsetRefused(_refused_at(region, page_key, response))
            _check(response, body, f"a search in {region}")
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
            response, body = await self._transport.request(
                request, limit_bytes=LARGEST_RECORD_ANSWER, auth=self._keeper
            )
            _check(response, body, f"object {id}", of_object=True)
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
        response, body = await self._transport.request(
            request, limit_bytes=LARGEST_RECORD_ANSWER, auth=self._keeper
        )
        if response.status_code == 403:
            raise Refused(f"the API key may not restore object {id}: it needs edit access")
        _check(response, body, f"object {id}", of_object=True)

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
            "token": self._keeper.statistics(),
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
                _check(response, body, "the regions")
                return parse_regions(body)
            except (Malformed, Gone) as other:
                error = other
        raise error

    async def _search(
        self, region: str, query: Query, page_key: int, limit: int, urgent: bool | Priority
    ) -> tuple[httpx.Response, bytes]:
        """Try a search once, with the largest page that the region accepts.

        Return the response, whatever its status, and its body. Raises OffsetRefused.
        """
        size = self._limit(region, limit)
        response, body = await self._page(region, query, page_key, size, urgent)
        if response.status_code in TOO_MUCH and page_key and self._answered.get(region, 0) < size:
            await self._learn(region, query, size)
            if self._limit(region, limit) < size:
                return await self._search(region, query, page_key, limit, urgent)
        if response.status_code in TOO_FAR and page_key:
            raise OffsetRefused(_refused_at(region, page_key, response))
        if response.status_code in TOO_MUCH:
            response, body, size = await self._smaller(region, query, response, size, urgent)
        if response.is_success and not page_key:
            self._answered[region] = max(self._answered.get(region, 0), size)
        return response, body

    def _limit(self, region: str, limit: int) -> int:
        """Return the limit to request; a learned one is used for an hour."""
        learned, until = self._limits.get(region, (limit, 0.0))
        return min(limit, learned) if trio.current_time() < until else limit

    async def _learn(self, region: str, query: Query, limit: int) -> None:
        """Determine at offset 0 how large a page may be; once for all tasks that need it.

        A refusal at another offset does not show it: the offset may be the reason.
        """
        async with self._learning:
            if self._answered.get(region, 0) < self._limit(region, limit):
                response, body = await self._search(region, query, 0, limit, True)
                _check(response, body, f"a search in {region}")

    async def _smaller(
        self,
        region: str,
        query: Query,
        response: httpx.Response,
        refused: int,
        urgent: bool | Priority,
    ) -> tuple[httpx.Response, bytes, int]:
        """Return the first page in the largest accepted size, and remember that size.

        ``response`` is that to a search for ``refused`` records.
        """
        for size in LIMITS:
            if size < refused:
                response, body = await self._page(region, query, 0, size, urgent)
                if response.status_code not in TOO_MUCH:
                    log.info("region %s takes pages of at most %d records", region, size)
                    self._limits[region] = size, trio.current_time() + LIMIT_LIFE_S
                    return response, body, size
        raise failure(response, f"a search in {region}")

    async def _page(
        self, region: str, query: Query, page_key: int, limit: int, urgent: bool | Priority
    ) -> tuple[httpx.Response, bytes]:
        """Return the response, whatever its status, and its body.

        One record may make its page too large to be read. Then smaller pages are requested, to
        read the others; a record that is too large by itself is rejected.
        """
        for size in dict.fromkeys((limit, max(limit // 10, 1), 1)):
            asked = _search_query(query, page_key, size)
            request = new_request("search", self._transport.url(region, "objects", query=asked))
            try:
                response, body = await self._ask(request, largest_page(size), urgent)
                if response.is_success:
                    weigh(body, most_values(size), f"a search in {region}")
            except TooLarge as error:
                too_large = error
            else:
                return response, body
        if not _RECORD_FOLLOWS.match(too_large.start):
            raise too_large
        log.warning(
            "a record in %s was set aside: it is larger, or nested deeper, than a record may be",
            region,
        )
        return httpx.Response(200), _UNREADABLE

    async def _ask(
        self, request: httpx.Request, limit_bytes: int, urgent: bool | Priority = True
    ) -> tuple[httpx.Response, bytes]:
        return await self._transport.request(
            request, limit_bytes=limit_bytes, urgent=urgent, auth=self._keeper
        )

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


def _refused_at(region: str, page_key: int, response: httpx.Response) -> str:
    status = response.status_code
    return f"the service answers a search in {region} at offset {page_key} with status {status}"


def _search_query(query: Query, page_key: int, limit: int) -> dict[str, str | int]:
    return {
        "filter": fiql(query),
        "sortField": query.sort,
        "sortDirection": "DESC" if query.descending else "ASC",
        "pageKey": page_key,
        "limit": limit,
    }


def _check(response: httpx.Response, body: bytes, what: str, *, of_object: bool = False) -> None:
    if not response.is_success:
        raise failure(response, what, body=body, of_object=of_object)
