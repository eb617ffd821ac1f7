"""What the contract says of the tree, asked of a real mount by system calls."""

import errno
import fcntl
import hashlib
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.accounts import content_of
from tests.support.mounts import files

pytestmark = pytest.mark.fuse

REFUSED = {
    "open for writing": lambda f, d: os.open(f, os.O_WRONLY),
    "open for both": lambda f, d: os.open(f, os.O_RDWR),
    "open with O_TRUNC": lambda f, d: os.open(f, os.O_RDONLY | os.O_TRUNC),
    "create": lambda f, d: os.open(d / "new", os.O_WRONLY | os.O_CREAT),
    "truncate": lambda f, d: os.truncate(f, 0),
    "unlink": lambda f, d: os.unlink(f),
    "rmdir": lambda f, d: os.rmdir(d),
    "mkdir": lambda f, d: os.mkdir(d / "new"),
    "mknod": lambda f, d: os.mknod(d / "new"),
    "mkfifo": lambda f, d: os.mkfifo(d / "new"),
    "symlink": lambda f, d: os.symlink("x", d / "new"),
    "link": lambda f, d: os.link(f, d / "new"),
    "rename": lambda f, d: os.rename(f, d / "new"),
    "rename a folder": lambda f, d: os.rename(d, d.parent / "new"),
    "chmod": lambda f, d: os.chmod(f, 0o777),
    "chmod a folder": lambda f, d: os.chmod(d, 0o777),
    "chown": lambda f, d: os.chown(f, 1, 1),
    "utime": lambda f, d: os.utime(f, (0, 0)),
    "setxattr": lambda f, d: os.setxattr(f, "user.x", b"1"),
    "removexattr": lambda f, d: os.removexattr(f, "user.phonofs.id"),
}


@pytest.fixture(scope="module")
def path(demo):
    return demo.one("*_callrecording_*.mp3")


@pytest.mark.promise("nothing-can-be-written")
@pytest.mark.parametrize("name", REFUSED)
def test_what_would_change_the_tree_is_erofs(path, name):
    """Everything that would change the tree fails with EROFS, and nothing changed."""
    before = (path.stat(), sorted(os.listdir(path.parent)))
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the errno is looked at below
        REFUSED[name](path, path.parent)
    assert caught.value.errno == errno.EROFS
    assert (path.stat(), sorted(os.listdir(path.parent))) == before


def test_folders_are_dates_and_names_stand_alone(demo):
    """YEAR/YEAR-MM/YEAR-MM-DD, and only those that hold something."""
    for path in files(demo.point):
        day, month, year = path.parent.name, path.parent.parent.name, path.parents[2].name
        assert day.startswith(month)
        assert month.startswith(year)
        assert path.parents[3] == demo.point
    assert all(any(d.iterdir()) for d in demo.point.rglob("*") if d.is_dir())


def test_modes_sizes_and_times_are_the_records(demo):
    """0444 and 0555; size, mtime and ctime from the record; blocks to match."""
    for path in files(demo.point)[:60]:
        item = demo.service.account.item("us-east", os.getxattr(path, "user.phonofs.id").decode())
        status = path.lstat()
        assert stat.S_IMODE(status.st_mode) == 0o444
        assert status.st_size == item.content.size
        assert status.st_blocks == -(-status.st_size // 512)
        assert status.st_mtime == item.created_ms // 1000
        assert status.st_ctime == (item.updated_ms or item.created_ms) // 1000
        assert (status.st_uid, status.st_gid) == (os.getuid(), os.getgid())
    assert stat.S_IMODE(demo.point.stat().st_mode) == 0o555


def test_inodes_are_unique(demo):
    """No two entries of the tree share an inode number."""
    inodes = [p.lstat().st_ino for p in demo.point.rglob("*")]
    assert len(set(inodes)) == len(inodes)


@pytest.mark.promise("archived-fails-at-once")
def test_an_archived_file_is_listed_and_fails_to_open_at_once(demo):
    """ARCHIVED objects are there with their size; opening one is ENODATA."""
    archived = [p for p in files(demo.point) if os.getxattr(p, "user.phonofs.state") == b"ARCHIVED"]
    assert archived
    with pytest.raises(OSError, match="No data available") as caught:
        archived[0].open("rb")
    assert caught.value.errno == errno.ENODATA
    assert archived[0].stat().st_size > 0


def test_a_missing_name_and_a_missing_attribute(demo, path):
    """ENOENT and ENODATA, never EIO: backup tools stop at that."""
    assert not (demo.point / "1999").exists()
    assert not (path.parent / "nothing").exists()
    with pytest.raises(OSError, match="No data available"):
        os.getxattr(path, "user.nothing")
    assert os.listxattr(path.parent) == os.listxattr(demo.point) == []
    assert os.getxattr(demo.point, "user.phonofs.status").startswith(b"{")


def mapped_md5(path) -> str:
    """The MD5 of a file through mmap, in a process of its own: a page fault holds the GIL,
    which the stand-in in this process needs to answer."""
    code = (
        "import hashlib, mmap, sys; f = open(sys.argv[1], 'rb');"
        "print(hashlib.md5(mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)).hexdigest())"
    )
    command = [sys.executable, "-c", code, str(path)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_reading_by_other_ways_gives_the_same_bytes(demo, path):
    """mmap, pread at odd places, lseek with SEEK_HOLE, and flock all work."""
    whole = content_of(demo.service, os.getxattr(path, "user.phonofs.id").decode())
    with path.open("rb") as file:
        assert mapped_md5(path) == hashlib.md5(whole).hexdigest()
        assert os.pread(file.fileno(), 1000, len(whole) - 100) == whole[-100:]
        assert os.pread(file.fileno(), 10, len(whole)) == b""
        assert os.lseek(file.fileno(), 0, os.SEEK_HOLE) == len(whole)
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)


@pytest.mark.promise("listing-held-still")
def test_a_folder_can_be_read_again_from_any_place(demo, path):
    """Cookies are unique and seekable, and rewinding starts at the first entry."""
    names = os.listdir(path.parent)
    assert len(set(names)) == len(names)
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        assert sorted(os.listdir(descriptor)) == sorted(names)
        os.lseek(descriptor, 0, os.SEEK_SET)
        assert sorted(os.listdir(descriptor)) == sorted(names)
    finally:
        os.close(descriptor)


def test_names_are_safe_everywhere(demo):
    """Whatever a caller is called: UTF-8, no control characters, 255 bytes at most."""
    for path in files(demo.point):
        name = os.fsencode(path.name)
        assert len(name) <= 255
        assert path.name.isprintable()
        assert " " not in path.name
        assert path.name[0] not in "-."
        name.decode("utf-8")


def test_the_mount_says_what_it_is(demo):
    """Type, source and the safe options are in the mount table."""
    table = Path("/proc/self/mountinfo").read_text().splitlines()
    line = next(line for line in table if line.split(" ")[4] == str(demo.point))
    assert " - fuse.phonofs phonofs\\043default " in line  # proc(5) escapes the #
    options = line.split(" ")[5].split(",")
    assert {"ro", "nosuid", "nodev", "noexec"} <= set(options)
    assert "default_permissions" in line


def test_acls_are_not_supported_and_ls_asks_once(demo, path):
    """EOPNOTSUPP for other name spaces: ``ls -l`` then does not ask for every file."""
    for name in ("system.posix_acl_access", "security.capability"):
        with pytest.raises(OSError, match="not supported") as caught:
            os.getxattr(path, name)
        assert caught.value.errno == errno.EOPNOTSUPP
