"""What a search found, and in words what it looked at; a mount sends both to the command. Pure."""

from typing import NamedTuple

import msgspec

from phonofs.model import Record


class Found(NamedTuple):
    """An object that matches: its path below the mount point and, if asked for, its record."""

    path: str
    record: Record | None


class Answer(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What a search looked at.

    known    days of which every object is known
    asked    days for which the service was asked with a filter
    narrow   that filter
    missing  a sentence for each time, or path, that could not be looked at
    """

    known: list[str] = []
    asked: list[str] = []
    narrow: str = ""
    missing: list[str] = []

    def add(self, other: "Answer") -> None:
        """Add what another search of the same source looked at."""
        self.known += [days for days in other.known if days not in self.known]
        self.asked += [days for days in other.asked if days not in self.asked]
        self.missing += other.missing
        self.narrow = self.narrow or other.narrow

    def looked_at(self) -> str:
        """Return in one line what was looked at; '' if nothing was."""
        said = [f"looked at {', '.join(self.known)} (known)"] if self.known else []
        if self.asked:
            said.append(
                f"asked the service for {', '.join(self.asked)}: what has its tags in another form "
                "may escape that, and phonofs index makes it certain"
            )
        return "; ".join(said)
