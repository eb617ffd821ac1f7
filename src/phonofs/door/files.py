"""Finds and opens what clients name by path."""

from phonofs.access import How, Opener
from phonofs.catalogue.catalogue import Entry
from phonofs.door import protocol
from phonofs.door.entries import converted, of_object, of_text
from phonofs.errors import IsAFolder, NoSuchName
from phonofs.open_files import OpenFile, gone_is_missing, is_text, open_file
from phonofs.vfs import Vfs


class Paths:
    """Finds what clients name by path.

    ``pid`` is the process of the client, 0 if it is not known; ``uid`` its user.
    """

    def __init__(self, vfs: Vfs, pid: int = 0, uid: int | None = None) -> None:
        self._vfs = vfs
        self._pid = pid
        self._uid = uid

    async def find(self, path: str) -> Entry:
        """Return the entry at a path. Raises NoSuchName, NotAFolder, errors of the service."""
        first, _, rest = path.partition("/")
        if first != protocol.BY_ID:
            return await self._vfs.walk(path, pid=self._pid)
        region, _, name = rest.partition("/")
        if not name or "/" in name:
            raise NoSuchName(f"an object is called {protocol.BY_ID}/REGION/ID, not {path!r}")
        return await self._by_id(region, name)

    async def _by_id(self, region: str, name: str) -> Entry:
        """Return an object by its identifier, to which any extension may be added."""
        id, dot, _ = name.rpartition(".")
        if dot and id and not self._vfs.knows(region, name):
            return await self._vfs.by_id(region, id)
        return await self._vfs.by_id(region, name)

    async def info(self, path: str) -> protocol.Entry:
        """Return the entry at a path, with all that is known of it. Raises as :meth:`find`."""
        with gone_is_missing(path):
            entry = await self.find(path)
            name = entry.name if path else ""
            if is_text(entry):
                known = await self._vfs.text_entry(entry.ino)
                fingerprint = await self._vfs.text_fingerprint(entry.ino, known.size)
                return of_text(name, known, fingerprint)
            if entry.is_directory:
                return converted(self._vfs, [entry])[0]
            details = self._vfs.details([entry]).get(entry.ino)
            return of_object(entry, details, self._vfs.record(entry.ino))

    async def open(self, path: str, *, in_order: bool = True) -> OpenFile:
        """Open a file. Raises as ``Vfs.open`` and :meth:`find` do.

        ``in_order``: whether the client may be reading the files of a directory in order.
        """
        opener = Opener(self._uid, self._pid, How.DOOR, in_order)
        with gone_is_missing(path):
            entry = await self.find(path)
            if entry.is_directory:
                raise IsAFolder(f"{path!r} is a folder")
            return await open_file(self._vfs, entry, opener)

    async def record(self, path: str) -> bytes:
        """Return the record of an object: its JSON, as received. Raises as :meth:`find` does."""
        with gone_is_missing(path):
            entry = await self.find(path)
            if entry.is_directory:
                raise IsAFolder(f"{path!r} is a folder")
            if is_text(entry):
                raise NoSuchName(f"{path!r} is made of objects, and has no record of its own")
            return self._vfs.record(entry.ino).source

    async def attribute(self, path: str, name: str) -> bytes:
        """Return an extended attribute. Raises NoSuchAttribute, and as :meth:`find` does."""
        with gone_is_missing(path):
            entry = await self.find(path)
            if is_text(entry):
                return await self._vfs.text_attribute(entry.ino, name)
            return self._vfs.attribute(entry.ino, name)
