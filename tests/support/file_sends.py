"""Looks at what both doors have the kernel send from files of the cache, and interferes with it."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest.mock import patch

from phonofs.cache.blockfile import BlockFile


class Readiness:
    """Says whether bytes can be sent from their file. Counts the questions, and what is sent."""

    def __init__(self, refused: Callable[[int], bool] = lambda number: False) -> None:
        self.asked = self.sent = 0
        self._refused = refused
        self._sendfile = os.sendfile

    def send(self, *args: int) -> int:
        sent = self._sendfile(*args)
        self.sent += sent
        return sent

    def look(self, file: BlockFile, offset: int, n: int) -> bool:
        self.asked += 1
        return not self._refused(self.asked)

    @contextmanager
    def patched(self) -> Iterator[None]:
        """Have it say so, and count."""
        with (
            patch.object(BlockFile, "is_ready", lambda *args: self.look(*args)),
            patch("phonofs.cache.blockfile.os.sendfile", self.send),
        ):
            yield
