"""A daemon is started when one is needed, once, and says why if it cannot be."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed")

from phonofs.client import Client  # noqa: E402
from phonofs.door.address import read_address  # noqa: E402
from phonofs.spec import PhonofsFileSystem  # noqa: E402
from tests.support.accounts import flat  # noqa: E402
from tests.support.doors import PROFILE, Served, end_daemon  # noqa: E402
from tests.support.mounts import standing, until  # noqa: E402
from tests.support.programs import as_programs_of  # noqa: E402

LOOK = f"import fsspec; print(len(fsspec.filesystem('phonofs').find('{PROFILE}')))"


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Served]:
    """No process yet: its clients start it. It is ended by its pid."""
    with standing(flat(300_000, 1000)) as stand_in:
        made = Served(stand_in.url, tmp_path / "m", tmp_path / "cache")
        with as_programs_of(made):
            yield made
            if pids(made):
                end_daemon(made.cache)


def pids(daemon: Served) -> set[int]:
    """Return the processes that use the cache folder as their own."""
    found = set()
    wanted = f"PHONOFS_CACHE_DIR={daemon.cache}".encode()
    for folder in Path("/proc").iterdir():
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
            environment = (folder / "environ").read_bytes().split(b"\0")
        except (OSError, ValueError):
            continue
        if b"serve" in words and wanted in environment:
            found.add(int(folder.name))
    return found


def test_the_first_request_starts_a_daemon_and_it_outlives_the_program(daemon: Served):
    done = subprocess.run([sys.executable, "-c", LOOK], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "2\n"), done.stderr
    assert len(pids(daemon)) == 1
    fs = PhonofsFileSystem(autostart=False, skip_instance_cache=True)
    assert len(fs.find(PROFILE)) == 2


@pytest.mark.promise("one-owner-a-machine")
def test_twenty_programs_that_start_at_once_share_one_daemon(daemon: Served):
    programs = [
        subprocess.Popen(
            [sys.executable, "-c", LOOK], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(20)
    ]
    said = [program.communicate(timeout=200) for program in programs]
    assert [out for out, _ in said] == ["2\n"] * 20, [error for _, error in said]
    assert len(pids(daemon)) == 1


def test_a_killed_daemon_is_replaced_and_an_open_file_goes_on(daemon: Served):
    fs = PhonofsFileSystem(skip_instance_cache=True)
    path = max(fs.find(PROFILE, detail=True).values(), key=lambda info: info["size"])["name"]
    with fs.open(path, cache_type="none") as file:
        start = file.read(1000)
        [pid] = pids(daemon)
        os.kill(pid, signal.SIGKILL)
        until(lambda: not pids(daemon))
        rest = file.read()
    assert start + rest == fs.cat(path)
    assert len(start + rest) == 300_000


def test_what_a_daemon_says_of_its_failure_is_passed_on(daemon: Served, monkeypatch):
    monkeypatch.setenv("PHONOFS_SECRET", "wrong")
    fs = PhonofsFileSystem(skip_instance_cache=True)
    with pytest.raises(ConnectionError, match="does not accept the API key and secret"):
        fs.exists(PROFILE)
    monkeypatch.setenv("PHONOFS_TIMEZONE", "Nowhere")
    with pytest.raises(ConnectionError, match="no IANA time zone"):
        PhonofsFileSystem(skip_instance_cache=True).exists(PROFILE)


def test_it_starts_none_if_it_is_told_so(daemon: Served):
    fs = PhonofsFileSystem(autostart=False, skip_instance_cache=True)
    with pytest.raises(ConnectionError, match=f"phonofs serve {PROFILE}"):
        fs.exists(PROFILE)
    assert not pids(daemon)


def test_nobody_listens_where_a_killed_daemon_was(daemon: Served):
    """Its note of the socket is left behind."""
    PhonofsFileSystem(skip_instance_cache=True).exists(PROFILE)
    [pid] = pids(daemon)
    os.kill(pid, signal.SIGKILL)
    until(lambda: not pids(daemon))
    assert read_address(daemon.cache) is not None
    with pytest.raises(ConnectionError):
        Client(PROFILE, autostart=False).info("")
