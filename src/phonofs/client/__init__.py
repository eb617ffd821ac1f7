"""The client's half of the door: reads the tree of a daemon over its unix socket.

Used by ``spec/`` and ``phonofs export``. Blocking, without a thread or an event loop. A ``Client``
may be used by many threads at once and after a fork; an ``OpenFile`` too. It imports nothing of the
daemon, so that a program that reads recordings loads neither trio nor httpx nor pyfuse3.

All errors are OSError: what the daemon says, by its errno; ConnectionError if there is no daemon;
TimeoutError if it does not answer. Absence is only what is ENOENT or ENOTDIR.
"""

from phonofs.client.client import Client, Item
from phonofs.client.open_file import OpenFile

__all__ = ["Client", "Item", "OpenFile"]
