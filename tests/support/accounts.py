"""Accounts for tests, with objects of one day, and the content of an object."""

from datetime import UTC, datetime

from phonofs.fakeservice.account import Account, flat_item
from tests.support.counted_service import Service

NOON_MS = int(datetime(2026, 3, 2, 12, tzinfo=UTC).timestamp() * 1000)
DELIVERY_METHODS = ("range", "presign", "redirect", "stream")
"""The values of the fake service's option ``content``."""
JSON_TEXT = {"fail": "status", "status": 200, "content_type": "application/json"}
"""A fault, but for its ``body``: this text in place of an answer in JSON."""


def flat(*sizes: int, created_ms: int = NOON_MS, **fields: object) -> Account:
    """Make an account of one day with an object for each size: ids ``0000…``, a minute apart."""
    return Account(
        flat_item(f"{index:08d}", size, created_ms + 60_000 * index, **fields)
        for index, size in enumerate(sizes)
    )


def content_of(service: Service, id: str, region: str = "us-east") -> bytes:
    """Return the content of an object as the fake service serves it."""
    item = service.account.item(region, id)
    assert item is not None
    return b"".join(item.content.pieces(0, item.content.size))
