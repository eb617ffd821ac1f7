"""Requests all pages of a search once, several at a time, and applies each as it arrives.

If a directory is listed for the first time, its pages are prepared before they are stored
(``page_worker``); otherwise they are applied record by record.
"""

import math
import zlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from itertools import groupby
from operator import itemgetter
from typing import TypeVar

import trio

from phonofs.catalogue.catalogue import Catalogue, ChangeSet
from phonofs.catalogue.prepared_page import PreparedPage
from phonofs.discovery.page_worker import PageWorker
from phonofs.discovery.pagination import OffsetPager
from phonofs.errors import OffsetRefused
from phonofs.model import Page, Query, Record
from phonofs.priority import Priority
from phonofs.service.client import Client
from phonofs.service.records import parse_record

AT_ONCE = 5
"""Pages applied together. That takes a fifth less time than one by one, but blocks the event loop
for 15 ms, or 7 ms if the pages are prepared."""

_Value = TypeVar("_Value")

_Come = tuple[int, Page | PreparedPage]
"""A page received, with its ``pageKey``."""

_Answered = tuple[int, Page | PreparedPage | None]
"""The answer to a ``pageKey``: a page, or None if the service refused the offset."""


class ListingPass:
    """One pass over a listing.

    Owns the changes of directories, which are reported at its end; the first records of prepared
    pages, which are applied at its end; and the checksums of their last records.
    """

    def __init__(
        self,
        service: Client,
        catalogue: Catalogue,
        page_worker: PageWorker,
        tell: Callable[[ChangeSet], None],
        *,
        known: bool,
        first: bool,
        urgent: Priority,
        check: Callable[[int], None],
    ) -> None:
        """``known``: the directory was listed before, so any new object was created since.
        ``first``: nothing of this listing was applied so far. ``check`` is called with the number
        of records received before they are applied, and may raise an error to end the pass.
        """
        self._service = service
        self._catalogue = catalogue
        self._page_worker = page_worker
        self._tell = tell
        self._known = known
        self._ready = first and not known
        self._urgent = urgent
        self._check = check
        self._moved = ChangeSet()
        self._heads: dict[str, bytes] = {}
        self._lasts: dict[str, int] = {}

    async def run(self, region: tuple[str, int], query: Query, paging: OffsetPager) -> None:
        """Request pages until the pass is done; ``region`` is the service's name and the index."""
        send, receive = trio.open_memory_channel[_Answered](math.inf)

        async def page(key: int, limit: int) -> None:
            try:
                send.send_nowait((key, await self._page(region, query, key, limit)))
            except OffsetRefused:
                send.send_nowait((key, None))

        try:
            async with trio.open_nursery() as nursery:
                _start(nursery, page, paging.ask())
                come: list[_Come] = []
                while not paging.done:
                    for key, answer in await _landed(receive):
                        if answer is None:
                            paging.refuse(key)
                            continue
                        paging.feed(key, answer)
                        come.append((key, answer))
                    self._page_worker.expect(paging.expected)
                    self._check(len(paging.seen))
                    _start(nursery, page, paging.ask())
                    if len(come) >= AT_ONCE or paging.done:
                        await self._take_in(come)
                        come = []
            self._take_heads(region[0])
        finally:
            if self._moved:
                self._tell(self._moved)

    async def _page(
        self, region: tuple[str, int], query: Query, key: int, limit: int
    ) -> Page | PreparedPage:
        name, index = region
        urgent = self._urgent.derive()
        if not self._ready:
            return await self._service.search(name, query, key, limit, urgent=urgent)
        body = await self._service.search_text(name, query, key, limit, urgent=urgent)
        return await self._page_worker.prepared(body, name, index) or self._service.read_page(
            body, name
        )

    async def _take_in(self, come: list[_Come]) -> None:
        """Apply pages, a few at a time; other tasks run in between, also the next searches.

        Apply them in the order of offsets as far as possible: ``cp -r`` copies in the order of
        inode numbers, and prefetching works if that is the order of names too.
        """
        come.sort(key=itemgetter(0))
        for _, group in groupby(come, lambda one: isinstance(one[1], PreparedPage)):
            for some in _some([*group], AT_ONCE):
                await trio.lowlevel.checkpoint()
                self._take_prepared(
                    [(key, one) for key, one in some if isinstance(one, PreparedPage)]
                )
                pages = [one for _, one in some if isinstance(one, Page)]
                self._take_records([record for page in pages for record in page.records])

    def _take_prepared(self, pages: Sequence[tuple[int, PreparedPage]]) -> None:
        for key, prepared in pages:
            if key == 0:
                self._take_records([parse_record(prepared.head, prepared.region)])
            else:
                self._heads[prepared.ids[0]] = prepared.head
            self._lasts[prepared.ids[-1]] = prepared.crcs[-1]
        if pages:
            self._note(self._catalogue.take([prepared for _, prepared in pages]))

    def _take_heads(self, region: str) -> None:
        """Apply the first record of each page, unless it was the last record of another page."""
        lasts = self._lasts
        texts = [text for id, text in self._heads.items() if lasts.get(id) != zlib.crc32(text)]
        self._take_records([parse_record(text, region) for text in texts])

    def _take_records(self, records: Sequence[Record]) -> None:
        """Apply records to the catalogue; in a directory listed for the first time, none is new."""
        if records:
            self._note(self._catalogue.apply(records, listed=not self._known))

    def _note(self, changes: ChangeSet) -> None:
        """Report changed objects at once, and directories at the end of the pass, once."""
        if changes.objects:
            self._tell(changes)
        else:
            self._moved.add_directories(changes.directories)


def _some(values: Sequence[_Value], count: int) -> Iterable[Sequence[_Value]]:
    return (values[start : start + count] for start in range(0, len(values), count))


def _start(
    nursery: trio.Nursery,
    page: Callable[[int, int], Awaitable[None]],
    asks: Iterable[tuple[int, int]],
) -> None:
    for key, limit in asks:
        nursery.start_soon(page, key, limit)


async def _landed(pages: trio.MemoryReceiveChannel[_Value]) -> list[_Value]:
    """Wait for at least one answer, and return all that have arrived."""
    landed = [await pages.receive()]
    with suppress(trio.WouldBlock):
        while True:
            landed.append(pages.receive_nowait())
    return landed
