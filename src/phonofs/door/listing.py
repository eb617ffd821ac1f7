"""Lists directories for clients, and what is below them.

A listing is whole, or it ends with an error: what has been sent before does not stand for it.
"""

import errno
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import TypeVar

import msgspec
import trio

from phonofs.catalogue.catalogue import Entry
from phonofs.door.entries import converted, of_day
from phonofs.door.failures import RequestError
from phonofs.door.files import Paths
from phonofs.door.protocol import ENTRIES_AT_ONCE, FIND_MAX
from phonofs.door.protocol import Entry as Shown
from phonofs.errors import NoSuchName, NotAFolder
from phonofs.open_files import gone_is_missing, is_link
from phonofs.vfs import Vfs

_Listed = TypeVar("_Listed")


class Listings:
    """Lists for one client. ``pid`` is its process, 0 if not known."""

    def __init__(self, vfs: Vfs, paths: Paths, pid: int = 0) -> None:
        self._vfs = vfs
        self._paths = paths
        self._pid = pid

    async def ls(self, path: str, *, refresh: bool = False) -> AsyncGenerator[list[Shown], None]:
        """Yield the entries of a directory, some at a time. Raises NotAFolder, ServiceError."""
        with gone_is_missing(path):
            folder = await self._paths.find(path)
            if not folder.is_directory:
                raise NotAFolder(f"{path!r} is a file")
            day = await self._vfs.list_day(folder.ino, pid=self._pid, refresh=refresh)
            if day is None:
                entries = await self._entries(folder.ino, refresh=refresh)
                shown = (converted(self._vfs, some) for some in _some(entries))
            else:
                shown = (of_day(day[0], some) for some in _some(day[1]))
            for some in shown:
                yield some
                await trio.lowlevel.checkpoint()

    async def find(
        self, path: str, maxdepth: int | None = None, *, withdirs: bool = False
    ) -> AsyncGenerator[list[Shown], None]:
        """Yield what is below a directory, or a file itself. Raises RequestError, ServiceError."""
        with gone_is_missing(path):
            top = await self._paths.find(path)
            if not top.is_directory:
                yield [msgspec.structs.replace(await self._paths.info(path), name="")]
                return
            count = 0
            async with aclosing(self._below(top.ino, maxdepth, withdirs=withdirs)) as found:
                async for some in found:
                    count += len(some)
                    if count > FIND_MAX:
                        raise RequestError(
                            errno.E2BIG,
                            f"there are more than {FIND_MAX} entries below {path!r}: name a month "
                            "or a day, or have phonofs manifest list them",
                        )
                    yield some

    async def _below(
        self, top: int, maxdepth: int | None, *, withdirs: bool
    ) -> AsyncGenerator[list[Shown], None]:
        """Yield what is below a directory, depth first, in the order of names."""
        waiting = [("", top, 1)]
        while waiting:
            prefix, ino, depth = waiting.pop()
            try:
                day = await self._vfs.list_day(ino, pid=self._pid)
                entries = await self._entries(ino) if day is None else ()
            except NoSuchName:
                if ino == top:
                    raise
                continue  # it was emptied meanwhile
            region, listed = day or ("", ())
            for objects in _some(listed):
                yield of_day(region, objects, prefix)
                await trio.lowlevel.checkpoint()
            folders = [entry for entry in entries if entry.is_directory and not is_link(entry)]
            if maxdepth is None or depth < maxdepth:
                waiting += [
                    (f"{prefix}{entry.name}/", entry.ino, depth + 1) for entry in reversed(folders)
                ]
            shown = entries if withdirs else [e for e in entries if not e.is_directory]
            for some in _some([entry for entry in shown if withdirs or not is_link(entry)]):
                yield converted(self._vfs, some, prefix)
                await trio.lowlevel.checkpoint()

    async def _entries(self, ino: int, *, refresh: bool = False) -> Sequence[Entry]:
        folder = await self._vfs.open_folder(ino, pid=self._pid, refresh=refresh)
        return folder.entries


def _some(entries: Sequence[_Listed]) -> list[Sequence[_Listed]]:
    return [entries[at : at + ENTRIES_AT_ONCE] for at in range(0, len(entries), ENTRIES_AT_ONCE)]
