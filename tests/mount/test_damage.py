"""A catalogue that is damaged while it is in use: an error, never a shorter folder."""

import errno
import os
import random

import pytest

from phonofs.fakeservice.account import Account, flat_item
from tests.support.accounts import NOON_MS
from tests.support.mounts import files, mounted, standing, until

pytestmark = pytest.mark.fuse

DAY_MS = 86_400_000
DAYS, A_DAY = 40, 20


def trash(path) -> None:
    """Overwrite every page but the first."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        for at in range(4096, size, 4096):
            file.seek(at)
            file.write(os.urandom(4096))


@pytest.mark.slow
def test_a_catalogue_damaged_in_use_is_an_error_and_built_anew(tmp_path):
    """No folder is shown shorter: each listing is whole or EIO; the next mount has all again."""
    noise = random.Random(1)
    account = Account(  # larger than what SQLite keeps of the file in memory
        flat_item(
            f"{day:04d}{n:04d}",
            10,
            NOON_MS - day * DAY_MS + n * 1000,
            tags={"noise": noise.randbytes(28_000).hex()},
        )
        for day in range(DAYS)
        for n in range(A_DAY)
    )
    with standing(account) as stand_in:
        with mounted(stand_in.url, tmp_path) as mount:
            known = files(mount.point)
            assert len(known) == DAYS * A_DAY
            mount.stop()
        with mounted(stand_in.url, tmp_path, poll_interval="0") as mount:
            trash(mount.cache / "catalogue.sqlite")
            failed = []
            for day in sorted({path.parent for path in known}):
                try:
                    names = os.listdir(day)
                    assert len(names) == A_DAY, "a shorter folder"
                    for name in names:
                        os.getxattr(day / name, "user.phonofs.json")
                except OSError as error:
                    failed.append(error.errno)
            assert set(failed) == {errno.EIO}
            mount.stop()
        with mounted(stand_in.url, tmp_path) as mount:
            assert files(mount.point) == known
            until(lambda: "is damaged" in mount.log_text(), 5)
