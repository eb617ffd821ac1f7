"""The world of a program that reads by ``phonofs://``: a daemon, and how it is found."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

from phonofs.fakeservice.account import Item
from tests.support.counted_service import Service
from tests.support.doors import Served


@dataclass
class ServedAccount:
    """A daemon, and the service it reads from."""

    daemon: Served
    service: Service

    def items(self, mime_type: str = "") -> list[Item]:
        """Return what can be read, of a media type that begins so."""
        return [
            item
            for item in self.service.account
            if item.state == "AVAILABLE" and item.mime_type.startswith(mime_type)
        ]


@contextlib.contextmanager
def as_programs_of(daemon: Served) -> Iterator[None]:
    """Give this process, and those it starts, the environment in which a daemon is found."""
    before = os.environ.copy()
    os.environ.update(daemon.environment)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
