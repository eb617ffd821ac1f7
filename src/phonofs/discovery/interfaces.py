"""What discovery needs from the service (``service.client.Client``) and from the settings."""

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
        """Return the page that begins at offset ``page_key``. Raises ServiceError."""

    async def search_text(
        self, region: str, query: Query, page_key: int, limit: int, *, urgent: bool | Priority
    ) -> bytes:
        """Return the unparsed body of that page. Raises ServiceError."""

    def read_page(self, body: bytes, region: str) -> Page:
        """Parse the body of a search response into a page. Raises Malformed."""


class Paged(Protocol):
    """The settings of the lister (``config.Settings`` has them)."""

    @property
    def page_size(self) -> int:
        """Records per search page."""

    @property
    def max_connections(self) -> int:
        """The most connections to the service."""

    @property
    def cache_min_free(self) -> int:
        """Bytes to leave free on the disk."""

    @property
    def read_deadline(self) -> float:
        """The longest time that a caller waits, in seconds."""
