"""The contents of a session, for ``phonofs export``: the same files as in a mount, without one."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from phonofs.access import How, Opener
from phonofs.attributes import MADE_FROM_ATTRIBUTE
from phonofs.cli.session import Session
from phonofs.errors import (
    Archived,
    Changed,
    CredentialsRefused,
    Gone,
    NoSuchName,
    PhonofsError,
    Refused,
)
from phonofs.export.contents import NotCopied, OpenContent, Reason, TextName
from phonofs.export.day_texts import text_names, texts_in, view_of
from phonofs.reader.open_object import Handle
from phonofs.tree.layout import ROOT
from phonofs.view_tree.open_text import OpenText

REASONS: Sequence[tuple[type[PhonofsError], Reason]] = (
    (Archived, Reason.ARCHIVED),
    (Refused, Reason.REFUSED),
    (CredentialsRefused, Reason.REFUSED),
    (Gone, Reason.WITHDRAWN),
    (NoSuchName, Reason.WITHDRAWN),
    (Changed, Reason.CHANGED),
)
"""What errors mean; any other is UNAVAILABLE."""


class _OpenFile:
    """An open object of a session."""

    def __init__(self, session: Session, ino: int, handle: Handle) -> None:
        self._session = session
        self._ino = ino
        self._handle = handle

    @property
    def size(self) -> int:
        """How many bytes it has, as is known now. Raises NotCopied."""
        return self._status()[0]

    @property
    def mtime_ns(self) -> int:
        """Its time. Raises NotCopied."""
        return self._status()[1]

    def _status(self) -> tuple[int, int]:
        with _explained():
            return self._session.call(self._entry)

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """Read from an offset. Raises NotCopied."""
        with _explained():
            data = self._session.call(self._session.app.vfs.read, self._handle, offset, len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Close it."""
        self._session.call(self._release)

    async def _entry(self) -> tuple[int, int]:
        entry = self._session.app.vfs.entry(self._ino)
        return entry.size, entry.mtime_ms * 1_000_000

    async def _release(self) -> None:
        self._session.app.vfs.release(self._handle)


class _OpenText:
    """An open text of a session."""

    def __init__(self, session: Session, text: OpenText, mtime_ns: int) -> None:
        self._session = session
        self._text = text
        self.size = len(text.content)
        self.mtime_ns = mtime_ns

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """Read from an offset. Raises NotCopied."""
        with _explained():
            data = self._text.read(offset, len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Close it."""
        self._session.call(self._close)

    async def _close(self) -> None:
        self._session.app.vfs.close_text(self._text)


class SessionContents:
    """Opens what a session has. Its paths are those of a mount.

    ``_folders`` are the inode numbers of folders, by path, which are permanent.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._vfs = session.app.vfs
        self._views = session.app.settings.views
        self._folders: dict[str, int] = {"": ROOT}

    def open(self, path: str) -> OpenContent:
        """Open the file of an object. Raises NotCopied."""
        with _explained():
            return self._session.call(self._open, path)

    def texts(self, day: str) -> Sequence[TextName]:
        """Return the texts of the calls of a day. Raises NotCopied."""
        with _explained():
            return self._session.call(self._texts, day)

    def made_from(self, day: str, name: str) -> Sequence[str]:
        """Return the ids of the objects that a text is made from. Raises NotCopied."""
        with _explained():
            return self._session.call(self._made_from, f"{view_of(day, self._views)}/{name}")

    def text_status(self, day: str, name: str) -> tuple[int, int] | None:
        """Return size and time (ns) of a text; None if there is none. Raises NotCopied."""
        with _explained():
            try:
                return self._session.call(self._text_status, f"{view_of(day, self._views)}/{name}")
            except NoSuchName:
                return None

    def open_text(self, day: str, name: str) -> OpenContent:
        """Open a text. Raises NotCopied."""
        with _explained():
            return self._session.call(self._open_text, f"{view_of(day, self._views)}/{name}")

    # in the event loop

    async def _ino(self, path: str) -> int:
        """Return the inode number of a file or folder. Raises NoSuchName."""
        folder, _, name = path.rpartition("/")
        parent = self._folders.get(folder)
        if parent is None:
            parent = self._folders[folder] = await self._ino(folder)
        return (await self._vfs.lookup(parent, name)).ino

    async def _open(self, path: str) -> OpenContent:
        ino = await self._ino(path)
        return _OpenFile(self._session, ino, await self._vfs.open(ino, _opener()))

    async def _texts(self, day: str) -> Sequence[TextName]:
        texts = texts_in(await self._entries(view_of(day, self._views)))
        return text_names(texts, await self._entries(day)) if texts else []

    async def _entries(self, folder: str) -> list[tuple[str, int]]:
        """Return the names in a folder with their inode numbers."""
        opened = await self._vfs.open_folder(await self._ino(folder))
        return [(entry.name, entry.ino) for entry in opened.entries]

    async def _made_from(self, path: str) -> Sequence[str]:
        found = await self._vfs.text_attribute(await self._ino(path), MADE_FROM_ATTRIBUTE)
        return found.decode().split(" ")

    async def _text_status(self, path: str) -> tuple[int, int]:
        entry = await self._vfs.text_entry(await self._ino(path))
        return entry.size, entry.mtime_ms * 1_000_000

    async def _open_text(self, path: str) -> OpenContent:
        ino = await self._ino(path)
        entry = await self._vfs.text_entry(ino)
        text = await self._vfs.open_text(ino, _opener())
        return _OpenText(self._session, text, entry.mtime_ms * 1_000_000)


def _opener() -> Opener:
    return Opener(os.getuid(), os.getpid(), How.EXPORT)


@contextmanager
def _explained() -> Iterator[None]:
    """Raise NotCopied for an error of the tree or the service."""
    try:
        yield
    except PhonofsError as error:
        reasons = (reason for kind, reason in REASONS if isinstance(error, kind))
        raise NotCopied(next(reasons, Reason.UNAVAILABLE), str(error)) from None
