"""Mounts that the tests of this folder share."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from phonofs.demo.account import ListedAccount, flat_item
from phonofs.demo.dataset import demo_account
from phonofs.demo.service import Service
from tests.mounting import Mount, StandIn, files, mounted, standing

NOON_MS = int(datetime(2026, 3, 2, 12, tzinfo=UTC).timestamp() * 1000)


def flat(*sizes: int, created_ms: int = NOON_MS, **fields: object) -> ListedAccount:
    """An account of one day, an object a size: ids ``0000…``, a minute between them."""
    return ListedAccount(
        flat_item(f"{index:08d}", size, created_ms + 60_000 * index, **fields)
        for index, size in enumerate(sizes)
    )


def content_of(service: Service, id: str, region: str = "us-east") -> bytes:
    """What the stand-in serves of an object."""
    item = service.account.item(region, id)
    assert item is not None
    return b"".join(item.content.pieces(0, item.content.size))


@dataclass
class Demo:
    """The made-up account, mounted, and the same bytes in a plain folder."""

    mount: Mount
    stand_in: StandIn

    @property
    def point(self) -> Path:
        return self.mount.point

    @property
    def service(self) -> Service:
        return self.stand_in.service

    def one(self, pattern: str) -> Path:
        """The newest file whose name matches (the oldest ones are archived)."""
        return max(self.point.rglob(pattern), key=lambda path: (path.parent.name, path.name))


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """The made-up account under a real mount, for the tests of one module that only read."""
    account = demo_account(datetime(2026, 3, 2, tzinfo=UTC).date())
    folder = tmp_path_factory.mktemp("demo")
    with standing(account) as stand_in, mounted(stand_in.url, folder) as mount:
        yield Demo(mount, stand_in)


__all__ = ["Demo", "content_of", "files", "flat"]
