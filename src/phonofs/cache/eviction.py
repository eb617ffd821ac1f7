"""Frees disk space: removes what other accounts left, then the least recently used objects.

Used by the cache, when a write needs space, and by the maintenance task, ahead of that. The order
is kept in the index and not in Python objects, because it has to outlive the mount, and because a
mount must not load an index of a million objects.
"""

import os
from collections.abc import Callable, Collection
from functools import partial

import trio

from phonofs.cache.backend import Backend
from phonofs.cache.set_aside import SetAside

EVICT_AT_ONCE = 64
"""Objects evicted between two turns of the event loop: 2 ms."""

ASIDE_STEP = 16 << 20
"""Bytes of other accounts removed per call; a mount that ends waits for one call at most."""


class Eviction:
    """Removes objects that are not in use.

    count  how many objects were evicted

    Nothing is removed while unknown files are charged with the whole cap: then only removing those
    frees space.
    """

    def __init__(
        self,
        backend: Backend,
        set_aside: SetAside | None,
        in_use: Collection[bytes],
        close: Callable[[bytes], None],
    ) -> None:
        """``in_use`` has the keys of the objects that stay; ``close(key)`` closes the file of
        another one, if it is open.
        """
        self.count = 0
        self._backend = backend
        self._set_aside = set_aside
        self._in_use = in_use
        self._close = close

    @property
    def set_aside_bytes(self) -> int:
        """Bytes on disk that other accounts left."""
        return self._set_aside.bytes if self._set_aside is not None else 0

    def evict(self, n: int) -> int:
        """Remove at least ``n`` bytes, if there is as much that is not in use; return how many."""
        disk = self._backend.disk
        if disk is not None and not disk.settled:
            return 0
        freed = self._set_aside.evict(n) if self._set_aside is not None else 0
        while freed < n:
            step, held = self._evict(n - freed)
            _close_all(held)
            if not step:
                break
            freed += step
        self._backend.budget.release(freed)
        return freed

    async def evict_ahead(self) -> None:
        """Keep headroom free, so that a write need not wait until a large file is removed.

        Works in slices. A thread frees the space of large files, which takes long.
        """
        backend, others, freed = self._backend, self._set_aside, 1
        disk = backend.disk
        if disk is None or not disk.settled or not backend.breaker.on:
            return
        while others is not None and freed and (missing := backend.budget.deficit()):
            freed = await backend.in_thread(partial(others.evict, min(missing, ASIDE_STEP)))
            backend.budget.release(freed)
        freed = 1
        while freed and (missing := backend.budget.deficit()):
            freed, held = self._evict(missing)
            with trio.CancelScope(shield=True):
                await backend.in_thread(partial(_close_all, held))
            backend.budget.release(freed)
            await trio.lowlevel.checkpoint()

    def _evict(self, n: int) -> tuple[int, list[int]]:
        """Remove a slice of the least recently used objects, or fewer if they are ``n`` bytes.

        Returns the charges of those whose file and row are both gone, and descriptors of the files,
        which take space until these are closed.
        """
        freed = 0
        gone: list[bytes] = []
        held: list[int] = []

        most = EVICT_AT_ONCE + len(self._in_use)
        for key, charge in self._backend.query(lambda disk: disk.index.oldest(most)) or ():
            if freed >= n or not self._backend.breaker.on:
                break
            if key not in self._in_use and self._detached(key, held):
                self._close(key)
                freed += charge
                gone.append(key)
        # If the rows cannot be deleted, their charges are released when they are deleted later.
        if not gone or not self._backend.attempt(lambda disk: disk.index.delete(gone)):
            return 0, held
        self.count += len(gone)
        return freed, held

    def _detached(self, key: bytes, held: list[int]) -> bool:
        return self._backend.attempt(lambda disk: held.extend(disk.files.detach(key)))


def _close_all(descriptors: list[int]) -> None:
    for fd in descriptors:
        os.close(fd)
