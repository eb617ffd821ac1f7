"""What the catalogue asks of the service; ``css.client.Client`` gives it."""

from typing import Protocol

from phonofs.model import Page, Query


class Service(Protocol):
    """Searches of one region at a time."""

    async def search(
        self,
        region: str,
        query: Query,
        page_key: int = 0,
        limit: int = 100,
        *,
        urgent: bool = True,
    ) -> Page:
        """The page that begins at offset ``page_key``. Raises ServiceError."""
