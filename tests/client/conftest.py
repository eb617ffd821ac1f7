"""The made-up account behind a daemon, for the tests of one module that only read."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from phonofs.demo.dataset import demo_account
from tests.support.doors import served
from tests.support.mounts import standing
from tests.support.programs import ServedAccount, as_programs_of


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedAccount]:
    account = demo_account(datetime(2026, 3, 2, tzinfo=UTC).date())
    folder = tmp_path_factory.mktemp("served")
    with (
        standing(account) as stand_in,
        served(stand_in.url, folder) as daemon,
        as_programs_of(daemon),
    ):
        yield ServedAccount(daemon, stand_in.service)
