"""A mount that begins on a disk that is full or read-only: the cache is off, not the reader."""

import contextlib
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.fault.test_disk import tmpfs
from tests.support.accounts import content_of, flat
from tests.support.mounts import (
    Mount,
    files,
    mount_in_background,
    standing,
    status_of,
    unmount,
    unmounted,
    until,
)

pytestmark = pytest.mark.fuse


def fill(folder: Path) -> None:
    """Leave not a byte."""
    with contextlib.suppress(OSError), (folder / "filler").open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass


def read_only(folder: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", folder], check=True)


@pytest.fixture
def apart(tmp_path):
    """A mount whose cache folder is a disk of 4 MiB."""
    with (
        tmpfs(tmp_path / "cache", "4m"),
        standing(flat(1000, 2000)) as stand_in,
        unmounted(stand_in, tmp_path) as mount,
    ):
        yield mount


def tree(mount: Mount) -> dict[str, bytes]:
    """Every path with its content."""
    return {str(path.relative_to(mount.point)): path.read_bytes() for path in files(mount.point)}


@pytest.mark.promise("disk-trouble-is-not-the-readers")
@pytest.mark.parametrize(
    ("harm", "size"),
    [
        (fill, "10G"),
        (read_only, "0"),
        pytest.param(fill, "0", marks=pytest.mark.slow),
        pytest.param(read_only, "10G", marks=pytest.mark.slow),
    ],
)
def test_what_is_known_is_shown(apart, harm, size):
    """With an intact catalogue: the same tree and bytes, with a service and without."""
    apart.environment["PHONOFS_CACHE_SIZE"] = size
    mount_in_background(apart)
    known = tree(apart)
    assert len(known) == 2
    unmount(apart)
    harm(apart.cache)
    said = mount_in_background(apart)
    assert "catalogue" in said
    assert tree(apart) == known
    assert status_of(apart)["cache"]["state"] == "off"
    unmount(apart)
    apart.stand_in.stop()
    said = mount_in_background(apart)
    assert "offline" in said
    assert [str(path.relative_to(apart.point)) for path in files(apart.point)] == [*known]
    unmount(apart)


def test_what_a_killed_mount_knew_is_shown(apart):
    """Its catalogue is partly in the log of SQLite, which a read-only disk cannot bring in."""
    mount_in_background(apart)
    known = tree(apart)
    os.kill(status_of(apart)["pid"], signal.SIGKILL)
    subprocess.run(["umount", "-l", apart.point], check=True)
    assert (apart.cache / "catalogue.sqlite-wal").stat().st_size
    again = ["mount", "-o", "remount,ro", apart.cache]  # once nobody has a file in it open
    until(lambda: subprocess.run(again, capture_output=True, check=False).returncode == 0)
    apart.stand_in.stop()
    assert "offline" in mount_in_background(apart)
    assert [str(path.relative_to(apart.point)) for path in files(apart.point)] == [*known]
    unmount(apart)


@pytest.mark.promise("disk-trouble-is-not-the-readers")
@pytest.mark.parametrize("harm", [fill, read_only])
def test_a_new_account_is_read_without_a_disk(apart, harm):
    """Nothing is known and nothing can be kept: all is listed and read all the same."""
    harm(apart.cache)
    mount_in_background(apart)
    known = tree(apart)
    assert sorted(known.values()) == sorted(
        content_of(apart.stand_in.service, f"{n:08d}") for n in range(2)
    )
    unmount(apart)
