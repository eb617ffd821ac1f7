"""Mounts that mount(8) makes: the helper's way, and the one of mount.fuse3 without privileges."""

import json
import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from tests.support.accounts import flat
from tests.support.mounts import Mount, files, standing, until

pytestmark = pytest.mark.fuse

FROM_FSTAB = "rw,nosuid,nodev,_netdev,nofail,user,x-systemd.automount"
SAFE = "ro,nosuid,nodev,noexec,default_permissions"


@pytest.fixture
def mount(tmp_path):
    """A profile ``mount`` (named as a command is) over a stand-in; not mounted yet."""
    with standing(flat(1000)) as stand_in:
        mount = Mount(stand_in.url, tmp_path / "m", tmp_path / "cache")
        mount.point.mkdir()
        mount.on_path(tmp_path / "bin")
        yield mount
        mount.clean_up()


def run(mount: Mount, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words, env=mount.environment, capture_output=True, text=True, timeout=60, check=False
    )


def status(mount: Mount) -> str:
    return os.getxattr(mount.point, "user.phonofs.status").decode()


def test_the_helper_takes_what_a_line_of_fstab_passes_on(mount):
    """It mounts read-only whatever is said, and is quiet."""
    done = run(mount, "phonofs", "mount-helper", "work", str(mount.point), "-sn", "-o", FROM_FSTAB)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert len(files(mount.point)) == 1
    assert run(mount, "phonofs", "umount", str(mount.point)).returncode == 0


def helper(mount: Mount, options: str, profile: str = "work") -> subprocess.CompletedProcess[str]:
    return run(mount, "phonofs", "mount-helper", profile, str(mount.point), "-o", options)


@pytest.mark.promise("mount-again-is-success")
def test_a_mount_that_is_there_is_success_for_the_helper_alone(mount):
    """`mount -a` twice; another profile, or `phonofs mount`, is still refused."""
    assert helper(mount, FROM_FSTAB).returncode == 0
    pid = json.loads(status(mount))["pid"]
    done = helper(mount, FROM_FSTAB)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert json.loads(status(mount))["pid"] == pid
    assert helper(mount, FROM_FSTAB, "other").returncode == 32
    assert run(mount, "phonofs", "mount", "work", str(mount.point)).returncode == 32


def test_a_line_of_proc_mounts_is_a_line_of_fstab(mount):
    """genfstab copies it, with what the kernel wrote there; mount.fuse calls us as below."""
    assert helper(mount, "allow_other,subtype=x").returncode == 0
    (line,) = [text for text in mounts_table() if f" {mount.point} " in text]
    source, point, kind, options, *_ = line.replace("\\043", "#").split()
    assert "user_id=" in options
    assert kind == "fuse.x"
    done = run(mount, "phonofs", source, point, "-o", f"{options},fd=3,blksize=512,max_read=131072")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert run(mount, "phonofs", "umount", str(mount.point)).returncode == 0
    done = run(mount, "phonofs", source, point, "-o", options)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert len(files(mount.point)) == 1
    assert run(mount, "phonofs", "umount", str(mount.point)).returncode == 0


def mounts_table() -> list[str]:
    return Path("/proc/mounts").read_text().splitlines()


@pytest.mark.promise("mount-again-is-success")
def test_a_remount_changes_nothing_and_says_what_waits(mount):
    """`systemctl reload` of a mount unit runs it; of options only those that differ are named."""
    assert helper(mount, "cache_size=1G,umask=0277").returncode == 0
    pid = json.loads(status(mount))["pid"]
    done = helper(mount, "remount,ro,nosuid,cache_size=1G,umask=0277")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    done = helper(mount, "remount,cache_size=1G,umask=0222,page_size=50")
    assert done.returncode == 0
    assert "umask, page_size" in done.stderr
    assert "cache_size" not in done.stderr
    assert "next mount" in done.stderr
    assert json.loads(status(mount))["pid"] == pid
    assert run(mount, "phonofs", "umount", str(mount.point)).returncode == 0
    done = helper(mount, "remount")
    assert (done.returncode, "not mounted" in done.stderr) == (32, True)


@pytest.mark.promise("mount-again-is-success")
def test_mount_a_again_and_remount_by_mount_8_itself(mount, tmp_path):
    """In a mount name space of its own, where the helper is put into /sbin."""
    if os.geteuid() != 0:
        pytest.skip("a mount name space needs root")
    # mount(8) looks for helpers in /sbin alone, and mount.fuse3(8) for us in the system's PATH.
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, words in (("phonofs", ""), ("mount.phonofs", "mount-helper ")):
        (programs / name).write_text(f'#!/bin/sh\nexec {tmp_path}/bin/phonofs {words}"$@"\n')
        (programs / name).chmod(0o755)
    fstab, copied = tmp_path / "fstab", tmp_path / "copied"
    fstab.write_text(f"work {mount.point} phonofs _netdev,allow_other 0 0\n")
    point = mount.point
    script = f"""
        for bin in $(realpath /sbin) /usr/bin; do
            mount -t overlay overlay -o lowerdir={programs}:$bin $bin || exit 77
        done
        set -e
        mount -a -T {fstab}
        mount -a -T {fstab}
        mount -o remount -T {fstab} {point}
        mount -o remount,ro {point}
        mount work {point} -t phonofs -o remount,allow_other,page_size=50
        ls {point}
        grep " {point} " /proc/mounts >{copied}
        test $(wc -l <{copied}) = 1
        mount -a -T {copied}
        phonofs umount {point}
        mount -a -T {copied}
        ls {point}
        test $(grep -c " {point} " /proc/mounts) = 1
        phonofs umount {point}
    """
    done = run(mount, "unshare", "-m", "sh", "-c", script)
    if done.returncode == 77:
        pytest.skip("no overlay file system here")
    assert (done.returncode, done.stdout) == (0, "2026\n2026\n"), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert "page_size: takes effect at the next mount" in done.stderr


@pytest.fixture
def mount_fuse3():
    program = shutil.which("mount.fuse3") or shutil.which("mount.fuse3", path="/sbin:/usr/sbin")
    if program is None or os.geteuid() != 0:
        pytest.skip("needs root and mount.fuse3 (package fuse3)")
    return program


def test_mount_fuse3_hands_a_mount_to_a_process_without_capabilities(mount, mount_fuse3):
    """The mount point is /dev/fd/N; a profile may be named as a command is."""
    options = f"drop_privileges,allow_other,{SAFE}"
    done = run(mount, mount_fuse3, "phonofs#mount", str(mount.point), "-o", options)
    assert done.returncode == 0, done.stderr
    assert len(files(mount.point)) == 1
    pid = int(status(mount).split('"pid":')[1].split(",")[0])
    about = Path(f"/proc/{pid}/status").read_text()
    assert "CapEff:\t0000000000000000" in about
    assert "CapBnd:\t0000000000000000" in about
    assert "NoNewPrivs:\t1" in about
    assert "\0/dev/fd/" in Path(f"/proc/{pid}/cmdline").read_text()
    subprocess.run(["umount", str(mount.point)], check=True)
    until(lambda: not is_running(pid))


def test_a_handed_over_mount_whose_number_is_that_of_a_standard_stream(mount, mount_fuse3):
    """/dev/fd/0, where mount.fuse3 was started with a closed standard input."""
    words = [mount_fuse3, "phonofs#mount", str(mount.point), "-o", f"drop_privileges,{SAFE}"]
    done = run(mount, "sh", "-c", 'exec "$@" <&-', "sh", *words)
    assert done.returncode == 0, done.stderr
    assert len(files(mount.point)) == 1
    pid = int(status(mount).split('"pid":')[1].split(",")[0])
    assert "\0/dev/fd/0\0" in Path(f"/proc/{pid}/cmdline").read_text()
    subprocess.run(["umount", str(mount.point)], check=True)
    until(lambda: not is_running(pid))


def is_running(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def test_a_handed_over_mount_without_permission_checks_is_refused(mount, mount_fuse3):
    """allow_other without default_permissions would let anybody read every file."""
    options = "drop_privileges,allow_other"
    done = run(mount, mount_fuse3, "phonofs#work", str(mount.point), "-o", options)
    assert done.returncode == 1
    assert "default_permissions" in done.stderr


def test_a_mount_says_how_it_is_to_systemd(mount, tmp_path):
    """READY=1 once it can be read, its condition as STATUS=, WATCHDOG=1 when the tree answers."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(60)

        def told(words: str) -> None:
            while words not in listener.recv(4096).decode():
                pass

        mount.environment |= {
            "NOTIFY_SOCKET": str(tmp_path / "notify"),
            "WATCHDOG_USEC": "4000000",
        }
        mount.start()
        for words in ("READY=1", "STATUS=mounted,", "WATCHDOG=1", "WATCHDOG=1"):
            told(words)
        assert mount.stop() == 0
        told("STOPPING=1")
