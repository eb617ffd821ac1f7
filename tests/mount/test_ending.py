"""How a mount ends where the mount point is not what it was at the beginning, and what may stay.

In a mount name space of their own: a fault would take down somebody else's file system.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.accounts import flat
from tests.support.mounts import Mount, standing, until

pytestmark = pytest.mark.fuse


class Space:
    """A mount name space, held by a process that does nothing."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._holder = subprocess.Popen(
            ["unshare", "-m", "--propagation", "private", "cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
        )
        self.inside = ("nsenter", f"--mount=/proc/{self._holder.pid}/ns/mnt", "--")
        ours = os.readlink("/proc/self/ns/mnt")
        until(lambda: os.readlink(f"/proc/{self._holder.pid}/ns/mnt") != ours)

    def run(self, *words: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.inside, *map(str, words)], capture_output=True, text=True, timeout=30
        )

    def mounts(self) -> list[tuple[str, str]]:
        """(mount point, type) of what is mounted below the folder of a test."""
        table = Path(f"/proc/{self._holder.pid}/mountinfo").read_text().splitlines()
        return [
            (line.split(" ")[4], line.partition(" - ")[2].split(" ")[0])
            for line in table
            if line.split(" ")[4].startswith(f"{self._folder}/")
        ]

    def close(self) -> None:
        self._holder.stdin.close()
        self._holder.wait(60)


@pytest.fixture
def space(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("a mount name space needs root")
    space = Space(tmp_path)
    try:
        yield space
    finally:
        space.close()


@pytest.fixture
def mount(space, tmp_path):
    (tmp_path / "above").mkdir()
    with standing(flat(1000)) as stand_in:
        mount = Mount(stand_in.url, tmp_path / "above/m", tmp_path / "cache")
        mount.under = space.inside
        mount.start(wait=False)
        until(lambda: space.mounts() or mount.process.poll() is not None)
        until(lambda: (tmp_path / "run/phonofs").exists())
        assert space.run("ls", mount.point).stdout == "2026\n"
        try:
            yield mount
        finally:
            if mount.process is not None:
                mount.process.kill()
                mount.process.wait(60)


@pytest.mark.promise("clean-stop")
def test_what_others_mounted_over_it_stays(space, mount):
    """It cannot be unmounted then, and says so; nothing of theirs is touched."""
    space.run("mount", "-t", "tmpfs", "none", mount.point)
    space.run("sh", "-c", f"echo theirs > {mount.point}/file")
    assert mount.stop() == 32
    assert space.run("cat", mount.point / "file").stdout == "theirs\n"
    assert space.mounts() == [(str(mount.point), "fuse.phonofs"), (str(mount.point), "tmpfs")]
    text = mount.log_text()
    assert "tmpfs" in text
    assert f"phonofs umount {mount.point}" in text
    assert "Traceback" not in text


def test_what_others_mounted_on_a_folder_in_it_stays(space, mount):
    """To detach ours would take theirs along."""
    space.run("mount", "-t", "tmpfs", "none", mount.point / "2026")
    space.run("sh", "-c", f"echo theirs > {mount.point}/2026/file")
    assert mount.stop() == 32
    assert [kind for _, kind in space.mounts()] == ["fuse.phonofs", "tmpfs"]
    assert f"{mount.point}/2026" in mount.log_text()


def test_what_others_mounted_over_a_folder_above_it_stays(space, mount):
    """There the path leads elsewhere."""
    space.run("mount", "-t", "tmpfs", "none", mount.point.parent)
    space.run("mkdir", mount.point)
    space.run("mount", "-t", "tmpfs", "none", mount.point)
    space.run("sh", "-c", f"echo theirs > {mount.point}/file")
    assert mount.stop() == 32
    assert space.run("cat", mount.point / "file").stdout == "theirs\n"
    assert "could not be unmounted" in mount.log_text()


@pytest.mark.promise("clean-stop")
def test_a_folder_above_it_was_renamed(space, mount):
    """It is found under its new name."""
    after = mount.point.parent.with_name("after")
    assert space.run("mv", mount.point.parent, after).returncode == 0
    assert space.mounts() == [(str(after / "m"), "fuse.phonofs")]
    assert mount.stop() == 0
    assert space.mounts() == []


@pytest.mark.promise("clean-stop")
def test_another_mount_in_its_place_stays(space, mount):
    """Ours was unmounted by hand while somebody still uses it, and another made there."""
    user = subprocess.Popen(
        [*space.inside, "sh", "-c", f"cd {mount.point}; echo in; cat"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert user.stdout.readline() == b"in\n"
        assert space.run("umount", "-l", mount.point).returncode == 0
        space.run("mount", "-t", "tmpfs", "none", mount.point)
        assert mount.stop() == 0
        assert space.mounts() == [(str(mount.point), "tmpfs")]
    finally:
        user.stdin.close()
        user.wait(60)
        user.stdout.close()


def test_unmounted_by_hand_with_another_one_in_its_place(space, mount):
    """That is no crash of ours."""
    mount.process.send_signal(signal.SIGSTOP)  # it sees only what there is at the end
    line = f"umount -c {mount.point} && mount -t tmpfs none {mount.point}"
    assert space.run("sh", "-c", line).returncode == 0
    mount.process.send_signal(signal.SIGCONT)
    assert mount.process.wait(60) == 0
    mount.process = None
    assert space.mounts() == [(str(mount.point), "tmpfs")]


def test_the_demo_takes_down_its_own_mount_alone(space, mount, tmp_path):
    """Not another FUSE mount that lies over it."""
    point = tmp_path / "demo"
    demo = subprocess.Popen(
        [*space.inside, sys.executable, "-m", "phonofs.cli", "demo", str(point)],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=mount.environment,
    )  # fmt: skip
    try:
        assert b"is mounted" in demo.stdout.readline()
        assert space.run("mount", "--bind", mount.point, point).returncode == 0
        demo.send_signal(signal.SIGINT)
        demo.wait(60)
        assert space.run("ls", point).stdout == "2026\n"
    finally:
        demo.kill()
        demo.wait(60)
        demo.stdout.close()
    assert mount.stop() == 0


# ended before it was mounted


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 32), (signal.SIGINT, 130)])
def test_a_mount_that_is_stopped_before_it_is_there_has_failed(tmp_path, number, status):
    """Exit status 32, or 130 for Ctrl-C: nothing was mounted."""
    with standing(flat(1000)) as stand_in:
        faults = stand_in.faults({"kind": "token", "fail": "stall", "name": "stalled"})
        mount = Mount(stand_in.url, tmp_path / "m", tmp_path / "cache")
        try:
            mount.start(wait=False)
            until(lambda: faults.fired["stalled"] > 0)
            assert mount.stop(number) == status
            assert not os.path.ismount(mount.point)
            assert "Traceback" not in mount.log_text()
        finally:
            mount.clean_up()


def test_the_command_that_waits_for_it_says_so(tmp_path):
    """The same in the background."""
    with standing(flat(1000)) as stand_in:
        faults = stand_in.faults({"kind": "token", "fail": "stall", "name": "stalled"})
        mount = Mount(stand_in.url, tmp_path / "m", tmp_path / "cache")
        mount.point.mkdir()
        command = subprocess.Popen(
            [sys.executable, "-m", "phonofs.cli", "mount", str(mount.point)],
            env=mount.environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        until(lambda: faults.fired["stalled"] > 0)
        (child,) = Path(f"/proc/{command.pid}/task/{command.pid}/children").read_text().split()
        os.kill(int(child), signal.SIGTERM)
        said = command.communicate(timeout=60)[1]
        assert command.returncode == 32
        assert "before it was mounted" in said
