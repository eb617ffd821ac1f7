"""Brings staged files into place, many with one sync.

The order is what a kill at any point leaves to the next run: the bytes are on disk before the
ledger names a file, and the ledger names a file before it is in place, so that all files in place
are known. A file that replaces another is named after that, so that the former one is not taken for
it. Used by ``run``, in one thread.
"""

import errno

from phonofs.export.contents import NotCopied, Reason
from phonofs.export.destination import Destination
from phonofs.export.ledger import File, Ledger

MOST_FILES = 1024
MOST_BYTES = 256 << 20
"""Files, and bytes, that share a sync: what a kill may cost."""

OF_ONE_FILE = frozenset(
    {
        errno.EISDIR,
        errno.ENOTDIR,
        errno.EEXIST,
        errno.ENOTEMPTY,
        errno.ELOOP,
        errno.EINVAL,
        errno.EILSEQ,
        errno.ENAMETOOLONG,
        errno.EXDEV,
        errno.EPERM,
        errno.EACCES,
    }
)
"""Errors of a rename that say something of this file only; others end the export."""


class Batch:
    """Owns the staged files that are not in place yet."""

    def __init__(self, destination: Destination, ledger: Ledger) -> None:
        self._destination = destination
        self._ledger = ledger
        self._staged: list[tuple[str, File]] = []
        self._bytes = 0

    def add(self, staged: str, file: File) -> None:
        """Add a staged file, which is checked."""
        self._staged.append((staged, file))
        self._bytes += file.bytes

    @property
    def is_full(self) -> bool:
        """Whether it is time to commit."""
        return len(self._staged) >= MOST_FILES or self._bytes >= MOST_BYTES

    def commit(self) -> list[tuple[File, NotCopied]]:
        """Bring all staged files into place; return those for which that failed.

        Raises OSError if the destination cannot be written to any more.
        """
        if not self._staged:
            return []
        staged, self._staged, self._bytes = self._staged, [], 0
        self._destination.sync()
        replaces = [file.path in self._ledger.files for _, file in staged]
        self._ledger.add([each[1] for each, old in zip(staged, replaces, strict=True) if not old])
        self._ledger.sync()
        failed = []
        for (name, file), old in zip(staged, replaces, strict=True):
            try:
                self._destination.place(name, file.path)
            except OSError as error:
                if error.errno not in OF_ONE_FILE:
                    raise
                self._destination.drop(name)
                failed.append((file, NotCopied(Reason.UNWRITABLE, error.strerror or str(error))))
                if not old:
                    self._ledger.remove(file.path)
            else:
                if old:
                    self._ledger.add([file])
        return failed
