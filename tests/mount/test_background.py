"""What a mount in the background keeps of whoever started it: nothing."""

import os
import select
import shutil
import signal
import subprocess
import sys

import pytest

from tests.fault.tools import status
from tests.support.accounts import flat
from tests.support.mounts import Mount, files, standing, until

pytestmark = pytest.mark.fuse


@pytest.fixture
def mount(tmp_path):
    """Not mounted yet."""
    with standing(flat(1000)) as stand_in:
        mount = Mount(stand_in.url, tmp_path / "m", tmp_path / "cache")
        mount.point.mkdir()
        try:
            yield mount
        finally:
            run(mount, *phonofs("umount", mount.point))
            mount.clean_up()


def phonofs(*words: object) -> list[str]:
    return [sys.executable, "-m", "phonofs.cli", *map(str, words)]


def run(mount: Mount, *words: object, **more: object) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [str(word) for word in words], env=mount.environment, timeout=30, check=False, **more
    )


def test_a_lock_of_the_caller_ends_with_the_command(mount, tmp_path):
    """`flock LOCK phonofs mount`, as in a line of cron."""
    if shutil.which("flock") is None:
        pytest.skip("flock is not installed")
    lock = tmp_path / "lock"
    assert run(mount, "flock", "-n", lock, *phonofs("mount", mount.point)).returncode == 0
    assert len(files(mount.point)) == 1
    assert run(mount, "flock", "-n", lock, "true").returncode == 0


def test_a_pipe_of_the_caller_ends_with_the_command(mount):
    """Whoever reads the other end is not kept waiting."""
    read_end, write_end = os.pipe()
    try:
        done = run(mount, *phonofs("mount", mount.point), pass_fds=[write_end])
        os.close(write_end)
        assert done.returncode == 0
        assert select.select([read_end], [], [], 10)[0]
        assert os.read(read_end, 1) == b""
    finally:
        os.close(read_end)


@pytest.mark.parametrize("closed", ["<&- >&-", "<&- >&- 2>&-"])
def test_standard_streams_may_be_closed(mount, closed):
    """As daemons start their children: no file of ours takes the place of one."""
    script = f'exec "$@" {closed}'
    done = run(mount, "sh", "-c", script, "sh", *phonofs("mount", mount.point))
    assert done.returncode == 0
    assert len(files(mount.point)) == 1
    descriptors = f"/proc/{status(mount)['pid']}/fd"
    assert {os.readlink(f"{descriptors}/{stream}") for stream in range(3)} == {"/dev/null"}
    assert run(mount, *phonofs("umount", mount.point)).returncode == 0


def test_standard_streams_may_be_closed_in_the_foreground(mount):
    """What a library writes to them must not end in the catalogue."""
    mount.under = ("sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh")
    mount.start()
    descriptors = f"/proc/{mount.process.pid}/fd"
    assert {os.readlink(f"{descriptors}/{stream}") for stream in range(3)} == {"/dev/null"}
    assert mount.stop() == 0


INHERIT = """
import os, signal, sys
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
os.execvp(sys.argv[1], sys.argv[1:])
"""


def test_signals_that_the_caller_blocks_or_ignores(mount):
    """As some daemons do: SIGTERM ends the mount all the same, and a failure has its status."""
    command = [sys.executable, "-S", "-c", INHERIT, *phonofs("mount", mount.point)]
    assert run(mount, *command).returncode == 0
    pid = status(mount)["pid"]
    os.kill(pid, signal.SIGTERM)
    until(lambda: not os.path.exists(f"/proc/{pid}"), within_s=5)
    assert not os.path.ismount(mount.point)
    mount.environment["PHONOFS_SECRET"] = "wrong"
    assert run(mount, *command).returncode == 2
