"""Whether somebody waits for a request. Pure.

Shared by the reader, which knows, and the way to the service, which counts the requests nobody
waits for and lets one more of them go when one of them is waited for after all.
"""

from collections.abc import Callable


class Priority:
    """True once somebody waits; it never becomes false again.

    ``on_rise`` is called when it becomes true: set by whoever counts the request now.
    """

    __slots__ = ("_parts", "_urgent", "on_rise")

    def __init__(self, urgent: bool) -> None:
        self._urgent = urgent
        self._parts: list[Priority] = []
        self.on_rise: Callable[[], None] | None = None

    def __bool__(self) -> bool:
        return self._urgent

    def part(self) -> "Priority":
        """That of one of several requests, which all become urgent with this one."""
        part = Priority(self._urgent)
        if not self._urgent:
            self._parts.append(part)
        return part

    def rise(self) -> None:
        """Somebody waits from now on."""
        if not self._urgent:
            self._urgent = True
            if self.on_rise is not None:
                self.on_rise()
            for part in self._parts:
                part.rise()
            self._parts.clear()
