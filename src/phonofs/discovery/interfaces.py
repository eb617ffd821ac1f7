"""What the catalogue asks of the service, which ``css.client.Client`` is, and how."""

from typing import Protocol

from phonofs.model import Page, Query
from phonofs.priority import Priority


class Service(Protocol):
    """Searches of one region at a time."""

    async def search(
        self,
        region: str,
        query: Query,
        page_key: int = 0,
        limit: int = 100,
        *,
        urgent: bool | Priority = True,
    ) -> Page:
        """The page that begins at offset ``page_key``. Raises ServiceError."""

    async def search_text(
        self,
        region: str,
        query: Query,
        page_key: int = 0,
        limit: int = 100,
        *,
        urgent: bool | Priority = True,
    ) -> bytes:
        """The same, not read yet."""

    def read_page(self, body: bytes, region: str) -> Page:
        """The page in the answer to a search. Raises Malformed."""


class Paged(Protocol):
    """The settings of the lister (``config.Settings`` has them)."""

    @property
    def page_size(self) -> int:
        """Records a search page."""

    @property
    def max_connections(self) -> int:
        """To the service, all in all."""

    @property
    def cache_min_free(self) -> int:
        """Bytes of the disk that are always left."""

    @property
    def read_deadline(self) -> float:
        """Seconds that anybody waits at most."""
