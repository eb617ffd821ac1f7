"""Lists the directories of the views, and finds names in them.

A directory of a view is whole or an error, as those of the date tree: the days that it is about are
listed first. Used by ``vfs``. Methods that may ask the service are ``async``.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Protocol
from weakref import WeakValueDictionary

import trio

from phonofs.catalogue.catalogue import Catalogue, Entry
from phonofs.catalogue.text_sizes import NO_TEXT
from phonofs.discovery.lister import Lister
from phonofs.errors import Gone, NoSuchName, NotAFolder, StaleInode
from phonofs.tree.layout import Directory
from phonofs.view_tree.call_index import CallIndex
from phonofs.view_tree.groups import GroupIndex
from phonofs.view_tree.in_steps import worked_out
from phonofs.view_tree.listings import Listing, ViewEntry, named
from phonofs.view_tree.open_text import OpenText
from phonofs.view_tree.place_numbers import PlaceNumbers
from phonofs.view_tree.recent_listings import RecentListings
from phonofs.view_tree.spans import Spans
from phonofs.view_tree.text_files import TextFiles
from phonofs.views import names, places
from phonofs.views.names import Manifest, Text, ViewFile
from phonofs.views.places import BY_DAY, TEXT, VIEW_BIT, Lists, Place

FILES_KEPT = 20_000
"""Files of the directories of which the listings stay in memory, about 0.5 KB each."""

ENTRIES_AT_ONCE = 300
"""Entries that are looked up in one step, 4 ms."""


TEXTS_AHEAD = 100
"""How many of the next texts of a directory are looked at for those whose size is not known."""

CALLS_AT_ONCE = 50
"""Calls of which the files are named in one step, 4 ms."""


class ViewSettings(Protocol):
    """The settings of the views (``config.Settings`` has them)."""

    @property
    def views(self) -> str:
        """The name of the directory of the views; empty if there is none."""

    @property
    def texts(self) -> bool:
        """Whether texts are shown."""

    @property
    def read_deadline(self) -> float:
        """The longest time that a caller waits, in seconds."""


class Views:
    """Owns the listings of the directories used last.

    The kernel, or a server that exports the mount (NFS), may come with the inode number of a
    directory of which nothing is in memory any more: then the number says which one it is.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        lister: Lister,
        index: CallIndex,
        texts: TextFiles,
        recent: RecentListings,
        settings: ViewSettings,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self.name = settings.views
        self._with_texts = settings.texts
        self._catalogue = catalogue
        self._spans = Spans(catalogue, lister, index, settings.read_deadline)
        self._index = index
        self._texts = texts
        self._recent = recent
        self._now_ms = now_ms
        self._numbers = PlaceNumbers()
        self._groups = GroupIndex(self._spans, index)
        self._listings: OrderedDict[Place, Listing] = OrderedDict()
        self._locks = WeakValueDictionary[Place, trio.Lock]()

    # the directory of the views, in the date tree

    def above(self, directory: int) -> ViewEntry | None:
        """Return the directory of the views if this directory of the date tree holds it."""
        region = self._catalogue.shown_directory(directory)
        if not self.name or region is None or region.year:
            return None
        return self._place_entry(places.views_of(region.region), self.name)

    def listed_in(self, directory: int) -> ViewEntry | None:
        """Return the directory of the views if it is to be listed here."""
        return None if self.name.startswith(".") else self.above(directory)

    def parent(self, ino: int) -> int:
        """Return the directory that holds a directory of the views. Raises StaleInode."""
        place = self._place(ino)
        if place.path:
            return self._numbers.ino(places.above(place))
        return self._spans.shown_ino(place.span)

    # names

    async def lookup(self, parent: int, name: str, pid: int) -> ViewEntry:
        """Return an entry of a directory of the views. Raises NoSuchName, StaleInode."""
        place = await self._place_again(parent)
        if place.lists in (Lists.CALLS, Lists.TEXTS, Lists.NEWEST):
            listing = await self._listing(place, fresh=False)
            file = listing.files.get(name)
            if file is None:
                listing = await self._listing(place, fresh=True)
                file = listing.files.get(name)
            if file is None:
                raise NoSuchName(f"{name!r} is not in this folder")
            self._recent.listed_view(pid, listing.objects)
            for entry in await self._file_entries([file]):
                return entry
            raise NoSuchName(f"{name!r} is not in this folder any more")
        found = places.child(place, name)
        if found is None or not await self._is_there(place, found):
            raise NoSuchName(f"{name!r} is not in this folder")
        return self._place_entry(found, name)

    def entry(self, ino: int) -> ViewEntry:
        """Return the attributes of a directory or a link that was looked up. Raises StaleInode."""
        place = self._place(ino)
        return self._place_entry(place, place.name or self.name)

    async def entry_again(self, ino: int) -> ViewEntry:
        """Return them also if nobody has looked it up in this mount, as for a server of NFS.

        Raises StaleInode, errors of the service.
        """
        place = await self._place_again(ino)
        return self._place_entry(place, place.name or self.name)

    def target(self, ino: int) -> str:
        """Return where a link leads. Raises StaleInode."""
        return self.entry(ino).target

    async def entries(self, ino: int, pid: int) -> Sequence[ViewEntry]:
        """Return all entries of a directory, sorted by name.

        Raises NotAFolder, StaleInode, errors of the service.
        """
        place = await self._place_again(ino)
        if place.lists is Lists.NOTHING:
            raise NotAFolder(f"{place.name} is a link")
        if place.lists in (Lists.CALLS, Lists.TEXTS, Lists.NEWEST):
            listing = await self._listing(place, fresh=True)
            self._recent.listed_view(pid, listing.objects)
            return await self._file_entries(list(listing.files.values()))
        return [self._place_entry(each, each.name) for each in await self._below(place)]

    def listed_day(self, pid: int, day: int) -> None:
        """Note that a process listed a day of the date tree."""
        self._recent.listed_day(pid, day)

    # texts

    async def text_entry(self, ino: int) -> ViewEntry:
        """Return the attributes of a text, with its size; make it if its size is not known.

        The next texts of the directory that it was seen in are made beside it. Raises NoSuchName,
        errors of the service.
        """
        text = await self.text(ino)
        known = self._texts.known_sizes([text]).get(ino)
        if known is not None and known != NO_TEXT:
            return self._text_entry("", text, known)
        if known is None:
            self._make_ahead(ino)
        try:
            size = await self._texts.size(text)
        except Gone:  # it changed while it was made
            text = await self.text(ino)
            size = await self._texts.size(text)
        told = ino in self._texts.known_sizes([text])  # not if it could not be noted
        return self._text_entry("", text, size, told=told)

    def now(self, entries: Sequence[Entry]) -> list[Entry]:
        """Return entries of a listing as they are now, under the names in the listing.

        Of what has gone nothing is sure. Never waits.
        """
        made = [each.text for each in entries if isinstance(each, ViewEntry) and each.text]
        sizes = self._texts.last_sizes(made)
        return [self._now(each, sizes) for each in entries]

    def _now(self, entry: Entry, sizes: Mapping[int, tuple[int, bool]]) -> Entry:
        if isinstance(entry, ViewEntry) and entry.text:
            return self._listed_text(entry.name, entry.text, sizes)
        if entry.ino >= VIEW_BIT:
            return entry
        now = self._catalogue.entry(entry.ino)
        return named(now or entry, entry.name, sure=now is not None)

    async def open_text(self, ino: int) -> OpenText:
        """Open a text. Raises as :meth:`text_entry` does."""
        try:
            return await self._texts.open(await self.text(ino))
        except Gone:  # it changed while it was made
            return await self._texts.open(await self.text(ino))

    async def text(self, ino: int) -> Text | Manifest:
        """Return a text. Raises StaleInode, Malformed."""
        try:
            return await self._index.text(ino)
        except NoSuchName:
            raise StaleInode(f"text {ino} is not in the views any more") from None

    def _make_ahead(self, ino: int) -> None:
        for listing in reversed(self._listings.values()):
            if ino in listing.order:
                at = listing.order[ino] + 1
                coming = listing.texts[at : at + TEXTS_AHEAD]
                self._texts.make_ahead(coming, listing.count_asked())
                return

    # entries

    def _place(self, ino: int) -> Place:
        place = self._numbers.place(ino)
        if place is None:
            raise StaleInode(f"inode {ino} is not in the views")
        return place

    async def _place_again(self, ino: int) -> Place:
        """Return the place with an inode number, by what the number says if nothing else is known.

        Of two names that the number can mean, it means none. Raises StaleInode, errors of the
        service.
        """
        place = self._numbers.place(ino)
        if place is not None:
            return place
        place, number = places.decoded(ino) or (None, 0)
        if place is None or not await self._is_shown(place):
            raise StaleInode(f"inode {ino} is not in the views")
        if number:
            groups = await self._groups.groups(place, fresh=False)
            found = [name for name in groups.names() if places.name_number(name) == number]
            if len(found) != 1:
                raise StaleInode(f"inode {ino} is not in the views any more")
            place = places.child(place, found[0])
            assert place is not None, "any name can be in a place that lists names"
        self._numbers.ino(place)
        return place

    def _place_entry(self, place: Place, name: str) -> ViewEntry:
        ino = self._numbers.ino(place)
        about = self._catalogue.entry(self._spans.shown_ino(place.span))
        mtime_ms = about.mtime_ms if about else 0
        if place.lists is Lists.NOTHING:
            today = self._catalogue.placement.calendar.day_of(self._now_ms())
            target = places.link_target(place, today)
            size = len(target)
            return ViewEntry(ino, name, False, size, mtime_ms, mtime_ms, False, target)
        return ViewEntry(ino, name, True, 0, mtime_ms, mtime_ms, False)

    async def _file_entries(self, files: Sequence[ViewFile]) -> list[ViewEntry]:
        """Return the entries of files; those that have gone meanwhile are left out."""
        found: list[ViewEntry] = []
        for start in range(0, len(files), ENTRIES_AT_ONCE):
            some = files[start : start + ENTRIES_AT_ONCE]
            sizes = self._texts.last_sizes([file.text for file in some if file.text])
            for file in some:
                if file.text is not None:
                    if sizes.get(file.ino) != (NO_TEXT, True):
                        found.append(self._listed_text(file.name, file.text, sizes))
                elif (entry := self._catalogue.entry(file.ino)) is not None:
                    found.append(named(entry, file.name))
            if len(files) > ENTRIES_AT_ONCE:
                await trio.lowlevel.checkpoint()
        return found

    def _listed_text(
        self, name: str, text: Text | Manifest, sizes: Mapping[int, tuple[int, bool]]
    ) -> ViewEntry:
        size, is_current = sizes.get(text.ino, (0, False))
        return self._text_entry(name, text, max(size, 0), sure=is_current and size != NO_TEXT)

    @staticmethod
    def _text_entry(
        name: str, text: Text | Manifest, size: int, *, sure: bool = True, told: bool = True
    ) -> ViewEntry:
        at_ms = text.modified
        told = told and isinstance(text, Text)
        return ViewEntry(text.ino, name, False, size, at_ms, at_ms, False, "", sure, told, text)

    # what is where

    async def _is_shown(self, place: Place) -> bool:
        """Return whether a place that no name is in is there."""
        region = Directory(place.region)
        if not self.name or self._catalogue.entry(self._spans.shown_ino(region)) is None:
            return False
        if place.view == TEXT and not self._with_texts:
            return False
        return not place.span.year or await self._spans.is_shown(place.span)

    async def _is_there(self, above: Place, place: Place) -> bool:
        match above.lists:
            case Lists.VIEWS:
                return self._with_texts or place.view != TEXT
            case Lists.NAMES:
                return place.name in await self._groups.groups(above, fresh=False)
        return await self._spans.is_shown(place.span)

    async def _below(self, place: Place) -> list[Place]:
        spans = self._spans
        match place.lists:
            case Lists.VIEWS:
                top = places.top_places(place)
                return [each for each in top if self._with_texts or each.view != TEXT]
            case Lists.NAMES:
                below = (await self._groups.groups(place, fresh=True)).names()
            case Lists.DATES:
                below = [each.name for each in await spans.below(place.span)]
            case Lists.DAYS:
                below = [each.name for each in await spans.in_time(spans.days(place.span))]
            case _:
                below = [each.name for each in await spans.in_time(spans.months(place.span))]
        return [found for name in below if (found := places.child(place, name))]

    def _is_current(self, place: Place, kept: Listing | None) -> bool:
        return kept is not None and kept.version == self._index.version(place.span)

    async def _listing(self, place: Place, *, fresh: bool) -> Listing:
        """Return the files of a directory.

        If ``fresh``, the service is asked first where it may have something new.
        """
        kept = self._listings.get(place)
        if kept is None or fresh or not self._is_current(place, kept):
            return await self._spans.in_time(self._list(place))
        return self._keep_listing(place, kept)

    async def _list(self, place: Place) -> Listing:
        """Return the files of a directory, listed once for all who want them."""
        async with self._locks.setdefault(place, trio.Lock()):
            days: Sequence[Directory] = ()
            if place.lists is Lists.NEWEST:
                await self._spans.newest(place.span)
            else:
                days = await self._spans.list_days(place.span)
            kept = self._listings.get(place)
            if kept is not None and self._is_current(place, kept):
                return self._keep_listing(place, kept)
            version = self._index.version(place.span)
            files = await self._files(place, days)
            made = await worked_out(partial(Listing.of, version, files), len(files))
            return self._keep_listing(place, made)

    def _keep_listing(self, place: Place, listing: Listing) -> Listing:
        """Keep a listing as the one used last; it may have been dropped while somebody waited."""
        self._listings[place] = listing
        self._listings.move_to_end(place)
        while len(self._listings) > 1 and self._files_kept() > FILES_KEPT:
            self._listings.popitem(last=False)
        return listing

    def _files_kept(self) -> int:
        return sum(100 + len(listing.files) for listing in self._listings.values())

    async def _files(self, place: Place, days: Sequence[Directory]) -> list[ViewFile]:
        if place.lists is Lists.NEWEST:
            found = await self._spans.newest(place.span)
        elif place.is_named:
            found = await self._groups.calls(places.above(place), place.name)
        else:
            found = await self._index.calls(place.span)
        files: list[ViewFile] = []
        dated = not place.span.day
        for number, call in enumerate(found):
            if place.lists is Lists.TEXTS:
                files += names.text_files(call)
            else:
                files += names.files(call, dated=dated)
            if number % CALLS_AT_ONCE == CALLS_AT_ONCE - 1:
                await trio.lowlevel.checkpoint()
        if not self._with_texts:
            files = [file for file in files if file.text is None]
        return files + await self._manifests(place)

    async def _manifests(self, place: Place) -> list[ViewFile]:
        return await self._index.manifests(place.span) if place.view == BY_DAY else []
