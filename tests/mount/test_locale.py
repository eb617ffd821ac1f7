"""Names beyond ASCII, where the locale or the mount point does not go along."""

import json
import os
import subprocess
import sys

import pytest

from phonofs.fakeservice.account import Account, change, flat_item
from tests.support.accounts import NOON_MS, flat
from tests.support.mounts import Mount, files, mounted, standing, until

pytestmark = pytest.mark.fuse


def test_changes_reach_the_kernel_in_any_locale(tmp_path, monkeypatch):
    """The kernel has names in UTF-8, whatever encoding Python takes for file names."""
    monkeypatch.setenv("LC_ALL", "C")
    monkeypatch.setenv("PYTHONUTF8", "0")
    monkeypatch.setenv("PYTHONCOERCECLOCALE", "0")
    callers = ["Jürgen", "山田", "Ann"]
    account = Account(
        flat_item(f"{n:08d}", 100, NOON_MS + n * 1000, tags={"agentName": caller})
        for n, caller in enumerate(callers)
    )
    with (
        standing(account) as stand_in,
        mounted(stand_in.url, tmp_path, poll_interval="0.2s") as mount,
    ):
        paths = files(mount.point)
        assert len(paths) == 3
        assert any("Jürgen" in path.name for path in paths)
        now_ms = stand_in.service.now_ms()
        for n in range(3):
            change(account, "us-east", f"{n:08d}", now_ms, state="REVOKED")
        for path in paths:
            until(lambda path=path: not path.exists(), within_s=5)
        assert "Traceback" not in mount.log_text()


def test_a_mount_point_that_is_not_utf8(tmp_path):
    """Its status can be asked for, and says where it is."""
    point = tmp_path / os.fsdecode(b"m\xff\xe4")
    with standing(flat(1000)) as stand_in:
        mount = Mount(stand_in.url, point, tmp_path / "cache")
        mount.log = tmp_path / "log"
        try:
            mount.start()
            said = json.loads(os.getxattr(point, "user.phonofs.status"))
            assert said["mountpoint"] == str(point)

            def phonofs(*words: str) -> subprocess.CompletedProcess[bytes]:
                return subprocess.run(
                    [sys.executable, "-m", "phonofs.cli", *words, point],
                    env=mount.environment,
                    capture_output=True,
                    timeout=30,
                )

            for words in (["status"], ["status", "--json"], ["status", "--log-level", "debug"]):
                done = phonofs(*words)
                assert (done.returncode, done.stderr) == (0, b""), words
                assert b"Traceback" not in done.stdout
            assert phonofs("umount").returncode == 0
            assert mount.process.wait(60) == 0
            mount.process = None
        finally:
            mount.clean_up()
