"""The file system without FUSE: names, attributes, listings, extended attributes, bytes.

Used by ``fuse/``, which converts values, translates errors and fills the page cache. Runs on one
event loop. Plain methods never wait: they are critical sections and answer from the catalogue or
memory. Only ``async`` methods may wait, and only for the bytes or the listing of their call.

Raises the errors of :mod:`phonofs.errors`.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import msgspec

from phonofs.access import NOBODY, Access, Opener
from phonofs.attributes import (
    CACHED_ATTRIBUTE,
    KNOWN_ATTRIBUTE,
    MADE_FROM_ATTRIBUTE,
    PATH_ATTRIBUTE,
    STATUS_ATTRIBUTE,
    TYPE_ATTRIBUTE,
)
from phonofs.cache.stored_blocks import StoredRange
from phonofs.catalogue.catalogue import Catalogue, Details, Entry
from phonofs.catalogue.search import known_by_region
from phonofs.catalogue.types import Listed
from phonofs.discovery.lister import Lister
from phonofs.errors import (
    Archived,
    Gone,
    IsAFolder,
    NoSuchAttribute,
    NoSuchName,
    NotAFolder,
    PhonofsError,
    StaleInode,
)
from phonofs.model import Record, State
from phonofs.reader.open_object import Handle
from phonofs.reader.reader import NO_SCAN, Reader
from phonofs.record_attributes import listed_names, value_of
from phonofs.tree.layout import FIRST_OBJECT_INO, ROOT, directory_of, is_directory
from phonofs.view_tree.listings import ViewEntry
from phonofs.view_tree.open_text import OpenText, fingerprint_of
from phonofs.view_tree.text_files import TextFiles
from phonofs.view_tree.views import Views
from phonofs.views.names import Text, TextKind
from phonofs.views.places import VIEW_BIT

ATTRIBUTE_SIZE_MAX = 65536  # bytes; XATTR_SIZE_MAX of linux/limits.h

LINKS_MAX = 8
"""Links that are followed in one path; none of ours leads to another one."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What ``statfs`` reports: the known objects and their bytes."""

    objects: int
    size: int


@dataclass(frozen=True, slots=True)
class FolderHandle:
    """An open directory, with the listing taken at opendir, so that offsets in it never shift.

    ``answered`` says whether the service was asked for the listing, and has answered; ``view``
    whether the directory belongs to the views.
    """

    ino: int
    entries: Sequence[Entry]
    answered: bool
    view: bool = False


class Vfs:
    """Joins a catalogue, a lister and a reader to a file system. Owns no state of its own."""

    def __init__(
        self,
        catalogue: Catalogue,
        lister: Lister,
        reader: Reader,
        *,
        cached_bytes: Callable[[Record], int],
        status: Callable[[], dict[str, object]],
        check: Callable[[], None] = lambda: None,
        views: Views | None = None,
        texts: TextFiles | None = None,
        access: Access | None = None,
    ) -> None:
        """``check`` raises the error with which everything but the root is refused, if any.

        ``access`` decides who may open files; None if everybody may. Inode numbers from VIEW_BIT
        on belong to ``views`` and ``texts``; None if there are none.
        """
        self._catalogue = catalogue
        self._lister = lister
        self._reader = reader
        self._cached_bytes = cached_bytes
        self._status = status
        self._check = check
        self._views = views
        self._texts = texts
        self._access = access or Access()

    def check(self) -> None:
        """Raise the error with which everything but the root is refused, if there is one."""
        self._check()

    # names and attributes

    async def lookup(self, parent: int, name: str, *, pid: int = 0) -> Entry:
        """Return the entry ``name`` of a directory. Raises NoSuchName.

        Asks the service only if the entry is not known and the directory needs a listing. ``pid``
        is the process that asks, 0 if it is not known.
        """
        self.check()
        if parent >= VIEW_BIT:
            found = await self._of_views().lookup(parent, name, pid)
            self.check()
            return found
        entry = self._catalogue.lookup(parent, name)
        if entry is None and not name.startswith(".") and self._lister.needs(parent):
            await self._lister.find(parent, name)
            self.check()
            entry = self._catalogue.lookup(parent, name)
        if entry is None and self._views is not None and name == self._views.name:
            entry = self._views.above(parent)
        if entry is None:
            raise NoSuchName(f"{name!r} is not in this folder")
        return entry

    async def walk(self, path: str, *, pid: int = 0) -> Entry:
        """Return the entry at a path below the root, which is ''. Links are followed.

        Raises NoSuchName, NotAFolder, errors of the service, as :meth:`lookup` does for each name.
        """
        names = path.split("/") if path else []
        if not {"", ".", ".."}.isdisjoint(names):
            raise NoSuchName(f"{path!r} is no path below the root")
        links = 0
        above, found = ROOT, self.entry(ROOT)
        names.reverse()
        while names:
            if not found.is_directory:
                raise NotAFolder(f"{found.name!r} is a file")
            above, name = found.ino, names.pop()
            if name == "..":
                found = self.parent(above)
                continue
            found = await self.lookup(above, name, pid=pid)
            if isinstance(found, ViewEntry) and found.target and links < LINKS_MAX:
                links += 1
                names += reversed(found.target.split("/"))
                found = self.entry(above)
        return found

    async def by_id(self, region: str, id: str) -> Entry:
        """Return the entry of an object by its identifier. Raises NoSuchName.

        If it is not known, the service is asked for it alone, whatever is known of its day.
        """
        self.check()
        ino = self._catalogue.find(region, id)
        if ino is None and region in self._catalogue.regions():
            with suppress(Gone):
                await self._lister.bring(region, id)
            self.check()
            ino = self._catalogue.find(region, id)
        if ino is None:
            raise NoSuchName(f"there is no object {id!r} in the region {region!r}")
        return self.entry(ino)

    def knows(self, region: str, id: str) -> bool:
        """Return whether an object is known and shown."""
        return self._catalogue.find(region, id) is not None

    def details(self, entries: Sequence[Entry]) -> Mapping[int, Details]:
        """Return the details of the objects among these entries, by inode number."""
        self.check()
        inos = [entry.ino for entry in entries if FIRST_OBJECT_INO <= entry.ino < VIEW_BIT]
        return self._catalogue.details(inos) if inos else {}

    def record(self, ino: int) -> Record:
        """Return the record of an object. Raises NoSuchName, Malformed."""
        self.check()
        return self._catalogue.record(ino)

    def entry(self, ino: int) -> Entry:
        """Return the attributes of a file or directory. Raises StaleInode."""
        if ino != ROOT:
            self.check()
        if ino >= VIEW_BIT:
            return self._of_views().entry(ino)
        entry = self._catalogue.entry(ino)
        if entry is None:
            raise StaleInode(f"inode {ino} is not in the tree any more")
        return entry

    async def view_entry(self, ino: int) -> Entry:
        """Return the attributes of a directory or link of the views. Raises StaleInode.

        Waits only if its number is all that is known of it, as after a remount.
        """
        self.check()
        entry = await self._of_views().entry_again(ino)
        self.check()
        return entry

    def parent(self, ino: int) -> Entry:
        """Return the directory that contains ``ino``; the root is its own parent."""
        if ino >= VIEW_BIT:
            return self.entry(self._of_views().parent(ino))
        return self.entry(self._catalogue.parent(ino))

    def target(self, ino: int) -> str:
        """Return where a link leads. Raises StaleInode."""
        self.check()
        return self._of_views().target(ino)

    def _of_views(self) -> Views:
        if self._views is None:
            raise StaleInode("there are no views in this mount")
        return self._views

    def usage(self) -> Usage:
        """Return the known objects and bytes, from memory; zeros if everything is refused."""
        try:
            self.check()
        except PhonofsError:
            return Usage(0, 0)
        return Usage(*self._catalogue.totals())

    # directories

    async def open_folder(self, ino: int, *, pid: int = 0, refresh: bool = False) -> FolderHandle:
        """List a directory; ask the service first if that is needed. Raises NotAFolder.

        ``pid`` is the process that lists, 0 if it is not known. If ``refresh``, a directory of the
        date tree is listed at the service even if it is known.
        """
        self.check()
        if ino >= VIEW_BIT:
            return await self._open_view(ino, pid)
        answered = await self._list(ino, refresh=refresh)
        entries = self._catalogue.children(ino)
        if entries and not entries[0].is_directory:
            self._day_was_listed(pid, ino, [entry.ino for entry in entries])
        if self._views is not None and (views := self._views.listed_in(ino)) is not None:
            entries = sorted([*entries, views], key=lambda entry: entry.name)
        return FolderHandle(ino, entries, answered)

    async def list_day(
        self, ino: int, *, pid: int = 0, refresh: bool = False
    ) -> tuple[str, Sequence[Listed]] | None:
        """Return the region of a day and its objects, with more of each than an entry has.

        None if it is no day. Raises as :meth:`open_folder` does.
        """
        if await self.open_day(ino, refresh=refresh):
            listed = self._catalogue.listed(ino)
            if listed is not None and listed[1]:
                self._day_was_listed(pid, ino, [each[0] for each in listed[1]])
            return listed
        return None

    async def open_day(self, ino: int, *, refresh: bool = False) -> bool:
        """Have a day listed if needed, so that its objects are known; return False if it is no day.

        Raises as :meth:`open_folder` does.
        """
        if not is_directory(ino) or (day := directory_of(ino)) is None or not day.day:
            return False
        self.check()
        await self._list(ino, refresh=refresh)
        return True

    def day_from(self, ino: int, name: str, most: int, *, behind: bool) -> Sequence[Listed]:
        """Return the next ``most`` objects of a day by name: from ``name`` on, or ``behind`` it.

        They are those known at this moment, not when the day was opened.
        """
        self.check()
        return self._catalogue.listed_from(ino, name, most, behind=behind)

    async def _list(self, ino: int, *, refresh: bool) -> bool:
        """Have a directory of the date tree listed if needed; return whether that was answered."""
        if not self.entry(ino).is_directory:
            raise NotAFolder(f"inode {ino} is a file")
        needs = self._lister.needs(ino)
        self._lister.opened(ino)
        if refresh:
            await self._lister.list_again(ino)
        answered = needs and not refresh and await self._lister.list(ino)
        self.check()
        return answered

    def _day_was_listed(self, pid: int, day: int, inos: Sequence[int]) -> None:
        """Note that a process listed a day; ``inos`` are its objects, by name."""
        if pid:
            self._reader.listed(pid, (inos[0], min(inos)))
            if self._views is not None:
                self._views.listed_day(pid, day)

    def now(self, entry: Entry) -> Entry | None:
        """Return an entry of a listing as it is now; None if it is not there under that name."""
        now = self._catalogue.entry(entry.ino)
        return now if now is not None and now.name == entry.name else None

    def now_in_view(self, entries: Sequence[Entry]) -> list[Entry]:
        """Return entries of a listing of a view as they are now. Never waits."""
        return self._of_views().now(entries)

    async def _open_view(self, ino: int, pid: int) -> FolderHandle:
        entries = await self._of_views().entries(ino, pid)
        self.check()
        objects = [entry for entry in entries if FIRST_OBJECT_INO <= entry.ino < VIEW_BIT]
        if pid and objects:
            self._reader.listed(pid, (objects[0].ino, min(entry.ino for entry in objects)))
        return FolderHandle(ino, entries, answered=False, view=True)

    # files

    async def open(self, ino: int, opener: Opener = NOBODY) -> Handle:
        """Open a file for reading, once that is recorded, if it has to be.

        If ``opener`` reads the files of a directory in order, the next files are downloaded ahead.
        Raises Archived, IsAFolder, StaleInode, CrawlerRefused, JournalError.
        """
        record = self._record(ino)
        if record.state == State.ARCHIVED:
            await self._access.archived(opener, record)
            raise Archived(
                f"object {record.id} is archived; `phonofs restore` asks for it back, "
                "which takes up to 24 hours"
            )
        waits = self._access.waits
        lines = await self._access.grant(opener, [record])
        try:
            if self._access.waits != waits:
                record = self._record(ino)  # it may have changed meanwhile
            handle = self._reader.open(record, ino, pid=opener.pid if opener.in_order else NO_SCAN)
        except PhonofsError:
            self._access.ended(lines)
            raise
        self._access.opened(handle, lines)
        return handle

    def _record(self, ino: int) -> Record:
        """Return the record of a file. Raises IsAFolder, StaleInode."""
        self.check()
        if is_directory(ino) and self.entry(ino).is_directory:
            raise IsAFolder(f"inode {ino} is a folder")
        try:
            return self._catalogue.record(ino)
        except NoSuchName:
            raise StaleInode(f"inode {ino} is not in the tree any more") from None

    def lend_now(self, handle: Handle, offset: int, size: int) -> bytes | memoryview | None:
        """Return the bytes if that is possible without waiting, else None. See :meth:`read`.

        Large reads return a borrowed buffer, which must be used before any other task runs.
        """
        self.check()
        return self._reader.lend_now(handle, offset, size)

    def lend_stored(self, handle: Handle, offset: int, size: int) -> StoredRange | None:
        """Like :meth:`lend_now`, of bytes that the kernel can send to a socket from their file."""
        self.check()
        return self._reader.lend_stored(handle, offset, size)

    def peek(self, handle: Handle, offset: int, size: int) -> bytes | None:
        """Return verified bytes if they are cached, else None. They do not count as read."""
        self.check()
        return self._reader.peek(handle, offset, size)

    @property
    def reads_answered(self) -> int:
        """How many reads have waited for the service and got their bytes."""
        return self._reader.misses

    async def read(self, handle: Handle, offset: int, size: int) -> bytes:
        """Return exactly ``min(size, file size - offset)`` bytes, or raise an error."""
        return bytes(await self.lend(handle, offset, size))

    async def lend(self, handle: Handle, offset: int, size: int) -> bytes | memoryview:
        """Like :meth:`read`, but large reads return a borrowed buffer, as :meth:`lend_now` does."""
        self.check()
        data = await self._reader.lend(handle, offset, size)
        self.check()
        return data

    def release(self, handle: Handle) -> None:
        """Close a file. Downloads that no other handle needs end soon after."""
        self._access.closed(handle, handle.given_bytes)
        self._reader.release(handle)

    # texts of the views

    async def text_entry(self, ino: int) -> ViewEntry:
        """Return the attributes of a text; make the text if its size is not known.

        Raises StaleInode, NoSuchName, errors of the service.
        """
        self.check()
        entry = await self._of_views().text_entry(ino)
        self.check()
        return entry

    async def text_fingerprint(self, ino: int, size: int) -> str:
        """Return what identifies the content of a text that has this size."""
        return fingerprint_of(await self._of_views().text(ino), size)

    async def open_text(self, ino: int, opener: Opener = NOBODY) -> OpenText:
        """Open a text, once that is recorded. Raises as :meth:`text_entry` and :meth:`open` do.

        A list has records only, as attributes do: it is not recorded, nor refused to a crawler.
        """
        self.check()
        text = await self._of_views().text(ino)
        lines: Sequence[int] = ()
        if isinstance(text, Text):
            lines = await self._access.grant(opener, self._sources(text), _KINDS[text.kind])
        try:
            opened = await self._of_views().open_text(ino)
        except BaseException:  # also if whoever opens it does not wait any longer
            self._access.ended(lines)
            raise
        self._access.opened(opened, lines)
        try:
            self.check()
        except PhonofsError:
            self.close_text(opened)
            raise
        return opened

    def _sources(self, text: Text) -> list[Record]:
        """Return the records of what a text is made of. Raises StaleInode."""
        return [self._record(source.ino) for source in text.sources]

    async def text_attribute(self, ino: int, name: str) -> bytes:
        """Return an extended attribute of a text: its type, or the ids of what it is made of.

        Raises NoSuchAttribute, StaleInode.
        """
        self.check()
        text = await self._of_views().text(ino)
        self.check()
        if name == TYPE_ATTRIBUTE:
            return _TYPES[text.kind].encode()
        if name == MADE_FROM_ATTRIBUTE and isinstance(text, Text):
            return " ".join(source.id for source in text.sources).encode()
        raise NoSuchAttribute(f"there is no attribute {name}")

    def text_was_resized(self, ino: int) -> bool:
        """Return whether the kernel may believe a former size of a text; true once."""
        return self._texts is not None and self._texts.was_resized(ino)

    def close_text(self, opened: OpenText) -> None:
        """Close a text."""
        self._access.closed(opened, opened.given_bytes)
        if self._texts is not None:
            self._texts.close(opened)

    # extended attributes

    def attribute(self, ino: int, name: str) -> bytes:
        """Return the value of one extended attribute; compute no other.

        Raises NoSuchAttribute, also if the value is longer than the kernel accepts.
        """
        value = self._value(ino, name)
        if value is None or len(value) > ATTRIBUTE_SIZE_MAX:
            raise NoSuchAttribute(f"there is no attribute {name}")
        return value

    def attributes(self, ino: int) -> list[str]:
        """Return the names of the extended attributes that a copy or a backup may keep.

        Left out are attributes that change while the record does not (``cached``, ``status``), and
        ``path``, which is known. They can still be read by name, as those that a record leaves out.
        """
        if ino >= VIEW_BIT or self.entry(ino).is_directory:
            return []
        return listed_names(self._catalogue.record(ino))

    def _value(self, ino: int, name: str) -> bytes | None:
        if ino == ROOT and name == STATUS_ATTRIBUTE:
            return as_json(self._status())
        if ino >= VIEW_BIT:
            return None
        entry = self.entry(ino)
        if ino == ROOT and name == KNOWN_ATTRIBUTE:
            self.check()
            return as_json({"regions": known_by_region(self._catalogue)})
        if name == PATH_ATTRIBUTE:
            return self._catalogue.path(ino).encode()
        if entry.is_directory:
            return None
        record = self._catalogue.record(ino)
        if name == CACHED_ATTRIBUTE:
            return str(self._cached_bytes(record)).encode()
        return value_of(record, name)


def as_json(document: dict[str, object]) -> bytes:
    """Return a status as JSON.

    A path that is not UTF-8 contains lone surrogates, which msgspec refuses. JSON's escape for
    them (``\\udcff``) gives Python programs that read it the original path.
    """
    try:
        return msgspec.json.encode(document)
    except UnicodeEncodeError:
        return json.dumps(msgspec.to_builtins(document)).encode()


_TYPES = {
    TextKind.CONVERSATION: "text",
    TextKind.SUBTITLES: "subtitles",
    TextKind.SUMMARY: "summary-text",
    TextKind.NOTES: "notes-text",
    TextKind.CSV: "list",
    TextKind.JSON_LINES: "list",
    TextKind.CHECKSUMS: "list",
}
"""The type of what the views make, as an attribute."""

_KINDS = {
    TextKind.CONVERSATION: "text",
    TextKind.SUBTITLES: "subtitles",
    TextKind.SUMMARY: "summary",
    TextKind.NOTES: "notes",
}
"""What of its objects a text gives, in a line of the journal."""
