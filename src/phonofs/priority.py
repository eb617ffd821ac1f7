"""Whether a reader waits for a request. Pure.

Set by the reader and by discovery, which know who waits; observed by the limiter of the service
(:mod:`phonofs.service.limiter`), which promotes a background request when it becomes urgent.
"""

from collections.abc import Callable

Place = tuple[float, int]
"""When a request was planned (trio's clock), and a number that orders those of one moment."""


class Priority:
    """True if a reader waits for the request. It may become true later, and then stays so.

    ``place`` is that of the request among the others; None: that of the moment when it is made.
    ``last``: while no reader waits for it, the request goes after all other background requests.
    ``due``: it must not wait until no reader waits. Where requests wait for the rate at which they
    are sent, it goes in its turn among those that readers wait for.
    Owns the one callback that is called then, and the priorities derived from this one.
    """

    __slots__ = ("_callback", "_derived", "_urgent", "due", "last", "place")

    def __init__(
        self,
        urgent: bool,
        place: Place | None = None,
        *,
        last: bool = False,
        due: bool = False,
    ) -> None:
        self.place = place
        self.due = due
        self.last = last
        self._urgent = urgent
        self._derived: list[Priority] = []
        self._callback: Callable[[], None] | None = None

    def __bool__(self) -> bool:
        return self._urgent

    def derive(self) -> "Priority":
        """Return the priority of one of several requests that all become urgent with this one."""
        derived = Priority(self._urgent, last=self.last)
        if not self._urgent:
            self._derived.append(derived)
        return derived

    def on_rise(self, callback: Callable[[], None] | None) -> None:
        """Set what is called when this becomes true, in place of what was set before."""
        self._callback = callback

    def rise(self) -> None:
        """Become true: a reader waits from now on."""
        if not self._urgent:
            self._urgent = True
            if self._callback is not None:
                self._callback()
            for derived in self._derived:
                derived.rise()
            self._derived.clear()
