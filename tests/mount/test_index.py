"""``phonofs index`` and the option ``index``: the whole account is known afterwards."""

import json
import os
import subprocess
import sys

import pytest

from phonofs.fakeservice.account import Account, flat_item
from tests.mount.test_control import NOBODY, asked_as, public
from tests.support.accounts import NOON_MS
from tests.support.calls import call
from tests.support.mounts import Mount, mounted, phonofs, standing, status_of, unmounted, until

pytestmark = pytest.mark.fuse

__all__ = ["public"]  # a fixture

DAY_MS = 86_400_000
DAYS = 70
NOT_MOUNTED = "test-index"  # of a profile that is mounted, that mount would do it


def account() -> Account:
    """Two objects a day; the last one is of 2 March 2026."""
    return Account(
        flat_item(f"{n:08d}", 1000, NOON_MS - n // 2 * DAY_MS, tags={"agentName": f"A{n % 5}"})
        for n in range(2 * DAYS)
    )


def is_known(mount: Mount) -> bool:
    found = json.loads(os.getxattr(mount.point, "user.phonofs.known"))["regions"]
    return [first for first, _ in found["us-east"]] == ["2025-12-23"]


def test_after_index_a_mount_answers_without_the_service(tmp_path):
    with standing(account()) as stand_in, mounted(stand_in.url, tmp_path) as mount:
        done = phonofs(mount, "index", str(mount.point))
        assert (done.returncode, done.stdout) == (0, f"{2 * DAYS} objects known\n"), done.stderr
        assert is_known(mount)
        assert status_of(mount)["catalogue"]["known"]["us-east"][0][0] == "2025-12-23"
        assert "all from 2025-12-23 on" in phonofs(mount, "status", str(mount.point)).stdout
        searches = stand_in.service.counters.requests["search"]
        assert phonofs(mount, "index", str(mount.point)).returncode == 0
        assert stand_in.service.counters.requests["search"] - searches <= 2
        assert stand_in.service.counters.requests["content"] == 0
        stand_in.stop()
        done = phonofs(mount, "find", "--mount", str(mount.point), "--agent", "A3")
        assert (done.returncode, len(done.stdout.splitlines())) == (0, 2 * DAYS // 5), done.stderr
        assert len([*mount.point.rglob("*.mp3")]) == 2 * DAYS


def test_a_mount_indexes_by_itself_if_it_is_told_to(tmp_path):
    with (
        standing(account()) as stand_in,
        mounted(stand_in.url, tmp_path, index="records") as mount,
    ):
        until(lambda: status_of(mount)["index"]["state"] == "done")
        assert is_known(mount)


def with_words() -> Account:
    """A call each day with five objects, of which four have words."""
    days = (call(n, NOON_MS - n * DAY_MS, "Jo", words=f"day {n}") for n in range(DAYS))
    return Account(item for day in days for item in day)


OBJECTS, SOURCES, TEXTS = 5 * DAYS, 4 * DAYS, 4 * DAYS  # subtitles are one, both sides are one


def words_without_the_service(mount: Mount) -> None:
    done = subprocess.run(
        ["grep", "-rho", "day [0-9]* owner", mount.point / ".views" / "text"],
        capture_output=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")
    assert sorted(int(line.split()[1]) for line in done.stdout.splitlines()) == [*range(DAYS)]


@pytest.mark.promise("search-whole-or-said")
def test_after_index_with_texts_words_are_there_without_the_service(tmp_path):
    with standing(with_words()) as stand_in, mounted(stand_in.url, tmp_path) as mount:
        done = phonofs(mount, "index", "--texts", str(mount.point))
        known = f"{OBJECTS} objects, {TEXTS} texts known\n"
        assert (done.returncode, done.stdout) == (0, known), done.stderr
        assert stand_in.service.counters.requests["content"] == SOURCES
        assert phonofs(mount, "index", "--texts", str(mount.point)).stdout == known
        assert stand_in.service.counters.requests["content"] == SOURCES
        stand_in.stop()
        words_without_the_service(mount)


def test_a_mount_brings_texts_by_itself_if_it_is_told_to(tmp_path):
    with standing(with_words()) as stand_in, mounted(stand_in.url, tmp_path, index="texts") as m:
        until(lambda: status_of(m)["index"]["state"] == "done")
        assert status_of(m)["index"]["texts"] == TEXTS
        assert f"{TEXTS} texts" in phonofs(m, "status", str(m.point)).stdout
        stand_in.stop()
        words_without_the_service(m)


def test_texts_outlast_a_service_that_asks_for_pauses(tmp_path):
    with standing(with_words()) as stand_in, mounted(stand_in.url, tmp_path) as mount:
        rule = {"kind": "content", "fail": "status", "status": 429, "every": 20, "count": 2}
        plan = stand_in.faults({**rule, "retry_after": 1})
        done = phonofs(mount, "index", "--texts", str(mount.point))
        assert (done.returncode, any(plan.fired.values())) == (0, True), done.stderr
        assert f"{TEXTS} texts known" in done.stdout


def test_without_a_mount_texts_come_by_the_profiles_key(tmp_path):
    with standing(with_words()) as stand_in, unmounted(stand_in, tmp_path) as mount:
        done = phonofs(mount, "index", "--texts", "--profile", NOT_MOUNTED)
        assert (done.returncode, f"{TEXTS} texts known" in done.stdout) == (0, True), done.stderr
        assert stand_in.service.counters.requests["content"] == SOURCES


def test_without_a_mount_the_command_does_it_with_the_profiles_key(tmp_path):
    with standing(account()) as stand_in, unmounted(stand_in, tmp_path) as mount:
        done = phonofs(mount, "index", "--profile", NOT_MOUNTED, "--since", "2026-02")
        assert done.returncode == 0, done.stderr
        assert 60 <= int(done.stdout.split()[0]) < 70  # and the first ones, to know where they are
        asked = ("find", "--profile", NOT_MOUNTED)
        done = phonofs(mount, *asked, "--since", "2026-02")
        assert (done.returncode, len(done.stdout.splitlines())) == (0, 60), done.stderr
        assert phonofs(mount, *asked).returncode == 4
        done = phonofs(mount, "index", "--profile", NOT_MOUNTED)
        assert (done.returncode, done.stdout) == (0, f"{2 * DAYS} objects known\n"), done.stderr
        stand_in.stop()
        done = phonofs(mount, *asked, "--agent", "A1")
        assert (done.returncode, len(done.stdout.splitlines())) == (0, 2 * DAYS // 5), done.stderr
        assert phonofs(mount, "index", "--profile", NOT_MOUNTED, "--since", "x").returncode == 1


def test_it_outlasts_a_service_that_asks_for_pauses(tmp_path):
    with standing(account()) as stand_in, mounted(stand_in.url, tmp_path) as mount:
        rule = {"kind": "search", "fail": "status", "status": 429, "every": 20, "count": 4}
        plan = stand_in.faults({**rule, "retry_after": 1})
        done = phonofs(mount, "index", str(mount.point))
        assert (done.returncode, done.stdout) == (0, f"{2 * DAYS} objects known\n"), done.stderr
        assert plan.fired


def test_ctrl_c_ends_the_command_and_the_next_run_goes_on(tmp_path):
    with standing(account()) as stand_in, mounted(stand_in.url, tmp_path) as mount:
        stand_in.faults(
            {"kind": "search", "skip": 20, "fail": "delay", "seconds": 2}
        )  # not done yet
        command = [sys.executable, "-m", "phonofs.cli", "index", str(mount.point)]
        process = subprocess.Popen(command, env=mount.environment, stderr=subprocess.PIPE)
        until(lambda: status_of(mount)["catalogue"]["objects"] > 10)
        process.send_signal(2)
        _, said = process.communicate(timeout=60)
        assert (process.returncode, b"goes on from here" in said) == (130, True)
        stand_in.faults()
        done = phonofs(mount, "index", str(mount.point))
        assert (done.returncode, done.stdout) == (0, f"{2 * DAYS} objects known\n"), done.stderr


def test_only_the_owner_indexes(public, tmp_path):
    with (
        standing(account()) as stand_in,
        mounted(stand_in.url, public, allow_other="yes") as mount,
    ):
        name = status_of(mount)["control_shared"]
        assert "only root, the owner" in asked_as(NOBODY, name, command="index")["error"]
        phonofs(mount, "index", str(mount.point))
        done = subprocess.run(
            ["getfattr", "--only-values", "-n", "user.phonofs.known", mount.point],
            user=65534, group=65534, capture_output=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0
        assert b"2025-12-23" in done.stdout
