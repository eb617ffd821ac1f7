"""Says how long background work waits for a service that fails or wants no requests.

Used by ``indexer.py`` here, and by ``view_tree/text_indexer.py``.
"""

from collections.abc import Callable

import trio

from phonofs.errors import PhonofsError

AFTER_PAUSE_S = 5.0
"""How long to wait after a pause that the service asked for: others go first."""

FIRST_REST_S, LONGEST_REST_S = 5.0, 600.0
"""How long to wait after a round in which the service failed; twice as long each time."""


async def until_calm(paused_s: Callable[[], float]) -> None:
    """Wait while the service wants no requests, and a little longer.

    ``paused_s`` returns for how many more seconds it wants none.
    """
    while (pause_s := paused_s()) > 0:  # noqa: ASYNC110 - nothing tells us of its end
        await trio.sleep(pause_s + AFTER_PAUSE_S)


class Rests:
    """Counts the rounds in a row that brought nothing; gives up after ``tries`` of them, or never
    if that is None.
    """

    def __init__(self, tries: int | None) -> None:
        self._tries = tries
        self._vain = 0
        self._rest_s = FIRST_REST_S

    def after(self, error: PhonofsError, *, vain: bool) -> float:
        """Return how long to wait after a round that failed; ``vain``: it brought nothing.

        Raises the error after the last try.
        """
        self._vain = self._vain + 1 if vain else 0
        self._rest_s = min(self._rest_s * 2, LONGEST_REST_S) if vain else FIRST_REST_S
        if self._tries is not None and self._vain >= self._tries:
            raise error
        return self._rest_s
