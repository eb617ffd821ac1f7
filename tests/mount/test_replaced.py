"""Content that the service replaced: tools that go by the time of a file must see it."""

import os
import subprocess

import pytest

from phonofs.fakeservice.account import Account, change, flat_item
from phonofs.fakeservice.content import ramp
from tests.fault.tools import needs
from tests.support.accounts import NOON_MS, content_of
from tests.support.mounts import files, mounted, standing, until

pytestmark = pytest.mark.fuse

SIZE = 5000


def rsync(point, copy) -> list[str]:
    done = subprocess.run(
        ["rsync", "-ai", f"{point}/", f"{copy}/"], capture_output=True, text=True, check=True
    )
    return [line for line in done.stdout.splitlines() if line.startswith(">f")]


@pytest.mark.promise("changes-within-a-poll")
def test_rsync_and_find_see_replaced_content_of_the_same_length(tmp_path):
    """Its mtime is createdTime at first, and updatedTime once the content is another one; new
    tags do not move it; a remount keeps it, a new cache folder begins anew."""
    needs("rsync")
    account = Account(flat_item(f"{n:08d}", SIZE, NOON_MS + n * 1000) for n in range(3))
    copy, stamp = tmp_path / "copy", tmp_path / "stamp"
    with standing(account) as stand_in:
        with mounted(stand_in.url, tmp_path, poll_interval="0.2s") as mount:
            assert len(rsync(mount.point, copy)) == 3
            assert rsync(mount.point, copy) == []
            redacted, tagged, _ = files(mount.point)
            stamp.touch()
            os.utime(stamp, (NOON_MS / 1000 + 10, NOON_MS / 1000 + 10))
            now_ms = stand_in.service.now_ms() // 1000 * 1000
            change(account, "us-east", "00000000", now_ms, content=ramp("other", SIZE))
            tags = {**account.item("us-east", "00000001").tags, "note": "seen"}
            change(account, "us-east", "00000001", now_ms, tags=tags)
            until(lambda: redacted.stat().st_ctime == now_ms / 1000)
            until(lambda: tagged.stat().st_ctime == now_ms / 1000)
            assert redacted.stat().st_mtime == now_ms / 1000
            assert tagged.stat().st_mtime == NOON_MS / 1000 + 1
            assert len(rsync(mount.point, copy)) == 1
            (copied,) = copy.rglob(redacted.name)
            assert copied.read_bytes() == content_of(stand_in.service, "00000000")
            newer = ["find", mount.point, "-type", "f", "-newer", stamp]
            found = subprocess.run(newer, capture_output=True, text=True, check=True).stdout
            assert found.split() == [str(redacted)]
            mount.stop()
        with mounted(stand_in.url, tmp_path) as mount:
            assert rsync(mount.point, copy) == []
            mount.stop()
        with mounted(stand_in.url, tmp_path, cache_dir=str(tmp_path / "new")) as mount:
            assert redacted.stat().st_mtime == NOON_MS / 1000


@pytest.mark.promise("changes-within-a-poll")
@pytest.mark.parametrize("folder", ["2026/2026-03/2026-03-02", ".views/by-day/2026-03-02"])
def test_a_listing_begun_before_a_change_does_not_bring_the_former_size_back(tmp_path, folder):
    """The kernel was told of the change; the attributes that come with the names follow it."""
    account = Account(flat_item(f"{n:08d}", SIZE, NOON_MS + n * 1000) for n in range(3))
    with (
        standing(account) as stand_in,
        mounted(stand_in.url, tmp_path, poll_interval="0.2s") as mount,
    ):
        replaced, gone, other = files(mount.point)
        assert replaced.stat().st_size == gone.stat().st_size == SIZE
        with os.scandir(mount.point / folder) as begun:  # opendir; the names are asked for later
            now_ms = stand_in.service.now_ms() // 1000 * 1000
            change(account, "us-east", "00000000", now_ms, content=ramp("other", 2 * SIZE))
            change(account, "us-east", "00000001", now_ms, state="REVOKED")
            until(lambda: replaced.stat().st_size == 2 * SIZE)
            until(lambda: not gone.exists())
            names = {entry.name for entry in begun}
        assert {path.name for path in (replaced, gone, other)} <= names
        assert replaced.stat().st_size == 2 * SIZE
        assert replaced.read_bytes() == content_of(stand_in.service, "00000000")
        assert not gone.exists()
        assert other.stat().st_size == SIZE
