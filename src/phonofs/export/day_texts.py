"""Copies the texts of the calls of a day: conversations, subtitles, summaries, notes.

A text belongs to the export if the object that it is a text of is there, or one that it is made of.
Used by ``run``.
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import partial

from phonofs.export.contents import Contents, NotCopied, Reason, TextName
from phonofs.export.copier import Task, Without
from phonofs.export.copying import Staged, copy
from phonofs.export.destination import Destination
from phonofs.export.ledger import File, Key, Ledger
from phonofs.export.workers import Workers
from phonofs.views.names import KIND_SHIFT, TextKind, text_of_ino
from phonofs.views.places import BY_DAY

_TEXTS = frozenset({TextKind.CONVERSATION, TextKind.SUBTITLES, TextKind.SUMMARY, TextKind.NOTES})


def view_of(day: str, views: str) -> str:
    """Return the path of the view that shows a day; the views stand beside the years."""
    *region, _, _, name = day.split("/")
    return "/".join((*region, views, BY_DAY, name))


def texts_in(in_view: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
    """Return the texts in the view of a day, each with the inode number of its object.

    The number of a text tells that of its object.
    """
    found = []
    for name, ino in in_view:
        kind = text_of_ino(ino) if ino >> KIND_SHIFT else None
        if kind is not None and kind[0] in _TEXTS:
            found.append((name, kind[1]))
    return found


def text_names(
    texts: Iterable[tuple[str, int]], in_tree: Iterable[tuple[str, int]]
) -> list[TextName]:
    """Return texts with the names of their objects, by the inode numbers of a day's files."""
    names = {ino: name for name, ino in in_tree}
    return [TextName(name, names.get(of, "")) for name, of in texts]


class DayTexts:
    """Finds the texts that belong to an export. Owns no state."""

    def __init__(
        self, destination: Destination, ledger: Ledger, contents: Contents, workers: Workers
    ) -> None:
        self._destination = destination
        self._ledger = ledger
        self._contents = contents
        self._workers = workers

    def tasks(self, day: str, there: Mapping[str, Key]) -> Iterator[Task]:
        """Yield a task for each text of a day; ``there`` are the files of its objects, by path.

        Raises NotCopied if the texts cannot be listed.
        """
        by_id = {id: (region, id) for region, id in there.values()}
        for text in self._contents.texts(day):
            key = there.get(f"{day}/{text.of}") or self._source(day, text, by_id)
            if key is not None:
                path = f"{day}/{text.name}"
                work = partial(self._copied, day, text.name, self._ledger.in_place(path))
                yield Task(path, key, work, "text")

    def _source(self, day: str, text: TextName, by_id: Mapping[str, Key]) -> Key | None:
        """Return the first object that a text is made of and that is there."""
        try:
            ids = self._contents.made_from(day, text.name)
        except NotCopied as error:
            if error.reason is Reason.WITHDRAWN:  # since the day was listed
                return None
            raise
        found = map(by_id.get, ids)
        return next(filter(None, found), None)

    def _copied(self, day: str, name: str, there: File | None) -> Staged | Without:
        """Copy a text, unless it is there already. Runs in a thread."""
        told = self._contents.text_status(day, name)
        if told is None:
            return Without.ABSENT
        if there is not None and (there.bytes, there.mtime_ns) == told:
            return Without.UNCHANGED
        source = self._contents.open_text(day, name)
        try:
            return copy(source, self._destination, size=None, checksum="", stop=self._workers.stop)
        finally:
            source.close()
