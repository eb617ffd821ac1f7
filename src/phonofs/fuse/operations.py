"""The handlers that pyfuse3 calls: they convert arguments and results, and call the vfs.

The kernel may cache names, attributes and pages for long (``keep_cache``, timeouts of an hour),
because :mod:`phonofs.fuse.invalidation` tells it about every change. An inode number of the
catalogue or of the views is enough to find what it belongs to, so ``forget`` has nothing to do.
"""

import errno
import logging
import os
import stat
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import count
from typing import Any, cast
from weakref import WeakValueDictionary

import pyfuse3
import trio
from pyfuse3 import EntryAttributes, FileInfo, FUSEError, StatvfsData

from phonofs.access import Opener
from phonofs.catalogue.catalogue import Entry
from phonofs.errors import NoSuchName, Unavailable
from phonofs.fuse.errors import ErrorStats, guarded, refused
from phonofs.fuse.interrupts import InterruptibleRequests
from phonofs.fuse.invalidation import KernelCache
from phonofs.fuse.page_cache import BLOCK, LITTLE, PageCachePrefill
from phonofs.fuse.recent_errors import RecentErrors
from phonofs.reader.open_object import Handle
from phonofs.vfs import FolderHandle, Vfs
from phonofs.view_tree.listings import ViewEntry
from phonofs.view_tree.open_text import OpenText
from phonofs.views.names import text_of_ino
from phonofs.views.places import VIEW_BIT

log = logging.getLogger(__name__)

KEPT_S = 3600.0
"""How long the kernel may cache names and attributes; it is told when they change."""

VIEW_NAME_S = 1.0
"""How long it may cache names in views, of which it is not told, and where links lead."""

SECTOR = 512  # bytes; the unit of st_blocks (stat(2)), whatever the file system's block size
FRAGMENT = 4096  # bytes; the unit of statfs here: a page

NOW_AT_ONCE = 16
"""Entries of a view that are looked up together: what one answer has room for."""

TELLING_S = 5.0
"""How long an open or a read waits until the kernel was told a new size; after that it is EIO."""


@dataclass(frozen=True, slots=True)
class Ownership:
    """The owner of all files and directories, and the permission bits to clear."""

    uid: int
    gid: int
    umask: int


@dataclass(frozen=True, slots=True)
class OpenFolder:
    """An open directory, and how much had changed (``KernelCache.changes``) at opendir."""

    handle: FolderHandle
    changes: int


class OpenFile:
    """A handle, and the process that opened it: FUSE does not tell ``read`` which process reads.

    believed      the size that the kernel may still believe: the size when the file was opened
    direct        whether reads bypass the page cache (O_DIRECT), so that no page is zero-filled
    prefill       the blocks around small reads that the kernel was given, from the second read on
    reads_little  whether there was a small read already
    """

    __slots__ = ("believed", "direct", "handle", "ino", "pid", "prefill", "reads_little")

    def __init__(self, handle: Handle, ino: int, pid: int, *, direct: bool = False) -> None:
        self.believed = handle.told
        self.direct = direct
        self.handle = handle
        self.ino = ino
        self.pid = pid
        self.prefill: PageCachePrefill | None = None
        self.reads_little = False


class Operations(pyfuse3.Operations):
    """The handlers. Owns the open handles; their numbers are never reused in one mount.

    begun  set once the kernel sends requests
    """

    supports_dot_lookup = True
    enable_writeback_cache = False
    enable_acl = False

    def __init__(
        self,
        vfs: Vfs,
        interruptible: InterruptibleRequests,
        ownership: Ownership,
        kernel: KernelCache,
    ) -> None:
        super().__init__()
        self.begun = trio.Event()
        self._kernel = kernel
        self._shrunk: dict[int, int] = {}
        self.error_stats = ErrorStats()
        self._vfs = vfs
        self._interruptible = interruptible
        self._ownership = ownership
        self._numbers = count(1)
        self._files: dict[int, OpenFile] = {}
        self._prefills = WeakValueDictionary[int, PageCachePrefill]()
        self._recent_errors = RecentErrors()
        self._folders: dict[int, OpenFolder] = {}
        self._texts: dict[int, OpenText] = {}

    def init(self) -> None:
        """Note that the kernel begins to send requests; called once, by FUSE_INIT."""
        self.begun.set()

    def statistics(self) -> dict[str, object]:
        """Gauges and counts, by their names in ``phonofs status --json``."""
        return {
            "open_files": len(self._files) + len(self._texts),
            "open_folders": len(self._folders),
            "waiting": len(self._interruptible),
            "errnos": dict(self.error_stats.errnos),
            "last_error": self.error_stats.last_error,
            "last_error_at": self.error_stats.last_error_at,
            "failed_in_outage": self.error_stats.outage.failures,
        }

    # names and attributes

    @guarded
    async def lookup(self, parent_inode: int, name: bytes, ctx: Any) -> EntryAttributes:
        """Return an entry by name; wait only if the service must be asked for it."""
        if name == b".":  # the file of a handle, which need not be a directory
            return await self._attributes_of(parent_inode, ctx.pid)
        if name == b"..":
            return self._attributes(self._vfs.parent(parent_inode))
        text = _text(name)
        # Names of views are told at once. When they were told later, a text whose source had
        # changed was read as empty in 2 of 60 runs, probably because an unknown size is given as 0.
        in_views = parent_inode >= VIEW_BIT
        locked = nullcontext() if in_views else self._kernel.looking_up(parent_inode)
        with locked, self._interruptible.waiting(ctx.pid):
            entry = await self._vfs.lookup(parent_inode, text, pid=ctx.pid)
        await self._former_gone(entry.ino)
        return self._attributes(entry)

    @guarded
    async def getattr(self, inode: int, ctx: Any) -> EntryAttributes:
        """Return the attributes, from the catalogue; make a text if its size is not known."""
        return await self._attributes_of(inode, ctx.pid)

    async def _attributes_of(self, inode: int, pid: int) -> EntryAttributes:
        if inode < VIEW_BIT:
            return self._attributes(self._vfs.entry(inode))
        with self._interruptible.waiting(pid):
            if text_of_ino(inode) is None:
                return self._attributes(await self._vfs.view_entry(inode))
            entry = await self._vfs.text_entry(inode)
        await self._former_gone(inode)
        return self._attributes(entry)

    async def _former_gone(self, ino: int) -> None:
        """Wait until the kernel has dropped what it has of the former bytes of a text.

        It would fill a page of them with zeros up to the size that it is about to be given.
        """
        if ino >= VIEW_BIT:
            await self._tell_size(ino)

    @guarded
    async def readlink(self, inode: int, ctx: Any) -> bytes:
        """Return where a link leads."""
        return self._vfs.target(inode).encode()

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        """Do nothing: an inode is found again by its number."""

    @guarded
    async def statfs(self, ctx: Any) -> StatvfsData:
        """Return the known objects and bytes, from memory, as a file system without free space."""
        usage = self._vfs.usage()
        data = StatvfsData()
        data.f_bsize = data.f_frsize = FRAGMENT
        data.f_blocks = -(-usage.size // FRAGMENT)
        data.f_bfree = data.f_bavail = 0
        data.f_files = usage.objects
        data.f_ffree = data.f_favail = 0
        data.f_namemax = 255
        return data

    # directories

    @guarded
    async def opendir(self, inode: int, ctx: Any) -> int:
        """Take the listing, from the service if needed. No other handler asks for a listing."""
        with self._interruptible.waiting(ctx.pid):
            folder = await self._vfs.open_folder(inode, pid=ctx.pid)
        if folder.answered:
            self.error_stats.worked()
        number = next(self._numbers)
        self._folders[number] = OpenFolder(folder, self._kernel.changes)
        self._kernel.opened(inode)
        return number

    @guarded
    async def readdir(self, fh: int, start_id: int, token: Any) -> None:
        """Return entries from ``start_id`` on, an index into the listing taken at opendir.

        If something has changed since, attributes are given as they are now: the kernel was told
        of the change before, and would keep those of opendir.
        """
        self._vfs.check()
        opened = self._folders[fh]
        entries = opened.handle.entries
        if opened.handle.view:
            await self._read_view(entries, start_id, token)
            return
        attributes, folder = self._blank(), None
        reply, fill = pyfuse3.readdir_reply, self._fill
        changed = opened.changes != self._kernel.changes
        for index in range(start_id, len(entries)):
            entry = entries[index]
            if changed:
                now = self._vfs.now(entry)
                attributes.entry_timeout = attributes.attr_timeout = KEPT_S if now else 0.0
                entry = now or entry
            if entry.is_directory is not folder:
                folder = entry.is_directory
                self._set_kind(attributes, folder)
            fill(attributes, entry)
            if not reply(token, cast(Any, entry.name.encode()), attributes, index + 1):
                break

    async def _read_view(self, entries: Sequence[Entry], start_id: int, token: Any) -> None:
        """Return entries of a view as they are now, with the sizes of texts that are known now.

        An unknown size is 0 to the kernel, so one that became known since opendir must not be given
        as unknown while somebody reads the text.
        """
        for start in range(start_id, len(entries), NOW_AT_ONCE):
            some = entries[start : start + NOW_AT_ONCE]
            for entry in some:
                await self._former_gone(entry.ino)
            for index, entry in enumerate(self._vfs.now_in_view(some), start + 1):
                name, attributes = entry.name.encode(), self._attributes(entry)
                if not pyfuse3.readdir_reply(token, cast(Any, name), attributes, index):
                    return

    @guarded
    async def releasedir(self, fh: int) -> None:
        """Drop the listing."""
        opened = self._folders.pop(fh, None)
        if opened is not None:
            self._kernel.released(opened.handle.ino)

    # files

    @guarded
    async def open(self, inode: int, flags: int, ctx: Any) -> FileInfo:
        """Open for reading; wait only if the size is in doubt, the kernel was not told it yet, or
        the journal has to wait for its disk.

        Many programs rely on the size of the open file, and never read a file of 0 bytes. If the
        cache knows another length than the record says, the kernel must learn it before the open
        returns. Raises EROFS for any access but reading.
        """
        if flags & os.O_ACCMODE != os.O_RDONLY:
            raise FUSEError(errno.EROFS)
        if inode >= VIEW_BIT:
            return await self._open_text(inode, Opener(ctx.uid, ctx.pid))
        handle = await self._vfs.open(inode, Opener(ctx.uid, ctx.pid))
        try:
            if handle.doubtful:
                with self._interruptible.waiting(ctx.pid):
                    await self._vfs.read(handle, 0, 1)
            await self._tell_size(inode)
        except BaseException:
            self._vfs.release(handle)
            raise
        number = next(self._numbers)
        direct = bool(flags & os.O_DIRECT)
        self._files[number] = OpenFile(handle, inode, ctx.pid, direct=direct)
        self._kernel.opened(inode)
        return FileInfo(fh=cast(Any, number), keep_cache=True)

    async def _open_text(self, inode: int, opener: Opener) -> FileInfo:
        """Open a text of the views. The kernel drops its pages: it is not told of every change.

        If the kernel may believe a former size, the answer is ESTALE: then it looks the name up
        again, which tells it the size, and opens again (do_filp_open in fs/namei.c).
        """
        with self._interruptible.waiting(opener.pid):
            text = await self._vfs.open_text(inode, opener)
        try:
            resized = self._vfs.text_was_resized(inode)
            await self._tell_size(inode)
            if resized:
                raise FUSEError(errno.ESTALE)
        except BaseException:
            self._vfs.close_text(text)
            raise
        number = next(self._numbers)
        self._texts[number] = text
        self._kernel.opened(inode)
        return FileInfo(fh=cast(Any, number), keep_cache=False)

    @guarded
    async def read(self, fh: int, off: int, size: int) -> bytes:
        """Return bytes at once if they are cached, or else wait for them.

        A borrowed buffer is safe here, because pyfuse3 replies as soon as this returns, before
        any other task runs (``fuse_read_async`` in its handlers.pxi).
        """
        file = self._files.get(fh)
        if file is None:
            self._vfs.check()
            return self._texts[fh].read(off, size)
        if size <= LITTLE:
            if file.reads_little:  # before lend_now: the prefill borrows a buffer, too
                self._prefill_page_cache(file, off)
            file.reads_little = True
        data = self._vfs.lend_now(file.handle, off, size)
        if data is None:
            data = await self._wait_for(fh, file, off, size)
        if file.handle.told != file.believed:
            data = await self._after_the_size(file, off, size, bytes(data))
        return cast(bytes, data)  # pyfuse3 takes any buffer

    async def _after_the_size(self, file: OpenFile, off: int, size: int, data: bytes) -> bytes:
        """Return ``data`` after the kernel was told the size, which differs from what it believed.

        If the kernel believes a larger size, it fills the rest of a short answer with zeros, and
        the present reader gets them. The kernel takes the new size from a short answer
        (fuse_short_read in fs/fuse/file.c), but not if the request is older than the latest
        invalidation. So the first short answer for the page that holds the end is EIO: the kernel
        requests that page again before it reports an error (filemap_update_page in mm/filemap.c),
        and then accepts the short answer. A read beyond the end is always EIO, because an empty
        answer would set the size to the offset of the read.
        """
        await self._tell_size(file.ino)
        if file.direct:  # no page is zero-filled; the kernel ends the next read at its own size
            file.believed = file.handle.told
            return data
        end = off + len(data)
        if end >= min(off + size, file.believed):
            file.believed = max(file.believed, file.handle.told)
            return data
        if not data or self._shrunk.get(file.ino) != end:
            if data:
                self._shrunk[file.ino] = end
            else:
                log.info("inode %d ends before %d, where it was read just now", file.ino, off)
            raise FUSEError(errno.EIO)
        return data

    async def _tell_size(self, ino: int) -> None:
        """Wait until the kernel was told the size. Raises EIO after ``TELLING_S``."""
        with trio.move_on_after(TELLING_S) as scope:
            await self._kernel.told(ino)
        if scope.cancelled_caught:
            log.warning("the kernel could not be told the size of inode %d in time", ino)
            raise FUSEError(errno.EIO)

    async def _wait_for(self, fh: int, file: OpenFile, off: int, size: int) -> bytes | memoryview:
        """Wait for bytes that are not cached; raise at once if the same bytes have just failed."""
        self._recent_errors.check(file.ino, off, off + size, trio.current_time())
        answered = self._vfs.reads_answered
        try:
            with self._interruptible.reading(file.pid, fh, off, off + size, direct=file.direct):
                data = await self._vfs.lend(file.handle, off, size)
        except Unavailable as error:
            self._recent_errors.note(file.ino, off, off + size, error, trio.current_time())
            raise
        if self._vfs.reads_answered > answered:  # else the bytes were on disk
            self.error_stats.worked()
        return data

    def _prefill_page_cache(self, file: OpenFile, off: int) -> None:
        """Put the blocks around a small read into the kernel's page cache, if they are cached."""
        now = trio.current_time()
        prefill = file.prefill
        if prefill is None:
            prefill = file.prefill = self._prefills.setdefault(file.ino, PageCachePrefill())
        blocks = prefill.wanted(off, now)
        if blocks is None:
            return
        start = blocks.start * BLOCK
        data = self._vfs.peek(file.handle, start, len(blocks) * BLOCK)
        if data and self._kernel.store(file.ino, start, data):
            prefill.stored(blocks, now)

    @guarded
    async def release(self, fh: int) -> None:
        """Close a file."""
        file = self._files.pop(fh, None)
        if file is not None:
            self._kernel.released(file.ino)
            self._vfs.release(file.handle)
        elif (text := self._texts.pop(fh, None)) is not None:
            self._kernel.released(text.text.ino)
            self._vfs.close_text(text)

    # extended attributes

    @guarded
    async def getxattr(self, inode: int, name: bytes, ctx: Any) -> bytes:
        """Return the value of one attribute. Raises ENODATA if there is none.

        Other name spaces (``security.*``, the ACLs) get EOPNOTSUPP. ``ls -l`` remembers that for
        the file system, so that it asks once and not for each of 10,000 files.
        """
        if not name.startswith(b"user."):
            raise FUSEError(errno.EOPNOTSUPP)
        text = name.decode("utf-8", "surrogateescape")
        if inode >= VIEW_BIT and text_of_ino(inode) is not None:
            return await self._vfs.text_attribute(inode, text)
        return self._vfs.attribute(inode, text)

    @guarded
    async def listxattr(self, inode: int, ctx: Any) -> list[bytes]:
        """Return the names of the attributes that a copy may keep."""
        return [name.encode("utf-8", "replace") for name in self._vfs.attributes(inode)]

    # requests that would change the tree (the kernel refuses most of them on a read-only mount)

    setattr = refused("setattr")
    mknod = refused("mknod")
    mkdir = refused("mkdir")
    unlink = refused("unlink")
    rmdir = refused("rmdir")
    symlink = refused("symlink")
    rename = refused("rename")
    link = refused("link")
    create = refused("create")
    write = refused("write")
    setxattr = refused("setxattr")
    removexattr = refused("removexattr")

    # conversion

    def _attributes(self, entry: Entry) -> EntryAttributes:
        attributes = self._blank()
        self._set_kind(attributes, entry.is_directory)
        self._fill(attributes, entry)
        if isinstance(entry, ViewEntry):
            self._fill_view(attributes, entry)
        return attributes

    def _fill_view(self, attributes: EntryAttributes, entry: ViewEntry) -> None:
        """Let the kernel keep of an entry of a view only what it is told of.

        A size that is not sure is not kept at all: then a stat, and a read beyond it, ask for the
        attributes first (fuse_update_get_attr in fs/fuse/dir.c).
        """
        attributes.entry_timeout = VIEW_NAME_S
        if not entry.sure:
            attributes.attr_timeout = 0.0
        elif entry.is_directory or entry.target or not entry.told:
            attributes.attr_timeout = VIEW_NAME_S
        if entry.target:
            attributes.st_mode = cast(Any, stat.S_IFLNK | 0o777)

    def _blank(self) -> EntryAttributes:
        attributes = EntryAttributes()
        attributes.st_uid = self._ownership.uid
        attributes.st_gid = self._ownership.gid
        attributes.st_blksize = BLOCK  # the size of the kernel's sequential requests
        attributes.entry_timeout = attributes.attr_timeout = KEPT_S
        return attributes

    def _set_kind(self, attributes: EntryAttributes, folder: bool) -> None:
        kind = stat.S_IFDIR | 0o555 if folder else stat.S_IFREG | 0o444
        attributes.st_mode = cast(Any, kind & ~self._ownership.umask)
        attributes.st_nlink = 1  # of a directory: not counted; 2 would mean no subdirectories

    @staticmethod
    def _fill(attributes: EntryAttributes, entry: Entry) -> None:
        attributes.st_ino = cast(Any, entry.ino)
        attributes.st_size = entry.size
        attributes.st_blocks = -(-entry.size // SECTOR)
        attributes.st_mtime_ns = attributes.st_atime_ns = entry.mtime_ms * 1_000_000
        attributes.st_ctime_ns = entry.ctime_ms * 1_000_000


def _text(name: bytes) -> str:
    """Decode a name. Raises NoSuchName if it is not UTF-8, since no entry has such a name."""
    try:
        return name.decode()
    except UnicodeDecodeError:
        raise NoSuchName("a name that is not UTF-8 is in no folder") from None
