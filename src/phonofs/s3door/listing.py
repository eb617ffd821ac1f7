"""Lists the keys of the tree for S3 clients, a page at a time.

Keys come in the order of their bytes, whatever the order of folders: ``us-east/`` is before
``us/``. Folders are listed as they are reached, so a page of an account with millions of objects
costs a few days of the catalogue, and the service is asked for those of them that are not known. A
page is right, or there is an error instead.

The views are listed only if the prefix leads into them: they have the same objects again.
"""

from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass

import trio

from phonofs.catalogue.catalogue import Entry
from phonofs.catalogue.types import Listed
from phonofs.errors import Archived, Gone, NoSuchName, NotAFolder
from phonofs.model import State
from phonofs.open_files import is_link
from phonofs.s3door.documents import ListedObject
from phonofs.s3door.keys import Key
from phonofs.s3door.permissions import permits_type
from phonofs.vfs import Vfs
from phonofs.view_tree.listings import ViewEntry
from phonofs.view_tree.open_text import fingerprint_of
from phonofs.views.places import VIEW_BIT

LOOKED_AT_MAX = 20_000
"""Objects that one page looks at: a page that has little for its key ends before it is full."""

PAGE_S = 20.0
"""A page ends before it is full after so many seconds: clients wait for an answer for a minute."""

AT_ONCE = 100
"""Objects that are looked at in one step; if their types matter, 3 to 6 ms."""

ARCHIVED = "GLACIER"
"""The storage class of what has to be restored before it can be read."""

TEXTS_AT_ONCE = 16
"""Texts that are made at a time if their sizes are not known, as many as there are connections."""


@dataclass(frozen=True, slots=True)
class ListingPage:
    """A page of a listing.

    objects   in the order of their keys
    prefixes  the common prefixes, in order
    next      behind which key or common prefix the next page begins; None if there is none
    """

    objects: Sequence[ListedObject]
    prefixes: Sequence[str]
    next: str | None


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which keys a page is to have: those that begin with ``prefix`` and come behind ``after``.

    Keys with the ``delimiter`` behind the prefix count as one common prefix. If ``after`` is a
    common prefix, the page begins behind all of its keys. ``most`` keys and common prefixes.
    """

    prefix: str = ""
    delimiter: str = ""
    after: str = ""
    most: int = 1000

    def common(self, key: str) -> str:
        """Return the common prefix of a key, or '' if it has none."""
        if not self.delimiter or not key.startswith(self.prefix):
            return ""
        at = key.find(self.delimiter, len(self.prefix))
        return key[: at + len(self.delimiter)] if at >= 0 else ""


Found = str | tuple[str, Entry | Listed]
"""A common prefix; or a key, and what it names."""


async def list_page(vfs: Vfs, key: Key, wanted: Wanted) -> ListingPage:
    """Return a page of what a key may see. Raises errors of the service and of the catalogue."""
    found: list[tuple[str, Entry | Listed]] = []
    prefixes: list[str] = []
    if not wanted.most:
        return ListingPage((), (), None)
    walk = _Walk(vfs, key, wanted)
    last, next = "", None
    async with aclosing(walk.found()) as each:
        async for one in each:
            if len(found) + len(prefixes) == wanted.most:
                next = last
                break
            if isinstance(one, str):
                prefixes.append(one)
                last = one
            else:
                found.append(one)
                last = one[0]
    return ListingPage(await _shown(vfs, found), prefixes, next or walk.given_up_at)


class _Walk:
    """Finds what a page is about, in order.

    given_up_at  behind what the next page begins, if the walk ended too early. It is told to the
                 client, so it is never a name that the key may not see: it is a key or a common
                 prefix of the page, or stands behind a whole day
    """

    def __init__(self, vfs: Vfs, key: Key, wanted: Wanted) -> None:
        self._vfs = vfs
        self._key = key
        self._wanted = wanted
        self._base, slash, self._leaf = wanted.prefix.rpartition("/")
        self._top = self._base + slash
        # Keys that begin with it are done with: they are in a common prefix that was given.
        self._done = wanted.after if wanted.common(wanted.after) == wanted.after else ""
        self._seen: str | None = None  # what of the page was found last
        self._looked_at = 0
        self._deadline_s = trio.current_time() + PAGE_S
        self.given_up_at: str | None = None

    async def found(self) -> AsyncGenerator[Found, None]:
        """Yield common prefixes, and keys with what they name."""
        if self._top == "/":
            return
        try:
            top = await self._vfs.walk(self._base)
        except (NoSuchName, NotAFolder):
            return
        waiting = [(self._top, top)] if top.is_directory else []
        while waiting and self.given_up_at is None:
            path, entry = waiting.pop()
            if path == self._top or path.endswith("/"):
                if not self._leads_on(path):
                    continue
                if common := self._whole(path):
                    self._done = self._seen = common
                    if not is_link(entry) or await self._leads_somewhere(path):
                        yield common
                    continue
                if is_link(entry):
                    continue
                if await self._is_day(entry.ino):
                    objects, children = self._of_day(path, entry.ino), []
                else:
                    objects, children = self._of_files(()), await self._list(path, entry.ino)
                waiting += reversed(children)
                behind = None if children else f"{path[:-1]}0"  # "0" comes after "/"
            else:
                objects = self._of_files(((path, entry),))
                behind = None
            async with aclosing(objects):
                async for one in objects:
                    yield one
            if behind and self.given_up_at is None and self._is_enough():
                self.given_up_at = behind

    # folders

    def _leads_on(self, path: str) -> bool:
        """Return whether a folder may have a key that is wanted."""
        wanted = self._wanted
        return (
            (path.startswith(wanted.prefix) or wanted.prefix.startswith(path))
            and (wanted.after < path or wanted.after.startswith(path))
            and not (self._done and path.startswith(self._done))
            and self._key.reaches(path)
        )

    def _whole(self, path: str) -> str:
        """Return the common prefix that a whole folder is in; '' if it has to be looked into."""
        common = self._wanted.common(path)
        return "" if self._wanted.after.startswith(common) else common

    async def _leads_somewhere(self, path: str) -> bool:
        """Return whether what a link leads to is there: perhaps there are no calls of today yet."""
        with suppress(NoSuchName):
            return (await self._vfs.walk(path.rstrip("/"))).is_directory
        return False

    async def _is_day(self, ino: int) -> bool:
        """Return whether a folder is a day, and have it listed then."""
        with suppress(NoSuchName):  # it was emptied meanwhile
            return await self._vfs.open_day(ino)
        return False

    async def _list(self, path: str, ino: int) -> list[tuple[str, Entry]]:
        """Return what is in a folder, in the order of keys."""
        try:
            entries = list((await self._vfs.open_folder(ino)).entries)
        except NoSuchName:  # it was emptied meanwhile
            return []
        if path == self._top and self._leaf.startswith("."):  # it is there, and not listed
            with suppress(NoSuchName):
                entries.append(await self._vfs.lookup(ino, self._leaf))
        return sorted(self._children(path, ino, entries), key=lambda child: child[0])

    def _children(
        self, path: str, ino: int, entries: Iterable[Entry]
    ) -> Iterator[tuple[str, Entry]]:
        for entry in entries:
            name = path + entry.name
            is_top_of_views = entry.ino >= VIEW_BIT > ino
            if not is_top_of_views or self._wanted.prefix.startswith(name):
                yield f"{name}/" if entry.is_directory or is_link(entry) else name, entry

    # files

    async def _of_day(self, path: str, day: int) -> AsyncGenerator[Found, None]:
        """Yield the objects of a day, which are sorted by name. It is read as far as is needed."""
        wanted, name, behind = self._wanted, "", False
        if wanted.prefix.startswith(path):
            name = wanted.prefix[len(path) :]
        if wanted.after.startswith(path) and wanted.after[len(path) :] >= name:
            name, behind = wanted.after[len(path) :], True
        while rows := self._vfs.day_from(day, name, AT_ONCE, behind=behind):
            some = [(path + row[1], row) for row in rows]
            for one in self._kept(some):
                yield one
            if not some[-1][0].startswith(wanted.prefix):
                return
            self._looked(len(some))
            if self.given_up_at is not None:
                return
            await trio.lowlevel.checkpoint()
            name, behind = rows[-1][1], True

    async def _of_files(self, files: Sequence[tuple[str, Entry]]) -> AsyncGenerator[Found, None]:
        for one in self._kept(files):
            yield one
        self._looked(len(files))

    def _kept(self, some: Iterable[tuple[str, Entry | Listed]]) -> Iterator[Found]:
        """Yield what the page is to have of some files, or the common prefix of them."""
        wanted = self._wanted
        for key, named in some:
            if not key.startswith(wanted.prefix) or key <= wanted.after:
                continue
            if (self._done and key.startswith(self._done)) or not self._may_see(key, named):
                continue
            if common := wanted.common(key):
                self._done = self._seen = common
                yield common
            else:
                self._seen = key
                yield key, named

    def _may_see(self, key: str, named: Entry | Listed) -> bool:
        if not self._key.covers(key):
            return False
        if not self._key.types:
            return True
        with suppress(NoSuchName):  # it went meanwhile
            if isinstance(named, Entry):
                return permits_type(self._vfs, self._key, named)
            return self._key.opens_type(self._vfs.record(named[0]).type)
        return False

    def _looked(self, count: int) -> None:
        """Count what was looked at, and give up if that was too much for one page."""
        self._looked_at += count
        if self._is_enough():
            self.given_up_at = self._seen

    def _is_enough(self) -> bool:
        return self._looked_at >= LOOKED_AT_MAX or trio.current_time() > self._deadline_s


async def _shown(vfs: Vfs, found: Sequence[tuple[str, Entry | Listed]]) -> list[ListedObject]:
    """Return what clients are told of files; those that have gone meanwhile are left out."""
    entries = [named for _, named in found if isinstance(named, Entry)]
    sizes = await _sizes_of_texts(vfs, entries)
    details = vfs.details(entries)
    shown: list[ListedObject] = []
    for key, named in found:
        if isinstance(named, tuple):
            _, _, size, mtime_ms, _, _, _, state, fingerprint = named
            shown.append(_listed(key, size, mtime_ms, fingerprint, state == State.ARCHIVED))
        elif isinstance(named, ViewEntry) and named.text is not None:
            if named.ino in sizes:
                size, readable = sizes[named.ino]
                fingerprint = fingerprint_of(named.text, size)
                shown.append(_listed(key, size, named.mtime_ms, fingerprint, not readable))
        elif about := details.get(named.ino):
            archived = about.state == State.ARCHIVED
            shown.append(_listed(key, named.size, named.mtime_ms, about.fingerprint, archived))
    return shown


def _listed(key: str, size: int, mtime_ms: int, fingerprint: str, archived: bool) -> ListedObject:
    modified_ms = mtime_ms // 1000 * 1000  # as Last-Modified, which has whole seconds
    storage_class = ARCHIVED if archived else "STANDARD"
    return ListedObject(key, modified_ms, f'"{fingerprint}"', size, storage_class)


async def _sizes_of_texts(vfs: Vfs, entries: Iterable[Entry]) -> dict[int, tuple[int, bool]]:
    """Return the sizes of the texts among these, and whether they can be read.

    Makes those of which the size is not known. Raises errors of the service.
    """
    sizes: dict[int, tuple[int, bool]] = {}
    limit = trio.CapacityLimiter(TEXTS_AT_ONCE)

    async def measure(entry: ViewEntry) -> None:
        async with limit:
            try:
                sizes[entry.ino] = (await vfs.text_entry(entry.ino)).size, True
            except Archived:
                sizes[entry.ino] = entry.size, False
            except (NoSuchName, Gone):
                return

    async with trio.open_nursery() as nursery:
        for entry in entries:
            if isinstance(entry, ViewEntry) and entry.text is not None:
                sizes[entry.ino] = entry.size, True
                if not entry.sure:
                    del sizes[entry.ino]
                    nursery.start_soon(measure, entry)
    return sizes
