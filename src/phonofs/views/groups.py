"""Groups the calls of a span of time by agent or queue. Pure.

A year may have a million objects, so no more is kept of them than their inode numbers.
"""

from array import array
from collections.abc import Callable, Iterable, Iterator

from phonofs.tree.layout import Directory, directory_of
from phonofs.views.calls import Call


class Groups:
    """The calls of some days by name: for each day the inode numbers of the calls' objects.

    Names that differ in case only are one group, as Samba would have it; it has the name of them
    that sorts first. A call without a name is in no group.

    ``count`` is how many numbers are kept, of 8 bytes. Those of a group are, one after the other:
    the number of a day, those of the objects of its calls, the number of the next day, and so on.
    """

    def __init__(self) -> None:
        self._numbers: dict[str, array[int]] = {}
        self._spelling: dict[str, str] = {}
        self.count = 0

    def add(self, day: Directory, calls: Iterable[Call], value: Callable[[Call], str]) -> None:
        """Add the calls of a day; ``value`` returns the name that a call has, or ''."""
        found: dict[str, array[int]] = {}
        for call in calls:
            name = value(call)
            if name:
                key = name.casefold()
                self._spelling[key] = min(self._spelling.get(key, name), name)
                numbers = found.setdefault(key, array("q", (day.ino,)))
                numbers.extend(each.ino for each in call.objects())
        for key, numbers in found.items():
            self._numbers.setdefault(key, array("q")).extend(numbers)
            self.count += len(numbers)

    def names(self) -> list[str]:
        """Return the names of the groups, sorted."""
        return sorted(self._spelling.values())

    def __contains__(self, name: str) -> bool:
        return self._spelling.get(name.casefold()) == name

    def days(self, name: str) -> Iterator[tuple[Directory, set[int]]]:
        """Yield the days on which a group has calls, with the inode numbers of their objects."""
        day, inos = None, set[int]()
        for ino in self._numbers.get(name.casefold(), ()) if name in self else ():
            begun = directory_of(ino)
            if begun is None:
                inos.add(ino)
                continue
            if day is not None:
                yield day, inos
            day, inos = begun, set()
        if day is not None:
            yield day, inos
