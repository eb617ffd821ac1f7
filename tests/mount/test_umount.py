"""Unmounting what is in use, or lives on elsewhere; a mount point reached by a link."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.accounts import flat
from tests.support.mounts import Mount, files, mounted, standing, until

pytestmark = pytest.mark.fuse

PHONOFS = (sys.executable, "-m", "phonofs.cli")


@pytest.fixture
def mount(tmp_path):
    with standing(flat(1000)) as stand_in, mounted(stand_in.url, tmp_path) as mount:
        yield mount


@pytest.fixture
def apart(tmp_path):
    """A mount that was not started yet."""
    with standing(flat(1000)) as stand_in:
        mount = Mount(stand_in.url, tmp_path / "m", tmp_path / "cache")
        mount.point.mkdir()
        yield mount
        mount.clean_up()


def phonofs(mount: Mount, *words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PHONOFS, *map(str, words)],
        env=mount.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.promise("umount-says-what-remains")
@pytest.mark.parametrize("way", ["folder", "file", "mapping"])
def test_who_keeps_a_mount_busy_is_named(mount, way):
    """With its process id; what to do stands beside it, and works."""
    (path,) = files(mount.point)
    code = {
        "folder": "import os, sys; os.chdir(sys.argv[1])",
        "file": "import sys; file = open(sys.argv[2])",
        "mapping": (
            "import mmap, sys; file = open(sys.argv[2], 'rb'); "
            "kept = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ); file.close()"
        ),
    }[way]
    user = subprocess.Popen(
        [sys.executable, "-c", f"{code}\nprint(flush=True); input()", mount.point, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        user.stdout.readline()
        done = phonofs(mount, "umount", mount.point)
        assert done.returncode == 32
        assert f"(pid {user.pid})" in done.stderr
        assert "--lazy" in done.stderr
        pid = mount.process.pid
        done = phonofs(mount, "umount", "--lazy", mount.point)
        assert done.returncode == 0
        assert f"process {pid} still serves it" in done.stderr
        assert f"(pid {user.pid})" in done.stderr
    finally:
        user.kill()
        user.communicate()
    assert mount.process.wait(60) == 0


@pytest.mark.promise("umount-says-what-remains")
def test_a_copy_in_another_name_space_is_said_and_then_the_lock_names_the_process(mount, tmp_path):
    """As in a container that was started while the mount was there."""
    if os.geteuid() != 0:
        pytest.skip("a mount name space needs root")
    command = ["unshare", "-m", "--propagation", "private", "sleep", "60"]
    container = subprocess.Popen(command)
    try:
        until(lambda: f" {mount.point} " in Path(f"/proc/{container.pid}/mountinfo").read_text())
        own = os.readlink("/proc/self/ns/mnt")
        until(lambda: os.readlink(f"/proc/{container.pid}/ns/mnt") != own)
        done = phonofs(mount, "umount", mount.point)
        assert (done.returncode, done.stdout) == (0, "")
        assert f"process {mount.process.pid} still serves it" in done.stderr
        assert f"sleep (pid {container.pid})" in done.stderr
        done = phonofs(mount, "mount", mount.point)
        assert done.returncode == 1
        assert f"process {mount.process.pid}" in done.stderr
    finally:
        container.kill()
        container.wait()
    assert mount.process.wait(60) == 0
    done = phonofs(mount, "mount", mount.point)
    assert (done.returncode, done.stderr) == (0, "")
    assert phonofs(mount, "umount", mount.point).returncode == 0


@pytest.mark.promise("a-link-is-its-target")
def test_a_mount_point_that_is_a_link_is_its_target_in_every_command(apart, tmp_path):
    """Also a link to a link, a relative one, and one that leads through a parent."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a/up").symlink_to("../m")
    link = tmp_path / "link"
    link.symlink_to("a/up")
    done = phonofs(apart, "mount", link)
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(phonofs(apart, "status", "--json", link).stdout)
    assert told["mountpoint"] == str(apart.point)
    assert phonofs(apart, "status", "--log-level", "info", link).returncode == 0
    assert phonofs(apart, "fetch", link).returncode == 0
    assert phonofs(apart, "restore", link).stdout == "none of the files is archived\n"
    watch = subprocess.Popen(
        [*PHONOFS, "watch", link], env=apart.environment, stderr=subprocess.PIPE, text=True
    )
    done = phonofs(apart, "mount", link)
    assert (done.returncode, "already" in done.stderr) == (32, True)
    until(lambda: _listens(told["pid"], told["control"]))
    done = phonofs(apart, "umount", link)
    assert (done.returncode, done.stderr) == (0, "")
    assert "no longer mounted" in watch.communicate(timeout=60)[1]
    assert watch.returncode == 32
    assert not os.path.ismount(apart.point)


def _listens(pid: int, path: str) -> bool:
    """Whether somebody is connected to the socket of a mount, as the kernel lists it."""
    lines = Path("/proc/net/unix").read_text().splitlines()
    return sum(line.endswith(path) for line in lines) > 1


def test_a_cache_below_the_target_of_a_link_is_refused(apart, tmp_path):
    """It would deadlock."""
    (tmp_path / "link").symlink_to(apart.point)
    apart.environment["PHONOFS_CACHE_DIR"] = str(apart.point / "cache")
    done = phonofs(apart, "mount", tmp_path / "link")
    assert (done.returncode, "inside the mount point" in done.stderr) == (32, True), done.stderr


def test_a_dead_mount_behind_a_link_is_taken_down(apart, tmp_path):
    """Without being touched."""
    (tmp_path / "link").symlink_to(apart.point)
    apart.start().stop(9)
    done = phonofs(apart, "umount", tmp_path / "link")
    assert (done.returncode, done.stderr) == (0, "")
    assert not os.path.ismount(apart.point)


def test_a_mount_point_that_is_no_utf_8(tmp_path):
    """A folder may be called anything; its status is one of text."""
    with standing(flat(1000)) as stand_in:
        point = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
        mount = Mount(stand_in.url, point, tmp_path / "cache")
        mount.log = tmp_path / "log"
        try:
            mount.start()
            told = json.loads(phonofs(mount, "status", "--json", point).stdout)
            assert told["mountpoint"] == str(point)
            assert phonofs(mount, "umount", point).returncode == 0
        finally:
            mount.clean_up()


def test_a_mount_whose_process_is_stopped_holds_no_command_up(mount):
    """Nor is it taken for a dead one."""
    mount.process.send_signal(signal.SIGSTOP)
    try:
        done = phonofs(mount, "mount", mount.point)
        assert done.returncode == 32
        assert "does not answer" in done.stderr
    finally:
        mount.process.send_signal(signal.SIGCONT)
