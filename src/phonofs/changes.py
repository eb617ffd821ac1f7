"""Passes on changes of the account, and what this process finds out about contents.

Used by ``app.py``, which connects these methods to the services that report the changes. The
catalogue has a change before anything else is told. All methods are synchronous and quick.
"""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec

from phonofs.account import Admission
from phonofs.cache.cache import Cache
from phonofs.catalogue.catalogue import REMOVED, Catalogue, ChangeSet, ObjectChange
from phonofs.control.server import Broadcast
from phonofs.errors import CatalogueError, PhonofsError
from phonofs.model import Record
from phonofs.reader.reader import Reader
from phonofs.restores import Restores
from phonofs.tree.layout import ROOT

log = logging.getLogger(__name__)

RESTORES = "restores"
"""The catalogue's key for the pending restores of archived objects."""


class Kernel(Protocol):
    """Keeps names, attributes and pages until told (``fuse.invalidation.KernelCache``)."""

    def tell(self, changes: ChangeSet) -> None:
        """Invalidate what these changes made stale."""

    def tell_size(self, ino: int) -> None:
        """Invalidate the size of a file."""

    def forget(self, entries: Sequence[tuple[int, str]]) -> None:
        """Invalidate names with everything below them, and all open files."""


class NoKernel:
    """Stands for the kernel when nothing is mounted."""

    def tell(self, changes: ChangeSet) -> None:
        """Do nothing."""

    def tell_size(self, ino: int) -> None:
        """Do nothing."""

    def forget(self, entries: Sequence[tuple[int, str]]) -> None:
        """Do nothing."""


class KernelUpdates:
    """Tells the kernel what this process found out itself, not what the service reported."""

    def __init__(self, catalogue: Catalogue, kernel: Kernel) -> None:
        self._catalogue = catalogue
        self._kernel = kernel

    def on_size(self, ino: int, size: int) -> None:
        """Note that the length of a content, in bytes, differs from what its record says."""
        if self._catalogue.set_size(ino, size):
            self._kernel.tell_size(ino)

    def on_corrupt(self, ino: int) -> None:
        """Invalidate the pages of a file, because the bytes given so far are wrong."""
        self._kernel.tell(self._catalogue.touched(ino))

    def on_refusal(self, refusal: PhonofsError | None) -> None:
        """Invalidate the whole tree: the key in use became, or ceased to be, another account's."""
        try:
            names = [entry.name for entry in self._catalogue.children(ROOT)]
        except CatalogueError as error:  # a failing disk; open files are still invalidated
            log.warning("the kernel is not told of the names at the root: %s", error)
            names = []
        self._kernel.forget([(ROOT, name) for name in names])


class AccountChanges:
    """Passes on what the service reported. Owns the restores that are pending.

    A change goes to the reader and the cache first, then to the kernel, then to watching clients.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        reader: Reader,
        cache: Cache,
        kernel: Kernel,
        events: Broadcast,
        admission: Admission,
        derived: Sequence[Callable[[ChangeSet], None]] = (),
        purged: Callable[[Record, int, str], None] = lambda record, freed_bytes, reason: None,
    ) -> None:
        """``derived`` are told of changes too: they keep what is made of records and contents.

        ``purged`` is told of an object whose content was removed from the disk, how much that was,
        and why.
        """
        self._derived = derived
        self._purged = purged
        self._catalogue = catalogue
        self._reader = reader
        self._cache = cache
        self._kernel = kernel
        self._events = events
        self._admission = admission
        self._restores = Restores.of_note(catalogue.notes.recall(RESTORES))

    def on_changes(self, changes: ChangeSet) -> None:
        """Pass on changes that the catalogue has taken in."""
        for changed in self._derived:
            changed(changes)
        for change in changes.objects:
            if change.kind == REMOVED:
                self._forget(change.record, "withdrawn")
            elif change.content:
                self._forget(change.record, "replaced", but=change.record.fingerprint)
        self._kernel.tell(changes)
        if self._admission.refusal is None:
            self._events.send([_event(change) for change in changes.objects])
        if self._restores.settle((change.kind, change.record) for change in changes.objects):
            self._save_restores()

    def _forget(self, record: Record, reason: str, *, but: str = "") -> None:
        """Give no more of the contents of an object, and remove them, except for one."""
        self._reader.withdraw(record.region, record.id, but=but)
        freed_bytes = self._cache.forget(record.region, record.id, but=but)
        if freed_bytes:
            self._purged(record, freed_bytes, reason)

    def on_restore_requested(self, region: str, ids: Sequence[str]) -> None:
        """Note that the service was asked to restore these archived objects."""
        self._restores.asked(region, ids, time.time())
        self._save_restores()

    def is_restoring(self, region: str, id: str) -> bool:
        """Return whether the restore of an object was requested, and has not ended."""
        return self._restores.is_pending(region, id, time.time())

    def restores(self) -> dict[str, object]:
        """Return the gauges of the pending restores."""
        return self._restores.statistics(time.time())

    def _save_restores(self) -> None:
        """Save the pending restores; a failing disk must not stop anything else."""
        try:
            self._catalogue.notes.remember(RESTORES, self._restores.note())
        except CatalogueError as error:
            log.warning("the pending restores could not be saved: %s", error)


def _event(change: ObjectChange) -> dict[str, Any]:
    """Return a change as ``phonofs watch`` prints it; the path is below the mount point."""
    return {
        "kind": change.kind,
        "path": change.path,
        "record": msgspec.Raw(change.record.source),
    }
