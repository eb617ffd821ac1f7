"""What other accounts left in the cache folder: it counts in ``cache_size``, and goes first."""

import logging
import threading
from collections.abc import Iterator

from phonofs.cache.accounts import Account, Accounts

log = logging.getLogger(__name__)


class SetAside:
    """What other accounts left in the folder.

    Owns how many bytes are still charged for each (``_charged``, by the account's id), and whose
    files are still to be removed (``_left``). An account whose files cannot be removed stays
    charged and is not tried again. The lock is there because :meth:`evict` may run in a thread.

    Invariant: ``bytes`` goes down by what :meth:`evict` returned.
    """

    def __init__(self, accounts: Accounts, mine: Account | None) -> None:
        """Take what the accounts other than ``mine`` left."""
        self._accounts = accounts
        self._left = [one for one in accounts.all() if one is not mine]
        self._charged = {one.id: accounts.size(one) for one in self._left}
        self._lock = threading.Lock()
        self._pieces: Iterator[int] | None = None

    @property
    def bytes(self) -> int:
        """The bytes that all of them take on disk."""
        return sum(self._charged.values())

    def protect(self, key_id: int, *, disk: bool) -> None:
        """Remove content that must not stay on disk; the log says what cannot be removed.

        Without ``disk`` that is all of it. With encryption (``key_id`` is that of the codec, 0 for
        none) it is what was written without it or with another key.
        """
        for account in self._left:
            if not disk or (key_id and self._accounts.key_id(account) not in (-1, key_id)):
                try:
                    self._accounts.drop_content(account)
                except OSError as error:
                    home = self._accounts.home(account)
                    log.warning("content is left in %s: %s", home, error.strerror)
                self._charged[account.id] = self._accounts.size(account)

    def evict(self, n: int) -> int:
        """Remove at least ``n`` bytes if there are so many, the account used longest ago first.

        Returns the bytes that no longer have to be charged for.
        """
        freed = 0
        while freed < n:
            with self._lock:
                if not self._left:
                    break
                freed += self._remove_one()
        return freed

    def _remove_one(self) -> int:
        account = self._left[-1]
        if self._pieces is None:
            self._pieces = self._accounts.pieces(account)
        try:
            piece = next(self._pieces, None)
        except OSError as error:
            home = self._accounts.home(account)
            log.warning("what is set aside in %s cannot be removed: %s", home, error.strerror)
            self._pieces = None
            self._left.pop()
            return 0
        if piece is None:
            self._pieces = None
            self._left.pop()
            self._accounts.forget(account)
            return self._charged.pop(account.id)
        given = min(piece, self._charged[account.id])
        self._charged[account.id] -= given
        account.measure(self._charged[account.id])
        return given
