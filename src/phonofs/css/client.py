"""The service as the rest of the house sees it: regions, searches, records, content, restore.

Used by the catalogue, the reader and the commands. Errors are those of :mod:`phonofs.errors`.
"""

import logging
import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import trio

from phonofs.css.answers import failure
from phonofs.css.api import Api
from phonofs.css.auth import Keeper
from phonofs.css.content import Body, Contents, Wish
from phonofs.css.fiql import fiql
from phonofs.css.lenient import decode
from phonofs.css.promises import Wanted
from phonofs.css.records import parse_page, parse_record
from phonofs.css.retry import pause_for, retryable
from phonofs.css.transport import Answer, Ask, Transport
from phonofs.errors import Gone, Malformed, Refused, Unavailable
from phonofs.model import Page, Query, Record
from phonofs.urgency import Urgency

log = logging.getLogger(__name__)

KNOWN_REGIONS = ("us-west", "us-east", "uk", "ap", "ca", "eu")
"""Any of them answers which regions hold the customer's data (developer guide; ``eu``: users)."""

LIMITS = (100, 50, 25, 10)
"""What to fall back to when the service takes no larger page; 100 is the documented most."""

LARGEST_PAGE = 1 << 26
"""64 MiB: a thousand records of 64 KB; the examples have 1 to 3 KB."""

LARGEST_RECORD_ANSWER = 1 << 20
LARGEST_REGIONS_ANSWER = 1 << 16

MOST_REPORTS = 1000
"""Records set aside that are said in the log, each once."""

_Result = TypeVar("_Result")


class Client:
    """Asks the service.

    Owns what was learned of it: the ways of content (:class:`Contents`), the largest page that
    each region takes, and which odd records were reported.
    """

    def __init__(
        self,
        transport: Transport,
        keeper: Keeper,
        api_url: str,
        *,
        read_deadline_s: float = 60.0,
        ways: Mapping[str, str] | None = None,
    ) -> None:
        """``ways`` is what :attr:`ways` was in an earlier run."""
        self._transport = transport
        self._api = Api(transport, keeper, api_url)
        self._keeper = keeper
        self._deadline_s = read_deadline_s
        self._contents = Contents(self._api, ways or {})
        self._limits: dict[str, int] = {}
        self._reported: set[str] = set()

    @property
    def ways(self) -> dict[str, str]:
        """The way of content of each region where it is known, to be remembered."""
        return dict(self._contents.ways)

    def content_way(self, region: str) -> str:
        """``range``, ``presign``, ``redirect``, ``stream``, or '' while it is not known."""
        return self._contents.ways.get(region, "")

    def failed_ways(self, region: str) -> dict[str, str]:
        """The ways that failed in a region, and why; content comes in another one meanwhile."""
        return self._contents.failed.get(region, {})

    def seekable(self, region: str) -> bool | None:
        """Whether content can start in the middle of an object; None while that is not known."""
        return self._contents.seekable(region)

    async def regions(self) -> list[str]:
        """The regions that hold this customer's data.

        Retries on Unavailable until ``read_deadline``; raises what the last try did.
        """
        return await self._persist("the regions", self._regions)

    async def search(
        self,
        region: str,
        query: Query,
        page_key: int = 0,
        limit: int = 100,
        *,
        urgent: bool | Urgency = True,
    ) -> Page:
        """The page of results that begins at offset ``page_key``; at most ``limit`` records.

        A page may be shorter than asked for: go on from what came. Retries on Unavailable until
        ``read_deadline``.
        """
        body = await self.search_text(region, query, page_key, limit, urgent=urgent)
        return self.read_page(body, region)

    async def search_text(
        self,
        region: str,
        query: Query,
        page_key: int = 0,
        limit: int = 100,
        *,
        urgent: bool | Urgency = True,
    ) -> bytes:
        """What :meth:`search` reads: the answer as it came, for :meth:`read_page`."""

        async def once() -> bytes:
            return await self._search(region, query, page_key, limit, urgent)

        return await self._persist(f"a search in {region}", once)

    def read_page(self, body: bytes, region: str) -> Page:
        """The page in the answer to a search. Raises Malformed.

        Each record that was set aside is said once, however often it comes.
        """
        page = parse_page(body, region)
        for sentence in page.rejected:
            if sentence not in self._reported and len(self._reported) < MOST_REPORTS:
                self._reported.add(sentence)
                log.warning("%s", sentence)
        return page

    async def record(self, region: str, id: str) -> Record:
        """One object's record. Raises Gone where there is no such object (any more)."""

        async def once() -> Record:
            ask = Ask("record", self._api.url(region, "objects", id))
            answer = await self._api.request(ask, limit_bytes=LARGEST_RECORD_ANSWER)
            record = parse_record(_successful(answer, f"object {id}", of_object=True), region)
            if record.id != id:
                raise Malformed(f"the service answers object {id} with another one")
            return record

        return await self._persist(f"object {id}", once)

    async def restore(self, region: str, id: str, days: int) -> None:
        """Ask for an archived object back, for ``days`` (1 to 10) days once it is there.

        Takes up to 24 hours. Raises Refused where the key may not, Gone where there is none.
        """
        ask = Ask(
            "restore",
            self._api.url(region, "objects", id, "restore"),
            "POST",
            {"Content-Type": "application/json"},
            b'{"expirationDays": %d}' % max(1, min(days, 10)),
        )
        answer = await self._api.request(ask, limit_bytes=LARGEST_RECORD_ANSWER)
        if answer.status == 403:
            raise Refused(f"the API key may not restore object {id}: it needs edit access")
        _successful(answer, f"object {id}", of_object=True)

    @asynccontextmanager
    async def content(
        self,
        record: Record,
        start: int,
        stop: int | None,
        *,
        urgent: bool | Urgency = True,
        etag: str | None = None,
    ) -> AsyncIterator[Body]:
        """The bytes ``[start, stop)`` of an object (``stop`` None: to the end), on their way.

        ``etag`` is that of bytes already there: the rest comes only if it is still of the same
        content. One try (a 401 and a presigned URL that ran out are renewed once).

        Raises Archived, Refused, Gone, Changed, Unavailable, Malformed.
        """
        if start < 0 or (stop is not None and stop <= start):
            raise ValueError("an empty part of an object cannot be asked for")
        wanted = Wanted(f"object {record.id}", start, stop, etag, record.mime_type, record.size)
        body = await self._contents.open(_wish(record, wanted, urgent))
        try:
            yield body
        finally:
            await body.aclose()

    @asynccontextmanager
    async def whole_content(
        self, record: Record, *, urgent: bool | Urgency = True
    ) -> AsyncIterator[Body]:
        """All of an object, asked for without a range: to see how long it is.

        One try; the errors are those of :meth:`content`.
        """
        wanted = Wanted(f"object {record.id}", 0, None, None, record.mime_type, record.size)
        body = await self._contents.open_whole(_wish(record, wanted, urgent))
        try:
            yield body
        finally:
            await body.aclose()

    def statistics(self) -> dict[str, Any]:
        """That of the transport, the keeper's under ``token``, and ``ways`` by region.

        ``failed_ways`` has for each region the ways that failed, and why.
        """
        return {
            **self._transport.statistics(),
            "token": self._keeper.statistics(),
            "ways": self.ways,
            "failed_ways": self._contents.failed,
        }

    async def _regions(self) -> list[str]:
        """Ask the known regions in turn; what one cannot answer, the next may."""
        error: Exception = Malformed("the service names no regions")
        for region in KNOWN_REGIONS:
            ask = Ask("regions", self._api.url(region, "regions"))
            try:
                answer = await self._api.request(ask, limit_bytes=LARGEST_REGIONS_ANSWER)
                return parse_regions(_successful(answer, "the regions"))
            except (Malformed, Gone) as other:
                error = other
        raise error

    async def _search(
        self, region: str, query: Query, page_key: int, limit: int, urgent: bool | Urgency
    ) -> bytes:
        known = self._limits.get(region, limit)
        for size in (min(limit, known), *(lower for lower in LIMITS if lower < min(limit, known))):
            ask = Ask("search", self._api.url(region, "objects", query=_search_query(
                query, page_key, size)))  # fmt: skip
            answer = await self._api.request(ask, limit_bytes=LARGEST_PAGE, urgent=urgent)
            if answer.status != 400:
                body = _successful(answer, f"a search in {region}")
                if size < min(limit, known):
                    log.info("region %s takes pages of at most %d records", region, size)
                    self._limits[region] = size
                return body
        raise failure(400, f"a search in {region}")

    async def _persist(self, what: str, once: Callable[[], Awaitable[_Result]]) -> _Result:
        """Try until it works, for ``read_deadline`` at most; the pauses are those of retry.py."""
        deadline = trio.current_time() + self._deadline_s
        error = Unavailable(f"the service did not answer {what} within {self._deadline_s:g} s")
        attempt = 0
        with trio.move_on_at(deadline):
            while True:
                try:
                    return await once()
                except Unavailable as failed:
                    error = failed
                pause_s = pause_for(error, attempt, random.random())  # noqa: S311
                if not retryable(error) or trio.current_time() + pause_s >= deadline:
                    break
                log.debug("%s: %s; trying again in %.1f s", what, error, pause_s)
                await trio.sleep(pause_s)
                attempt += 1
        raise error


def _wish(record: Record, wanted: Wanted, urgent: bool | Urgency) -> Wish:
    return Wish(record.region, record.id, record.size, wanted, urgent, record.fingerprint)


def parse_regions(body: bytes) -> list[str]:
    """The regions in an answer: a list of names, bare or in a field. Raises Malformed."""
    value = decode(body, "the regions")
    if isinstance(value, dict):
        value = value.get("regions", value.get("content"))
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise Malformed("the service names no regions")
    if not all(re.fullmatch(r"[a-z0-9][a-z0-9-]{0,39}", name) for name in value):
        raise Malformed("the service names a region that cannot be one")
    return list(dict.fromkeys(value))


def _search_query(query: Query, page_key: int, limit: int) -> dict[str, str | int]:
    return {
        "filter": fiql(query),
        "sortField": query.sort,
        "sortDirection": "DESC" if query.descending else "ASC",
        "pageKey": page_key,
        "limit": limit,
    }


def _successful(answer: Answer, what: str, *, of_object: bool = False) -> bytes:
    if 200 <= answer.status < 300:
        return answer.body
    raise failure(
        answer.status, what, body=answer.body, pause_s=answer.pause_s, of_object=of_object
    )
