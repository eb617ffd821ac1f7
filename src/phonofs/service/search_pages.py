"""Asks for pages of a search; learns how large a page each region gives, and how far offsets reach.

Used by the client, which retries.
"""

import logging
import re

import httpx
import trio

from phonofs.errors import OffsetRefused, TooLarge
from phonofs.model import Query
from phonofs.priority import Priority
from phonofs.service.errors_map import check, failure
from phonofs.service.fiql import fiql
from phonofs.service.record_limits import largest_page, most_values
from phonofs.service.session import Transport, new_request
from phonofs.service.tolerant_json import weigh

log = logging.getLogger(__name__)

LIMITS = (100, 50, 25, 10)
"""Page sizes to try if the service refuses larger ones; 100 is the documented maximum."""

LIMIT_LIFE_S = 3600.0
"""How long a learned limit is used: the refusal may have had another reason."""

TOO_MUCH = frozenset({400, 413, 416, 422})
"""Statuses of a search whose page is too large or whose offset is too far."""

TOO_FAR = TOO_MUCH | {404}
"""Statuses of a search whose offset is too far."""

_RECORD_FOLLOWS = re.compile(rb'\s*(?:\[\s*)?\{(?:[^][{}]*,)?\s*"content"\s*:\s*\[\s*\{')
"""How a page with a record begins.

No two runs of white space may be adjacent in it: matching white space alone would take
quadratic time.
"""

_UNREADABLE = b'{"content": [null], "lastPage": false}'
"""Replaces a page of one record that cannot be read."""


class SearchPages:
    """Requests pages, each in the largest size that its region accepts.

    _limits    for each region, the learned limit and until when it is used (trio's clock)
    _answered  for each region, the largest limit that was accepted at offset 0
    """

    def __init__(self, transport: Transport, auth: httpx.Auth) -> None:
        self._transport = transport
        self._auth = auth
        self._limits: dict[str, tuple[int, float]] = {}
        self._answered: dict[str, int] = {}
        self._learning = trio.Lock()

    def answered(self, region: str) -> bool:
        """Return whether a region has answered a search at offset 0."""
        return region in self._answered

    async def get(
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
                return await self.get(region, query, page_key, limit, urgent)
        if response.status_code in TOO_FAR and page_key:
            raise OffsetRefused(refused_at(region, page_key, response))
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
                response, body = await self.get(region, query, 0, limit, True)
                check(response, body, f"a search in {region}")

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
                response, body = await self._transport.request(
                    request, limit_bytes=largest_page(size), urgent=urgent, auth=self._auth
                )
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


def refused_at(region: str, page_key: int, response: httpx.Response) -> str:
    """Return a sentence for OffsetRefused."""
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
