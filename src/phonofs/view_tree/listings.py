"""The directories of the views that were listed, and their entries. Used by ``views``."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from phonofs.catalogue.catalogue import Entry
from phonofs.view_tree.text_files import AHEAD
from phonofs.views import names
from phonofs.views.names import Manifest, Text, ViewFile


class ViewEntry(Entry, frozen=True, gc=False):
    """An entry of a view.

    target  where it leads, if it is a link
    sure    whether its size is known; if not, ``size`` is that known last, or 0, and not to be kept
    told    whether the kernel is told if its size changes
    text    what it is, if it is made here
    """

    target: str = ""
    sure: bool = True
    told: bool = True
    text: Text | Manifest | None = None


def named(entry: Entry, name: str, *, sure: bool = True) -> ViewEntry:
    """Return the entry of an object under its name in a view."""
    return ViewEntry(
        entry.ino,
        name,
        False,
        entry.size,
        entry.mtime_ms,
        entry.ctime_ms,
        entry.archived,
        sure=sure,
    )


@dataclass(slots=True)
class Listing:
    """The files of a directory, as they were in this version of its span of time.

    objects  the inode numbers of its objects, in the order of names
    order    the texts, in that order, and the place of each in it
    asked    how many sizes of its texts were asked for before they were known
    """

    version: int
    files: dict[str, ViewFile]
    objects: list[int] = field(default_factory=list)
    texts: list[Text] = field(default_factory=list)
    order: dict[int, int] = field(default_factory=dict)
    asked: int = 0

    @classmethod
    def of(cls, version: int, files: Iterable[ViewFile]) -> "Listing":
        """Return a listing of files."""
        made = cls(version, {file.name: file for file in names.unique(files)})
        for file in made.files.values():
            if file.text is None:
                made.objects.append(file.ino)
            elif isinstance(file.text, Text) and file.ino not in made.order:
                made.order[file.ino] = len(made.texts)
                made.texts.append(file.text)
        return made

    def count_asked(self) -> int:
        """Count another size that was asked for; return how many to make ahead."""
        self.asked += 1
        return AHEAD[min(self.asked, len(AHEAD)) - 1]
