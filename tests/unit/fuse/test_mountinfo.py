"""The mount table, and paths, as the system may have them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from phonofs.fuse.mountinfo import mounted_at, mounts

OURS = "40 22 0:50 / {point} rw shared:1 - fuse.phonofs phonofs#work rw,user_id=0\n"


@pytest.mark.parametrize("odd", ["a\x0bb", "a\x1cb", "a\u2028b", "a\x85b", "a\rb"])
def test_other_peoples_mount_points_may_have_any_name(tmp_path: Path, odd: str) -> None:
    """Any user may mount with fusermount3: of a path the kernel escapes white space alone."""
    table = tmp_path / "mountinfo"
    lines = f"39 22 0:49 / /home/other/{odd} rw - fuse.other other rw\n{OURS.format(point='/m')}"
    table.write_bytes(lines.encode())
    assert [mount.point for mount in mounts(table)] == [f"/home/other/{odd}", "/m"]
    found = mounted_at("/m", table)
    assert found is not None
    assert found.is_phonofs


def test_a_working_directory_that_is_gone(tmp_path: Path) -> None:
    """A whole path does not need it."""
    gone = tmp_path / "gone"
    gone.mkdir()
    code = f"import os; os.rmdir({str(gone)!r}); from phonofs.cli import main; main()"
    command = [sys.executable, "-P", "-c", code, "umount", str(tmp_path)]
    done = subprocess.run(
        command, cwd=gone, capture_output=True, text=True, check=False, env=os.environ
    )
    assert "is not mounted" in done.stderr, done.stderr
