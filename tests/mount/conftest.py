"""Mounts that the tests of this folder share."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from phonofs.demo.dataset import demo_account
from tests.support.demo_mount import Demo
from tests.support.mounts import mounted, standing


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """The made-up account under a real mount, for the tests of one module that only read."""
    account = demo_account(datetime(2026, 3, 2, tzinfo=UTC).date())
    folder = tmp_path_factory.mktemp("demo")
    with standing(account) as stand_in, mounted(stand_in.url, folder) as mount:
        yield Demo(mount, stand_in)
