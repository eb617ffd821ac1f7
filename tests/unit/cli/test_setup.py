"""setup-mount-helper, and the arithmetic of fetch."""

import errno
import threading
from pathlib import Path

import pytest

from phonofs.cli.fetch import Chosen, _read_whole, _status
from phonofs.cli.setup_mount_helper import set_up
from phonofs.errors import UsageError


def test_the_link_is_made_and_renewed(tmp_path: Path) -> None:
    link, old, new = tmp_path / "mount.phonofs", tmp_path / "old", tmp_path / "new"
    new.touch()
    set_up(link, old)
    assert link.readlink() == old
    set_up(link, new)
    assert link.readlink() == new
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mount.phonofs", "new"]


def test_a_program_of_somebody_else_stays(tmp_path: Path) -> None:
    link = tmp_path / "mount.phonofs"
    link.write_text("theirs")
    (tmp_path / "ours").touch()
    with pytest.raises(UsageError, match="exists and is not a link"):
        set_up(link, tmp_path / "ours")
    assert link.read_text() == "theirs"


def test_where_it_cannot_be_made_it_says_who_could(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="as root"):
        set_up(tmp_path / "missing" / "mount.phonofs", tmp_path / "ours")


@pytest.mark.parametrize(
    ("numbers", "status"),
    [([], 0), ([errno.ESTALE], 1), ([errno.ESTALE, errno.EACCES], 2), ([5, errno.EACCES], 3)],
)
def test_the_gravest_failure_gives_the_status(numbers: list[int], status: int) -> None:
    assert _status([(Path("x"), OSError(number, "")) for number in numbers]) == status


@pytest.mark.parametrize("cached", [0, 1 << 20, 2_500_000])
def test_progress_counts_each_missing_byte_once(tmp_path: Path, cached: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(3_000_000))
    seen: list[int] = []
    file = Chosen(path, 3_000_000, cached, "id", "uk", archived=False)
    _read_whole(file, seen.append, threading.Event())
    assert sum(seen) == file.missing


def test_a_stopped_fetch_reads_no_further(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(10))
    stop = threading.Event()
    stop.set()
    seen: list[int] = []
    _read_whole(Chosen(path, 10, 0, "id", "uk", archived=False), seen.append, stop)
    assert seen == []
