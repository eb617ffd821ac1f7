"""Makes the texts of the views, and knows how long they are.

A text is made of the content of one or several objects, which are read like any file. Its size is
known once it was made, and is then kept in the catalogue; it is never estimated. Used by ``vfs``
and ``views``; ``changes.py`` tells it what changed.
"""

import copy
import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

import trio
from cachetools import LRUCache

from phonofs.catalogue.catalogue import REMOVED, Catalogue, ChangeSet
from phonofs.catalogue.text_sizes import NO_TEXT
from phonofs.errors import (
    Archived,
    CatalogueError,
    Gone,
    NoSuchName,
    PhonofsError,
    Unavailable,
    forget_frames,
)
from phonofs.model import Record, State
from phonofs.reader.reader import NO_SCAN, Reader
from phonofs.texts import forms, render
from phonofs.view_tree.manifests import written
from phonofs.view_tree.open_text import Made, Making, OpenText, version_of
from phonofs.views.calls import CallObject
from phonofs.views.names import KIND_SHIFT, MANIFESTS, Manifest, Text, TextKind

log = logging.getLogger(__name__)

BYTES_KEPT = 4 << 20
"""Texts kept in memory, in bytes: a day of 1,000 calls."""

IN_THREAD_BYTES = 128 << 10
"""Sources that are longer are read and written in a thread: their JSON takes more than 2 ms."""

LARGE = 2 << 20
"""Sources that are longer are read and written one text at a time: as objects of Python, 16 MiB of
JSON take 100 MiB."""

THREADS = 2
"""Texts that are read and written in threads at a time."""

AHEAD = (4, 8, 14, 28)
"""How many of the next texts of a directory are made beside the first, the second … whose size is
asked for."""

NEW_KEPT = 10_000
"""Texts of which it is kept that they were made or changed and not opened yet: more than are while
an answer is on its way to the kernel. Those before have been looked up again."""

WRITTEN_BY = "texts"
"""The catalogue's key for the version by which the texts were written whose sizes it has."""


class TextFiles:
    """Owns the texts that are being made, are open, or were made last.

    ``_resized`` are texts of which the kernel may still believe a former size: an open must have
    the name looked up again first, with the size. ``_new`` are those that were made last and not
    opened since: an answer from before, which had no size, may still be on its way to the kernel.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        reader: Reader,
        *,
        profile: str = "",
        most_ahead: int = AHEAD[-1],
        tell_size: Callable[[int], None] = lambda ino: None,
    ) -> None:
        """``profile`` is named in lists. At most ``most_ahead`` texts are made that nobody waits
        for. ``tell_size`` has the kernel drop the size and the pages of a text.
        """
        self._most_ahead = min(most_ahead, AHEAD[-1])
        self._catalogue = catalogue
        self._sizes = catalogue.text_sizes
        self._reader = reader
        self._profile = profile
        self._tell_size = tell_size
        self._nursery: trio.Nursery | None = None
        self._making: dict[tuple[int, int], Making] = {}
        self._kept: LRUCache[int, tuple[int, bytes]] = LRUCache(
            BYTES_KEPT, lambda kept: len(kept[1]) + 100
        )
        self._open: defaultdict[int, set[OpenText]] = defaultdict(set)
        self._resized: LRUCache[int, None] = LRUCache(NEW_KEPT)
        self._new: LRUCache[int, None] = LRUCache(NEW_KEPT)
        self._unknown_forms: set[str] = set()
        self._large = trio.CapacityLimiter(1)
        self._threads = trio.CapacityLimiter(THREADS)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Make texts until cancelled. Sizes that another version noted are forgotten first."""
        self._forget_outdated()
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._nursery = None

    def _forget_outdated(self) -> None:
        written = str(render.VERSION)
        if self._catalogue.notes.recall(WRITTEN_BY) != written:
            try:
                self._sizes.forget_all()
                self._catalogue.notes.remember(WRITTEN_BY, written)
            except CatalogueError as error:
                log.warning("the sizes of texts could not be forgotten: %s", error)

    def statistics(self) -> dict[str, int]:
        """Return the gauges: texts that are being made, and forms that were not known."""
        return {"making": len(self._making), "unknown_forms": len(self._unknown_forms)}

    # sizes

    def known_sizes(self, texts: Sequence[Made]) -> dict[int, int]:
        """Return the sizes that are known, in bytes or NO_TEXT, by inode number. Never waits."""
        last = self.last_sizes(texts)
        return {ino: size for ino, (size, is_current) in last.items() if is_current}

    def last_sizes(self, texts: Sequence[Made]) -> dict[int, tuple[int, bool]]:
        """Return the sizes that were known last, and of each whether it is that of the text now.

        The kernel was told of no other size. Never waits.
        """
        known = self._sizes.known([text.ino for text in texts])
        return {
            text.ino: (known[text.ino][1], known[text.ino][0] == version_of(text))
            for text in texts
            if text.ino in known
        }

    async def size(self, text: Made) -> int:
        """Return the size of a text in bytes; make the text first if it is not known.

        Raises NoSuchName if its source has a form that is not known; errors of the service.
        """
        size = self.known_sizes([text]).get(text.ino)
        if size is None:
            content = await self._content(text)
            size = NO_TEXT if content is None else len(content)
        if size == NO_TEXT:
            raise NoSuchName("there is no text of a content whose form is not known")
        return size

    def make_ahead(self, texts: Sequence[Made], count: int) -> None:
        """Begin to make at most ``count`` of these texts: those whose sizes are not known."""
        known = self.known_sizes(texts)
        unknown = [text for text in texts if text.ino not in known]
        coming = [text for text in unknown if (text.ino, version_of(text)) not in self._making]
        for text in coming[: max(0, min(count, self._most_ahead - len(self._making)))]:
            with suppress(Unavailable):
                self._start(text)

    # bytes

    async def open(self, text: Made) -> OpenText:
        """Open a text. Raises as :meth:`size` does.

        Once the kernel has been told, it believes no answer from before the text was made.
        """
        content = await self._content(text)
        if content is None:
            raise NoSuchName("there is no text of a content whose form is not known")
        if text.ino in self._new:
            del self._new[text.ino]
            self._tell_size(text.ino)
        opened = OpenText(text, content)
        self._open[text.ino].add(opened)
        return opened

    def close(self, opened: OpenText) -> None:
        """Close a text."""
        ino = opened.text.ino
        self._open[ino].discard(opened)
        if not self._open[ino]:
            del self._open[ino]

    def was_resized(self, ino: int) -> bool:
        """Return whether the kernel may believe a former size of a text; true once."""
        resized = ino in self._resized
        if resized:
            del self._resized[ino]
        return resized

    # changes

    def changed(self, changes: ChangeSet) -> None:
        """Forget what is made of objects that have gone or have other content now."""
        self._forget_lists(changes)
        gone = {
            change.ino for change in changes.objects if change.kind == REMOVED or change.content
        }
        if not gone:
            return
        stale: set[int] = set()
        for opened in [each for some in self._open.values() for each in some]:
            if not gone.isdisjoint(opened.text.made_of):
                opened.withdraw()
                stale.add(opened.text.ino)
        for making in self._making.values():
            if not gone.isdisjoint(making.text.made_of):
                making.outdate()
        try:
            stale |= self._sizes.made_of(gone)
            if stale:
                self._sizes.forget(stale, gone)
        except CatalogueError as error:  # a failing disk; the kernel is told all the same
            log.warning("the sizes of texts could not be forgotten: %s", error)
            self._kept.clear()
        for ino in stale:
            self._kept.pop(ino, None)
            self._resized[ino] = None
            self._tell_size(ino)

    def _forget_lists(self, changes: ChangeSet) -> None:
        """Forget the lists of the days of which objects have gone or changed."""
        days = {parent for change in changes.objects for parent, _ in change.entries}
        days |= {change.parent_ino for change in changes.objects}
        lists = {kind << KIND_SHIFT | day for kind in MANIFESTS.values() for day in days if day}
        for ino in self._sizes.known([*lists]):
            self._tell_size(ino)
        for ino in lists:
            self._kept.pop(ino, None)
            for opened in self._open.get(ino, ()):
                opened.withdraw()
        for making in self._making.values():
            if making.text.ino in lists:
                making.outdate()

    # making

    async def _content(self, text: Made) -> bytes | None:
        """Return the bytes of a text, None if there are none. Raises errors of the service."""
        version, content = self._kept.get(text.ino, (0, b""))
        if version == version_of(text):
            return content
        making = self._start(text)
        await making.over.wait()
        if making.error is not None:
            raise copy.copy(making.error) from making.error  # one for each who waits
        return making.content

    def _start(self, text: Made) -> Making:
        key = text.ino, version_of(text)
        making = self._making.get(key)
        if making is None:
            if self._nursery is None:
                raise Unavailable("phonofs is not reading now")
            making = Making(text)
            try:
                self._nursery.start_soon(self._make, text, making)
            except RuntimeError as error:  # its last task has just ended
                raise Unavailable("phonofs is not reading now") from error
            self._making[key] = making
        return making

    async def _make(self, text: Made, making: Making) -> None:
        content: bytes | None = None
        error: PhonofsError | None = PhonofsError("the text could not be made")
        try:
            made = await self._made(text)
            if making.outdated:
                raise Gone("what this text is made of was taken away or changed")
            self._learned(text, made)
            content, error = made, None
        except PhonofsError as failed:
            error = forget_frames(failed)
        except Exception:
            log.exception("a text could not be made through a fault of phonofs")
        finally:
            del self._making[text.ino, version_of(text)]
            making.end(content, error)

    async def _made(self, text: Made) -> bytes | None:
        if isinstance(text, Manifest):
            return await written(self._catalogue, text, self._profile)
        records = [(source.ino, self._record(source)) for source in text.sources]
        size = sum(record.size for _, record in records)
        content = None
        if size <= LARGE:
            content = await self._written(text, records)
        elif size <= forms.LARGEST:
            async with self._large:
                content = await self._written(text, records)
        if content is None and text.kind is not TextKind.SUBTITLES:
            self._note_unknown(text.sources[0])
        return content

    async def _written(self, text: Text, records: Sequence[tuple[int, Record]]) -> bytes | None:
        contents = [await self._read(ino, record) for ino, record in records]
        made = partial(_written, text, contents)
        if sum(map(len, contents)) > IN_THREAD_BYTES:
            return await trio.to_thread.run_sync(made, limiter=self._threads)
        return made()

    def _record(self, source: CallObject) -> Record:
        try:
            record = self._catalogue.record(source.ino)
        except NoSuchName:
            raise Gone(f"object {source.id} is not there any more") from None
        if record.state == State.ARCHIVED:
            raise Archived(f"object {source.id} is archived")
        return record

    async def _read(self, ino: int, record: Record) -> bytes:
        handle = self._reader.open(record, ino, pid=NO_SCAN)
        try:
            return await self._reader.read(handle, 0, forms.LARGEST + 1)
        finally:
            self._reader.release(handle)

    def _learned(self, text: Made, content: bytes | None) -> None:
        """Keep a text and its size; if its size was another one, have the kernel forget that."""
        known = version_of(text), NO_TEXT if content is None else len(content)
        before = None
        try:
            before = self._sizes.known([text.ino]).get(text.ino)
            if before != known:
                self._new[text.ino] = None
                self._sizes.put(text.ino, *known, sources=text.made_of)
        except CatalogueError as error:
            log.warning("the size of a text could not be noted: %s", error)
        if content is not None:
            with suppress(ValueError):  # a text that is longer than all that is kept
                self._kept[text.ino] = known[0], content
        if before not in (None, known):
            self._resized[text.ino] = None
            self._tell_size(text.ino)
            for opened in self._open.get(text.ino, ()):
                opened.withdraw()

    def _note_unknown(self, source: CallObject) -> None:
        if source.type not in self._unknown_forms:
            self._unknown_forms.add(source.type)
            log.warning(
                "object %s (%s) has a form that is not known: there is no text of it and its like",
                source.id,
                source.type,
            )


def _written(text: Text, contents: Sequence[bytes]) -> bytes | None:
    """Return the bytes of a text, made of the contents of its sources; None if that cannot be."""
    match text.kind:
        case TextKind.SUMMARY:
            words = forms.summary(contents[0])
            return None if words is None else render.plain_file(words)
        case TextKind.NOTES:
            words = forms.notes(contents[0])
            return None if words is None else render.plain_file(words)
    sides = []
    for source, content in zip(text.sources, contents, strict=True):
        said = forms.utterances(content, text.of.duration_ms / 1000)
        if said is None:
            return None
        if source.speaker:
            said = [each._replace(speaker=source.speaker) for each in said]
        names = {"owner": source.owner, "external": source.party}
        sides.append(forms.spoken_by(said, {who: name for who, name in names.items() if name}))
    conversation = forms.merged(sides)
    if text.kind is TextKind.SUBTITLES:
        return render.subtitle_file(conversation)
    return render.text_file(conversation)
