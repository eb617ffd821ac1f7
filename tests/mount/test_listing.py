"""A mounted folder is whole or an error, whatever its pages do."""

import os
from pathlib import Path

import pytest

from phonofs.fakeservice.account import Account, flat_item
from tests.support.accounts import NOON_MS
from tests.support.mounts import at_last, mounted, standing, until

COUNT = 40


@pytest.mark.promise("listing-whole-or-error")
@pytest.mark.parametrize("status", [500, 503])
def test_objects_of_one_second_are_whole_or_an_error(tmp_path: Path, status: int):
    """The first and the last one are known by then; the pages between them fail."""
    account = Account(flat_item(f"{n:08d}", 10, NOON_MS) for n in range(COUNT))
    options = {"poll_interval": "1h", "read_deadline": "2s"}
    with standing(account) as stand_in, mounted(stand_in.url, tmp_path, **options) as mount:
        day = mount.point / "2026" / "2026-03" / "2026-03-02"
        assert at_last(lambda: os.listdir(day.parent)) == [day.name]
        faults = stand_in.faults(
            {"name": "fault", "kind": "search", "fail": "status", "status": status}
        )
        for _ in range(2):
            with pytest.raises(OSError, match="Input/output error"):
                os.listdir(day)
        assert faults.fired["fault"]
        stand_in.faults()
        until(lambda: count(day) == COUNT)


def count(day: Path) -> int:
    """How many files a folder has; 0 while it cannot be listed."""
    try:
        return len(os.listdir(day))
    except OSError:
        return 0
