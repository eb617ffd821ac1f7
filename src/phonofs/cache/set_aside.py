"""What other accounts left in the cache directory: counts in ``cache_size``; evicted first."""

import logging
import threading
from collections.abc import Iterator

from phonofs.cache.accounts import Account, Accounts

log = logging.getLogger(__name__)


class SetAside:
    """The data of the accounts that are not mounted.

    ``_charged`` has the bytes still charged for each account, by its id. An account whose files
    cannot be removed stays charged and is not tried again. The lock is needed because
    :meth:`evict` may run in a thread.

    Invariant: ``bytes`` decreases by what :meth:`evict` returns.
    """

    def __init__(self, accounts: Accounts, mine: Account | None) -> None:
        """``mine`` is the mounted account; None if there is none."""
        self._accounts = accounts
        self._others = [one for one in accounts.all() if one is not mine]
        self._charged = {one.id: accounts.size(one) for one in self._others}
        self._lock = threading.Lock()
        self._removals = self._remove()

    @property
    def bytes(self) -> int:
        """The bytes charged for all of them."""
        return sum(self._charged.values())

    def protect(self, key_id: int, *, disk: bool) -> None:
        """Remove content that must not stay on disk; log what cannot be removed.

        Without ``disk`` that is all of it. With encryption (``key_id`` is that of the codec, 0 for
        none) it is what was written without it or with another key, or has no index to tell.
        """
        for account in self._others:
            if not disk or (key_id and self._accounts.key_id(account) != key_id):
                try:
                    self._accounts.drop_content(account)
                except OSError as error:
                    home = self._accounts.home(account)
                    log.warning("content is left in %s: %s", home, error.strerror)
                self._charged[account.id] = self._accounts.size(account)

    def evict(self, n: int) -> int:
        """Remove at least ``n`` bytes, or all; from the least recently used account first.

        Returns the bytes that are no longer charged.
        """
        freed = 0
        while freed < n:
            with self._lock:
                piece = next(self._removals, None)
            if piece is None:
                break
            freed += piece
        return freed

    def _remove(self) -> Iterator[int]:
        """Remove file by file; yield the bytes that are no longer charged."""
        for account in reversed(self._others):
            try:
                for piece in self._accounts.pieces(account):
                    given = min(piece, self._charged[account.id])
                    self._charged[account.id] -= given
                    account.measure(self._charged[account.id])
                    yield given
            except OSError as error:
                home = self._accounts.home(account)
                log.warning("what is set aside in %s cannot be removed: %s", home, error.strerror)
                continue
            self._accounts.forget(account)
            yield self._charged.pop(account.id)
