"""A tree of regions, years, months and days in memory, as ``Vfs`` gives it to a listing."""

from collections.abc import Iterable, Mapping

from phonofs.catalogue.catalogue import Details, Entry
from phonofs.catalogue.types import Listed
from phonofs.errors import NoSuchName, NotAFolder
from phonofs.model import Record
from phonofs.tree.layout import FIRST_OBJECT_INO, ROOT
from phonofs.vfs import FolderHandle
from tests.support.service_world import record

MTIME_MS = 1_700_000_000_123


class Tree:
    """Has these files, all in days; counts the days that were listed, and the objects looked at.

    types     of files that are no ``callrecording``, by path
    archived  the paths of archived files
    """

    def __init__(
        self,
        paths: Iterable[str],
        types: Mapping[str, str] | None = None,
        archived: Iterable[str] = (),
    ) -> None:
        self._types = dict(types or {})
        self._archived = frozenset(archived)
        self._inos = {"": ROOT}
        self._below: dict[str, set[str]] = {"": set()}
        self._files: dict[str, int] = {}
        self.days_listed: list[str] = []
        self.looked_at = 0
        for path in paths:
            self._files[path] = FIRST_OBJECT_INO + len(self._files)
            self._add(path)

    def _add(self, path: str) -> None:
        above, _, name = path.rpartition("/")
        if above not in self._below:
            self._below[above] = set()
            self._inos[above] = ROOT + len(self._inos)
            self._add(above)
        self._below[above].add(name)

    def _path(self, ino: int) -> str:
        both = self._inos | self._files
        return next(path for path, each in both.items() if each == ino)

    def _entry(self, path: str) -> Entry:
        name = path.rpartition("/")[2]
        if path in self._files:
            archived = path in self._archived
            return Entry(self._files[path], name, False, len(path), MTIME_MS, MTIME_MS, archived)
        return Entry(self._inos[path], name, True, 0, MTIME_MS, MTIME_MS, False)

    async def walk(self, path: str) -> Entry:
        if any(part in ("", ".", "..") for part in path.split("/")) and path:
            raise NoSuchName(path)
        if path not in self._inos and path not in self._files:
            raise NoSuchName(path)
        return self._entry(path)

    async def lookup(self, ino: int, name: str) -> Entry:
        folder = self._path(ino)
        return await Tree.walk(self, f"{folder}/{name}" if folder else name)

    def entry(self, ino: int) -> Entry:
        return self._entry(self._path(ino))

    def parent(self, ino: int) -> Entry:
        return self._entry(self._path(ino).rpartition("/")[0])

    async def open_folder(self, ino: int) -> FolderHandle:
        path = self._path(ino)
        names = sorted(self._below[path])  # as folders are sorted: "us" before "us-east"
        entries = [self._entry(f"{path}/{name}" if path else name) for name in names]
        return FolderHandle(ino, entries, answered=False)

    async def open_day(self, ino: int) -> bool:
        if ino >= FIRST_OBJECT_INO:
            raise NotAFolder("a file")
        path = self._path(ino)
        if not any(f"{path}/{name}" in self._files for name in self._below[path]):
            return False
        self.days_listed.append(path)
        return True

    def day_from(self, ino: int, name: str, most: int, *, behind: bool) -> list[Listed]:
        path = self._path(ino)
        names = sorted(each for each in self._below[path] if each >= name)
        names = [each for each in names if not behind or each != name][:most]
        self.looked_at += len(names)
        return [self._listed(f"{path}/{each}") for each in names]

    def names(self, ino: int) -> set[str]:
        """Return the names of the files in a folder; none if it has folders."""
        path = self._path(ino)
        return {name for name in self._below[path] if f"{path}/{name}" in self._files}

    def _listed(self, path: str) -> Listed:
        state = "ARCHIVED" if path in self._archived else "AVAILABLE"
        name, ino = path.rpartition("/")[2], self._files[path]
        return ino, name, len(path), MTIME_MS, MTIME_MS, MTIME_MS, f"id{ino}", state, f"f{ino}"

    def record(self, ino: int) -> Record:
        path = next(path for path, each in self._files.items() if each == ino)
        return record(f"id{ino}", type=self._types.get(path, "callrecording"))

    def details(self, entries: Iterable[Entry]) -> dict[int, Details]:
        return {}
