"""The cache folder: what is refused, what is made, what nobody else can read."""

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from phonofs.cache import backend
from phonofs.cache.directory import claim, file_system_of, has_cache, lock_folder
from phonofs.errors import UsageError
from tests.support.caching import open_cache
from tests.support.descriptors import descriptors, settled_descriptors


@pytest.fixture(params=[0o000, 0o022, 0o077])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def modes(path: Path) -> set[int]:
    return {stat.S_IMODE(p.lstat().st_mode) for p in path.rglob("*")}


def test_it_is_ours_alone_whatever_the_umask(tmp_path: Path, umask: int):
    """Folders 0700, files 0600, also those above it that had to be made."""
    os.close(claim(tmp_path / "a" / "b"))
    assert modes(tmp_path / "a") == {0o700, 0o600}
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o700


def test_it_is_marked_and_tagged(tmp_path: Path):
    """So that we know our own, and backups pass it by."""
    os.close(claim(tmp_path))
    assert has_cache(tmp_path)
    tag = (tmp_path / "content" / "CACHEDIR.TAG").read_text()
    assert tag.startswith("Signature: 8a477f597d28d172789f06886806bc55\n")
    os.close(claim(tmp_path))


def test_a_second_one_says_so(tmp_path: Path):
    """One mount at a time."""
    folder = os.open(tmp_path, os.O_RDONLY)
    first, lock = claim(tmp_path), lock_folder(folder, tmp_path)
    with pytest.raises(UsageError, match=r"another phonofs is using"):
        claim(tmp_path)
    with pytest.raises(UsageError, match=rf"another phonofs \(process {os.getpid()}\) is using"):
        lock_folder(folder, tmp_path)
    os.close(first)
    os.close(lock)
    os.close(claim(tmp_path))
    os.close(lock_folder(folder, tmp_path))
    os.close(folder)


def test_without_a_lock_file_the_folder_itself_is_locked(tmp_path: Path):
    """As on a disk that takes no file; a second one says so too, and leaves nothing open."""
    (tmp_path / "lock").mkdir()  # so that no file of this name can be created
    folder = os.open(tmp_path, os.O_RDONLY)
    lock = lock_folder(folder, tmp_path)
    before = settled_descriptors()
    with pytest.raises(UsageError, match="another phonofs is using"):
        lock_folder(folder, tmp_path)
    assert descriptors() == before
    os.close(lock)
    os.close(lock_folder(folder, tmp_path))
    os.close(folder)


def test_the_lock_dies_with_its_process(tmp_path: Path):
    """A kill leaves nothing to clean up."""
    script = f"""
import os, signal, pathlib
from phonofs.cache.directory import claim
claimed = claim(pathlib.Path({str(tmp_path)!r}))
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", script], env=child_env(), check=False)
    assert done.returncode == -9
    os.close(claim(tmp_path))


def child_env() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}


def test_a_link_is_refused(tmp_path: Path):
    """Also one to a folder of ours, and one in the place of content/."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(UsageError, match="link or not a folder"):
        claim(tmp_path / "link")
    (tmp_path / "real" / "content").symlink_to(tmp_path)
    (tmp_path / "real").chmod(0o700)
    with pytest.raises(UsageError, match="link or not a folder"):
        claim(tmp_path / "real")


def test_a_file_in_its_place_is_refused(tmp_path: Path):
    """And one in the place of a folder above it."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="not a folder"):
        claim(tmp_path / "file")
    with pytest.raises(UsageError, match="not a folder"):
        claim(tmp_path / "file" / "below")


def test_somebody_elses_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """With whose it is and what to do."""
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(UsageError, match=r"belongs to someone else \(uid \d+\); set cache_dir"):
        claim(tmp_path)


def test_a_folder_with_another_use_is_not_taken_over(tmp_path: Path):
    """One that others may enter and that holds other things keeps its rights."""
    tmp_path.chmod(0o755)
    (tmp_path / "thesis.txt").write_text("x")
    with pytest.raises(UsageError, match="of its own"):
        claim(tmp_path)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


def test_an_empty_folder_is_made_ours(tmp_path: Path):
    """The rights of others go."""
    tmp_path.chmod(0o777)
    os.close(claim(tmp_path))
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700


def test_a_content_folder_that_is_not_ours_is_left_alone(tmp_path: Path):
    """Without the marker nothing in it is touched."""
    (tmp_path / "content").mkdir()
    (tmp_path / "content" / "thesis.txt").write_text("x")
    with pytest.raises(UsageError, match="not a phonofs cache"):
        claim(tmp_path)
    assert (tmp_path / "content" / "thesis.txt").read_text() == "x"


def test_another_layout_is_left_alone(tmp_path: Path):
    """A newer version made it."""
    os.close(claim(tmp_path))
    (tmp_path / "content" / "phonofs-cache").write_text("phonofs cache, layout 99\n")
    with pytest.raises(UsageError, match="another version"):
        claim(tmp_path)


def test_a_marker_lost_in_a_power_cut_is_written_again(tmp_path: Path):
    """An empty one is still a marker."""
    os.close(claim(tmp_path))
    marker = tmp_path / "content" / "phonofs-cache"
    marker.write_text("")
    os.close(claim(tmp_path))
    assert marker.read_text().startswith("phonofs cache")


@pytest.mark.parametrize("name", ["phonofs-cache", "lock", "CACHEDIR.TAG"])
def test_planted_links_are_not_followed(tmp_path: Path, name: str):
    """What they point at stays as it is."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    cache = tmp_path / "cache"
    (cache / "content").mkdir(parents=True, mode=0o700)
    cache.chmod(0o700)
    (cache / "content" / name).symlink_to(victim)
    with pytest.raises((UsageError, OSError)):
        claim(cache)
    assert victim.read_text() == "precious"


def test_a_planted_pipe_does_not_hold_us_up(tmp_path: Path):
    """Opening it would wait for a writer for ever."""
    (tmp_path / "content").mkdir(mode=0o700)
    tmp_path.chmod(0o700)
    os.mkfifo(tmp_path / "content" / "phonofs-cache")
    with pytest.raises(UsageError):
        claim(tmp_path)


def test_nothing_is_left_open_after_a_refusal(tmp_path: Path):
    """A mount that is tried again and again does not run out of descriptors."""
    first = claim(tmp_path)
    before = settled_descriptors()
    for _ in range(5):
        with pytest.raises(UsageError):
            claim(tmp_path)
    assert descriptors() == before
    os.close(first)


def test_the_file_system_is_known(tmp_path: Path):
    """From the table of mounts."""
    fd = os.open("/proc", os.O_RDONLY)
    assert file_system_of(fd) == "proc"
    os.close(fd)


@pytest.mark.expected_log("on a network file system")
def test_a_network_file_system_is_noticed(tmp_path: Path, monkeypatch, expected_log):
    """There, locks and the index are not to be trusted."""
    monkeypatch.setattr(backend, "file_system_of", lambda fd: "nfs4")
    open_cache(tmp_path).close()
    assert len(expected_log.seen) == 1
