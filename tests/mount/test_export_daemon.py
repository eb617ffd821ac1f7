"""``phonofs export`` from a daemon without a mount."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from phonofs.cli.door_contents import DoorContents
from phonofs.client.client import Client
from phonofs.door.address import read_address
from phonofs.export.contents import NotCopied, Reason
from phonofs.fakeservice.account import flat_item
from tests.mount.test_export_command import is_whole, rows, sums_are_right, tree
from tests.mount.test_journal import lines_of
from tests.support.accounts import NOON_MS, flat
from tests.support.calls import calls
from tests.support.doors import PROFILE, Served, served
from tests.support.mounts import mounted, phonofs, standing, until

pytestmark = pytest.mark.fuse


def exported(daemon: Served, dest: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return phonofs(daemon, "export", str(dest), "--profile", PROFILE, *words)


@pytest.mark.promise("export-complete-or-said")
def test_an_export_reads_what_a_daemon_has_and_is_what_a_mount_gives(tmp_path):
    journal = tmp_path / "journal"
    with standing(calls()) as stand_in:
        with served(stand_in.url, tmp_path, journal=str(journal)) as daemon:
            done = exported(daemon, tmp_path / "a")
            assert done.returncode == 0, done.stderr
            assert is_whole(stand_in.service, tmp_path / "a")
            assert sums_are_right(tmp_path / "a")
            asked = stand_in.service.counters.requests["content"]
            done = exported(daemon, tmp_path / "b", "--agent", "ann lee")
            assert done.returncode == 0, done.stderr
            assert stand_in.service.counters.requests["content"] == asked, "it was cached"
            again = exported(daemon, tmp_path / "a", "--update")
            assert (again.returncode, "copied" in again.stdout) == (0, False)
            assert daemon.stop() == 0
        opens = [line for line in lines_of(journal, PROFILE) if line.event == "open"]
        assert {line.how for line in opens} == {"door"}
        assert {line.program for line in opens if line.kind == "recording"} == {opens[0].program}
        begun, ended, *_ = [line for line in lines_of(journal, PROFILE) if line.event == "export"]
        assert (ended.of, ended.uid, ended.pid) == (begun.n, os.geteuid(), opens[0].pid)
        with mounted(stand_in.url, tmp_path) as mount:
            of = ("--mount", str(mount.point))
            assert phonofs(mount, "export", str(tmp_path / "c"), *of).returncode == 0
            some = ("--agent", "ann lee", *of)
            assert phonofs(mount, "export", str(tmp_path / "d"), *some).returncode == 0
    assert any(name.endswith(".srt") for name in tree(tmp_path / "a"))
    assert tree(tmp_path / "a") == tree(tmp_path / "c"), "texts, too"
    assert tree(tmp_path / "b") == tree(tmp_path / "d")
    assert set(tree(tmp_path / "b")) < set(tree(tmp_path / "a"))


def test_what_a_daemon_cannot_give_is_said_with_the_reason(tmp_path):
    account = flat(1000, 2000)
    account.put(flat_item("archived", 100, NOON_MS, state="ARCHIVED"))
    with standing(account) as stand_in, served(stand_in.url, tmp_path) as daemon:
        stand_in.faults({"kind": "content", "id": "00000001", "fail": "status", "status": 403})
        done = exported(daemon, tmp_path / "out")
        assert done.returncode == 4, done.stderr
        missing = {row["id"]: row["reason"] for row in rows(tmp_path / "out/missing.csv")}
        assert missing == {"archived": "archived", "00000001": "refused"}
        contents = DoorContents(Client(PROFILE, address=read_address(daemon.cache)), ".views")
        for of, reason in [("2026/no", Reason.WITHDRAWN), ("2026", Reason.UNAVAILABLE)]:
            with pytest.raises(NotCopied, match="the daemon says") as failure:
                contents.open(of)
            assert failure.value.reason is reason
        daemon.stop()
        with pytest.raises(NotCopied) as failure:
            contents.texts("2026/2026-03/2026-03-02")
        assert failure.value.reason is Reason.UNAVAILABLE


def test_an_export_from_a_daemon_that_ends_goes_on_with_the_next(tmp_path):
    account = flat(*[20_000] * 100)
    with standing(account) as stand_in:
        with served(stand_in.url, tmp_path) as daemon:
            stand_in.faults({"kind": "content", "skip": 40, "fail": "stall"})
            words = [sys.executable, "-m", "phonofs.cli", "export", str(tmp_path / "out")]
            process = subprocess.Popen(
                [*words, "--profile", PROFILE],
                env=daemon.environment,
                stderr=subprocess.PIPE,
                text=True,
            )
            staging = tmp_path / "out/.phonofs-export/new"
            until(lambda: staging.is_dir() and len(list(staging.iterdir())) > 20)
            assert daemon.stop(signal.SIGKILL) == -signal.SIGKILL
            _, said = process.communicate(timeout=60)
            assert process.returncode == 3, said
            assert len(said.strip().splitlines()) == 1
        stand_in.faults()
        with served(stand_in.url, tmp_path) as daemon:
            done = exported(daemon, tmp_path / "out")
            assert done.returncode == 0, done.stderr
            assert "kept" in done.stdout
            assert is_whole(stand_in.service, tmp_path / "out")


def test_a_daemon_of_another_profile_is_not_taken_for_its_own(tmp_path):
    """With one cache folder for both: nothing of the other account is found or copied."""
    with standing(flat(1000)) as stand_in, served(stand_in.url, tmp_path) as daemon:
        out = tmp_path / "out"
        for words in (["export", str(out)], ["find"], ["index"], ["status"]):
            done = phonofs(daemon, *words, "--profile", "other")
            assert done.returncode == 1, words
            assert f"of profile other serves profile {PROFILE}: set cache_dir" in done.stderr
            assert done.stdout == ""
        assert not (out / "export.json").exists()
