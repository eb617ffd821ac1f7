"""The file system ``phonofs://``."""

import errno
import hashlib
import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from glob import has_magic
from itertools import groupby
from pathlib import Path
from typing import Any

from fsspec.caching import caches
from fsspec.callbacks import DEFAULT_CALLBACK
from fsspec.utils import isfilelike

from phonofs.client import Item, OpenFile
from phonofs.door.protocol import Entry
from phonofs.spec.clients import Clients
from phonofs.spec.entries import ABSENT, Info, basename, directory, info_of, read_only
from phonofs.spec.file import PhonofsFile
from phonofs.spec.glob import matching
from phonofs.spec.options import BLOCK_SIZE, check_options, is_on, seconds, size
from phonofs.spec.read_only import ReadOnlyFileSystem

PIECE = 8 << 20
"""Bytes that are copied to a file at a time."""


class PhonofsFileSystem(ReadOnlyFileSystem):
    """The recordings of all profiles, read-only. The first part of a path is the profile.

    autostart   whether a daemon may be started for a profile that has none
    socket      the socket of a daemon, instead of the one that the profile's cache folder names
    timeout     seconds to wait for an answer; by default a little longer than ``read_deadline``
    block_size  bytes that a small read of an open file asks for
    cache_type  how an open file reads ahead; one of ``fsspec.caching.caches``

    There is no option for a key or a secret: they belong to the profile, so that no program that
    is sent a pickled file system gets them.

    Owns a client for each profile. It may be used by several threads, after a fork, and pickled.
    """

    protocol = "phonofs"
    root_marker = ""

    def __init__(
        self,
        autostart: bool | str = True,
        socket: str | os.PathLike[str] | None = None,
        timeout: float | str | None = None,
        block_size: int | str = BLOCK_SIZE,
        cache_type: str = "readahead",
        **others: Any,
    ) -> None:
        """Take the options; texts as in the environment (FSSPEC_PHONOFS_TIMEOUT) will do.

        Nothing is connected yet. Raises ValueError for an option that is not known or cannot be
        used.
        """
        check_options(others)
        super().__init__(**others)
        address = None if socket is None else Path(socket)
        self._clients = Clients(address, seconds(timeout), autostart=is_on(autostart))
        known = ", ".join(filter(None, caches))
        if cache_type not in caches:
            raise ValueError(f"cache_type={cache_type!r}: it must be one of {known}")
        self._cache_type = cache_type
        self.blocksize = size(block_size)

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        path = super()._strip_protocol(path)
        return path if isinstance(path, list) else path.lstrip("/")

    def info(self, path: str, **kwargs: Any) -> Info:
        """Return what is known of a file or directory; reading changes none of it."""
        path = self._strip_protocol(path)
        if not path:
            return directory("")
        client, below = self._clients.place(path)
        return info_of(path, client.info(below))

    def ls(self, path: str, detail: bool = True, refresh: bool = False, **kwargs: Any) -> list[Any]:
        """List a directory; of a file, the file. ``refresh`` lists a known day anew."""
        infos = self._listed(self._strip_protocol(path), refresh)
        return infos if detail else [info["name"] for info in infos]

    def _listed(self, path: str, refresh: bool) -> list[Info]:
        if not path:
            return [directory(name) for name in self._clients.names()]
        client, below = self._clients.place(path)
        try:
            entries = client.ls(below, refresh=refresh)
        except NotADirectoryError:
            return [info_of(path, client.info(below))]
        return [info_of(f"{path}/{entry.name}", entry) for entry in entries]

    def find(
        self,
        path: str,
        maxdepth: int | None = None,
        withdirs: bool = False,
        detail: bool = False,
        **kwargs: Any,
    ) -> Any:
        """List all files below a directory: all of them, or an error."""
        _check_depth(maxdepth)
        path = self._strip_protocol(path)
        if path:
            found = self._found(path, maxdepth, withdirs)
        else:
            names = self._clients.names()
            found = dict.fromkeys(names) if withdirs else {}
            if maxdepth != 1:
                below = None if maxdepth is None else maxdepth - 1
                for name in names:
                    found |= self._found(name, below, withdirs)
        if not detail:
            return sorted(found)
        return {name: _info(name, found[name]) for name in sorted(found)}

    def _found(self, path: str, maxdepth: int | None, withdirs: bool) -> dict[str, Entry | None]:
        client, below = self._clients.place(path)
        entries = client.find(below, maxdepth, withdirs=withdirs)
        if len(entries) == 1 and not entries[0].name:
            return {path: entries[0]}  # it is a file
        found: dict[str, Entry | None] = {f"{path}/{each.name}": each for each in entries}
        if withdirs:
            found[path] = client.info(below)
        return found

    def walk(
        self,
        path: str,
        maxdepth: int | None = None,
        topdown: bool = True,
        on_error: str | Callable[[OSError], Any] = "raise",
        **kwargs: Any,
    ) -> Iterator[tuple[str, Any, Any]]:
        """Walk as ``os.walk``, but raise what fails.

        With ``on_error="omit"``, what is gone meanwhile is left out; an error is raised even so. A
        function is called with it, and decides.
        """
        _check_depth(maxdepth)
        path = self._strip_protocol(path)
        detail = kwargs.pop("detail", False)
        try:
            infos = self.ls(path, detail=True, **kwargs)
        except OSError as error:
            if callable(on_error):
                on_error(error)
            elif on_error != "omit" or not isinstance(error, ABSENT):
                raise
            return
        dirs = {basename(info): info for info in infos if info["type"] == "directory"}
        files = {
            "" if info["name"] == path else basename(info): info
            for info in infos
            if info["type"] != "directory"
        }
        step = (path, dirs if detail else [*dirs], files if detail else [*files])
        if topdown:
            yield step
        if maxdepth is None or maxdepth > 1:
            below = None if maxdepth is None else maxdepth - 1
            for name in [*step[1]]:
                where = f"{path}/{name}" if path else name
                yield from self.walk(where, below, topdown, on_error, detail=detail, **kwargs)
        if not topdown:
            yield step

    def glob(self, path: str, maxdepth: int | None = None, **kwargs: Any) -> Any:
        """Find what matches a pattern; without ``**``, only directories that match are listed."""
        _check_depth(maxdepth)
        detail = kwargs.pop("detail", False)
        stripped = self._strip_protocol(path)
        try:
            if "**" in stripped:
                found = super().glob(path, maxdepth=maxdepth, detail=True, **kwargs)
            else:
                infos = matching(self, stripped.split("/"), only_directories=path.endswith("/"))
                found = {info["name"]: info for info in infos}
        except ABSENT:
            found = {}
        return {name: found[name] for name in sorted(found)} if detail else sorted(found)

    def du(
        self,
        path: str,
        total: bool = True,
        maxdepth: int | None = None,
        withdirs: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Return the bytes of all files below a directory, or those of each."""
        found = self.find(path, maxdepth=maxdepth, withdirs=withdirs, detail=True)
        sizes = {
            name: self.info(name)["size"] if info["size"] is None else info["size"]
            for name, info in found.items()
        }
        return sum(sizes.values()) if total else sizes

    def _there(self, path: str) -> Info | None:
        """Return what is known of a path; None if nothing is there. Raises what cannot be asked."""
        try:
            return self.info(path)
        except ABSENT:
            return None

    def exists(self, path: str, **kwargs: Any) -> bool:
        """Return whether something is there; raises an error if that cannot be asked."""
        return self._there(path) is not None

    def isfile(self, path: str) -> bool:
        """Return whether a file is there; raises an error if that cannot be asked."""
        info = self._there(path)
        return info is not None and info["type"] == "file"

    def isdir(self, path: str) -> bool:
        """Return whether a directory is there; raises an error if that cannot be asked."""
        info = self._there(path)
        return info is not None and info["type"] == "directory"

    def size(self, path: str) -> int:
        """Return the size of a file in bytes."""
        found: int = self.info(path)["size"]
        return found

    def created(self, path: str) -> datetime:
        """Return when the object was created, which is what its folder goes by."""
        info = self.info(path)
        return datetime.fromtimestamp(info["created"] or info["mtime"], UTC)

    def modified(self, path: str) -> datetime:
        """Return when the content was made, or replaced."""
        return datetime.fromtimestamp(self.info(path)["mtime"], UTC)

    def ukey(self, path: str) -> str:
        """Return what changes if the content does, and only then."""
        info = self.info(path)
        version = info["fingerprint"] if info["type"] == "file" else info.get("mtime")
        return hashlib.sha256(repr((info["name"], version)).encode()).hexdigest()

    def checksum(self, path: str) -> int:
        """Return ``ukey`` as a number."""
        return int(self.ukey(path), 16)

    def record(self, path: str) -> bytes:
        """Return the record of an object as JSON, as the service sent it."""
        client, below = self._clients.place(self._strip_protocol(path))
        return client.record(below)

    def cat_file(
        self, path: str, start: int | None = None, end: int | None = None, **kwargs: Any
    ) -> bytes:
        """Return the bytes of a file, or a part of them, as in a slice."""
        if start is None and end is None:
            client, below = self._clients.place(self._strip_protocol(path))
            return client.content(below)
        [result] = self._contents([(path, start, end)])
        if isinstance(result, OSError):
            raise result
        return result

    def cat_ranges(
        self,
        paths: list[str],
        starts: Any,
        ends: Any,
        max_gap: int | None = None,
        on_error: str = "return",
        **kwargs: Any,
    ) -> list[Any]:
        """Return the bytes of parts of files, fetched side by side.

        What failed is an exception in the list, unless ``on_error`` is ``raise``.
        """
        starts = starts if isinstance(starts, Sequence) else [starts] * len(paths)
        ends = ends if isinstance(ends, Sequence) else [ends] * len(paths)
        results = self._contents([*zip(paths, starts, ends, strict=True)])
        return [_or_raised(result, on_error != "return") for result in results]

    def cat(
        self, path: Any, recursive: bool = False, on_error: str = "raise", **kwargs: Any
    ) -> Any:
        """Return the bytes of a file; of several, a dictionary by path, fetched side by side."""
        paths = self.expand_path(path, recursive=recursive, **kwargs)
        if isinstance(path, str) and paths == [self._strip_protocol(path)] and not recursive:
            return self.cat_file(paths[0])
        found: dict[str, Any] = {}
        results = self._contents([(each, None, None) for each in paths])
        for each, result in zip(paths, results, strict=True):
            if isinstance(result, IsADirectoryError) and recursive:
                continue
            result = _or_raised(result, on_error == "raise")
            if not isinstance(result, OSError) or on_error == "return":
                found[each] = result
        return found

    def _contents(self, items: Sequence[Item]) -> Iterator[bytes | OSError]:
        """Yield the bytes of parts of files, in order; those of one profile are one request."""
        placed = [
            (*self._clients.place(self._strip_protocol(path)), start, end)
            for path, start, end in items
        ]
        for client, some in groupby(placed, lambda each: each[0]):
            yield from client.cat([(below, start, end) for _, below, start, end in some])

    def get(self, rpath: Any, lpath: Any, *args: Any, **kwargs: Any) -> None:
        """Copy files or directories. A file that has brackets in its name is not a pattern."""
        if isinstance(rpath, str) and has_magic(rpath) and self.isfile(rpath):
            is_folder = str(lpath).endswith("/") or Path(lpath).is_dir()
            rpath, lpath = [rpath], [Path(lpath) / Path(rpath).name if is_folder else lpath]
        super().get(rpath, lpath, *args, **kwargs)

    def get_file(
        self,
        rpath: str,
        lpath: Any = None,
        callback: Any = DEFAULT_CALLBACK,
        outfile: Any = None,
        **kwargs: Any,
    ) -> None:
        """Copy a file: all of it, or none. Of a directory, make it."""
        if outfile is None and isfilelike(lpath):
            outfile = lpath
        if outfile is not None:
            self._copy(rpath, outfile, callback)
        elif self.isdir(rpath):
            Path(lpath).mkdir(parents=True, exist_ok=True)
        else:
            target = Path(lpath)
            target.parent.mkdir(parents=True, exist_ok=True)
            beside = target.with_name(f".phonofs-{secrets.token_hex(8)}")
            try:
                with beside.open("xb") as file:
                    self._copy(rpath, file, callback)
                beside.replace(target)
            finally:
                beside.unlink(missing_ok=True)

    def _copy(self, path: str, outfile: Any, callback: Any) -> None:
        with self.open(path, "rb", cache_type="none") as file:
            callback.set_size(file.size)
            while data := file.read(PIECE):
                outfile.write(data)
                callback.relative_update(len(data))

    def _open(
        self,
        path: str,
        mode: str = "rb",
        block_size: int | str | None = None,
        autocommit: bool = True,
        cache_options: Mapping[str, Any] | None = None,
        cache_type: str | None = None,
        **kwargs: Any,
    ) -> PhonofsFile:
        if mode != "rb":
            raise read_only(path)
        info = self.info(path)
        if info["type"] == "directory":
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        block = self.blocksize if block_size in (None, "default") else size(block_size or 0)
        file = PhonofsFile(self, info, block, cache_type or self._cache_type, cache_options)
        if info["state"] not in ("", "AVAILABLE"):
            file.open_now()  # the daemon says why it cannot be read
        return file

    def opened(self, info: Info) -> OpenFile:
        """Return the content that ``info`` tells of; the first read opens it."""
        client, below = self._clients.place(info["name"])
        return OpenFile(client, below, info["fingerprint"])


def _info(name: str, entry: Entry | None) -> Info:
    """Return an entry as fsspec has it; None stands for a profile."""
    return directory(name) if entry is None else info_of(name, entry)


def _check_depth(maxdepth: int | None) -> None:
    if maxdepth is not None and maxdepth < 1:
        raise ValueError("maxdepth must be at least 1")


def _or_raised(result: bytes | OSError, is_raised: bool) -> bytes | OSError:
    if is_raised and isinstance(result, OSError):
        raise result
    return result
