"""A mount that goes on: remounted, offline, in another zone, quiet, watched, with a harmed file."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from phonofs.fakeservice.account import Account, change, flat_item
from phonofs.fakeservice.options import Options
from tests.support.accounts import NOON_MS, flat
from tests.support.mounts import (
    Mount,
    StandIn,
    files,
    is_followed,
    mounted,
    standing,
    status_of,
    until,
)
from tests.support.timing import Stopwatch

pytestmark = pytest.mark.fuse

HOUR_MS = 3_600_000


def command(mount: Mount, *words: str) -> list[str]:
    return [sys.executable, "-m", "phonofs.cli", *words]


def searches(stand_in: StandIn) -> int:
    return stand_in.service.counters.requests["search"]


def remounted(stand_in: StandIn, folder: Path, **options: str) -> Callable[[], list[str]]:
    """Mounts once more over the same cache: what is shown once the first poll was answered, and
    that nothing else was asked."""

    def look() -> list[str]:
        stand_in.service.counters.clear()
        with mounted(stand_in.url, folder, poll_interval="1h", **options) as mount:
            until(lambda: searches(stand_in) == 1 and is_followed(status_of(mount)))
            shown = [str(path.relative_to(mount.point)) for path in files(mount.point)]
            assert mount.stop() == 0
        assert searches(stand_in) == 1
        return shown

    return look


def test_another_time_zone_moves_names_and_fetches_nothing(tmp_path):
    """23:30 UTC is the next day in Tokyo, and the evening before in New York; and back again."""
    account = flat(10, 20, created_ms=NOON_MS + 11 * HOUR_MS + HOUR_MS // 2)
    with standing(account) as stand_in:
        with mounted(stand_in.url, tmp_path, poll_interval="1h") as mount:
            until(lambda: is_followed(status_of(mount)))
            first = [str(path.relative_to(mount.point)) for path in files(mount.point)]
            assert {name[:26] for name in first} == {"2026/2026-03/2026-03-02/23"}
            assert mount.stop() == 0
        tokyo = remounted(stand_in, tmp_path, timezone="Asia/Tokyo")()
        assert {name[:26] for name in tokyo} == {"2026/2026-03/2026-03-03/08"}
        york = remounted(stand_in, tmp_path, timezone="America/New_York")()
        assert {name[:26] for name in york} == {"2026/2026-03/2026-03-02/18"}
        assert remounted(stand_in, tmp_path)() == first


def test_a_quiet_mount_asks_once_a_poll_and_region(tmp_path):
    """Nobody looks, nothing changes: a search for each region and poll, and nothing else."""
    account = Account([flat_item("a", 10, NOON_MS), flat_item("b", 10, NOON_MS, region="uk")])
    with (
        standing(account) as stand_in,
        mounted(stand_in.url, tmp_path, poll_interval="0.5s") as mount,
    ):
        assert len(files(mount.point)) == 2
        until(lambda: is_followed(status_of(mount)))
        stand_in.service.counters.clear()
        watch = Stopwatch()
        until(lambda: searches(stand_in) >= 12)
        assert watch.seconds >= 4 * 0.5, "six polls of each region; the first may arrive late"
        seen = list(stand_in.service.counters.seen)[:12]
        assert {one.kind for one in seen} == {"search"}
        assert sum("/uk/" in one.path for one in seen) in (5, 6, 7), "each at its own pace"
        assert all("updatedTime" in one.query["filter"] for one in seen)


def test_an_offline_start_recovers_with_one_line_each_way(tmp_path):
    """The known tree is there; what changed meanwhile comes by itself when the service does."""
    account = flat(1000, 2000)
    with standing(account) as stand_in:
        with mounted(stand_in.url, tmp_path) as mount:
            known = files(mount.point)
            until(lambda: is_followed(status_of(mount)))
            assert mount.stop() == 0
        stand_in.stop()
        now = stand_in.service.now_ms()
        account.put(flat_item("meanwhile", 30, NOON_MS + HOUR_MS, updated_ms=now))
        options = {"read_deadline": "1s", "poll_interval": "0.3s"}
        with mounted(stand_in.url, tmp_path, **options) as mount:
            assert files(mount.point) == known
            with pytest.raises(OSError, match="Input/output"):
                known[0].read_bytes()
            until(lambda: mount.log_text().count("cannot be followed") == 1)
            stand_in.start()
            until(lambda: len(files(mount.point)) == 3)
            until(lambda: "followed again" in mount.log_text())
            until(lambda: _size(known[0]) == 1000)
            assert mount.log_text().count("cannot be followed") == 1
            assert mount.log_text().count("followed again") == 1


def _size(path: Path) -> int | None:
    """How much can be read; None while it cannot."""
    try:
        return len(path.read_bytes())
    except OSError:
        return None


def test_watch_prints_changes_and_runs_a_command_for_each(tmp_path):
    """One at a time, with the path, the record and the kind; a failure is said, and not the end."""
    account = flat(1000)
    script, seen = tmp_path / "see.sh", tmp_path / "seen"
    script.write_text(
        "#!/bin/sh\n"
        f'echo "begin $PHONOFS_CHANGE $1" >> {seen}; cat >> {seen}; echo end >> {seen}\n'
        'case "$1" in *fails*) exit 3;; esac\n'
    )
    script.chmod(0o755)
    with (
        standing(account) as stand_in,
        mounted(stand_in.url, tmp_path, poll_interval="0.2s") as mount,
    ):
        (path,) = files(mount.point)
        until(lambda: is_followed(status_of(mount)))
        watch = command(mount, "watch", str(mount.point))
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": mount.environment}
        with (
            subprocess.Popen(watch, text=True, **pipes) as printing,
            subprocess.Popen([*watch, "--exec", str(script)], text=True, **pipes) as running,
        ):
            until(lambda: _watchers(mount) == 2)
            now = stand_in.service.now_ms()
            account.put(flat_item("fails123", 30, NOON_MS + HOUR_MS, updated_ms=now + 1000))
            account.put(flat_item("works123", 30, NOON_MS + HOUR_MS, updated_ms=now + 2000))
            until(lambda: seen.exists() and seen.read_text().count("end\n") == 2)
            change(account, "us-east", "00000000", now + 3000, state="REVOKED")
            until(lambda: seen.read_text().count("end\n") == 3)
            events = [json.loads(printing.stdout.readline()) for _ in range(3)]
            for process in (printing, running):
                process.send_signal(signal.SIGINT)
            assert "ended with 3" in running.stderr.read()
    lines = seen.read_text().splitlines()
    assert [line.split()[0] for line in lines[::3]] == ["begin"] * 3  # never two at a time
    assert [line.split()[1] for line in lines[::3]] == ["created", "created", "removed"]
    assert [event["kind"] for event in events] == ["created", "created", "removed"]
    assert [event["record"]["id"] for event in events] == ["fails123", "works123", "00000000"]
    assert [str(mount.point / event["path"]) for event in events] == [
        line.split()[2] for line in lines[::3]
    ]
    assert str(path) == lines[6].split()[2]


def _watchers(mount: Mount) -> int:
    """Connections to the control socket (its server's end is listed with the path)."""
    table = Path("/proc/net/unix").read_text().splitlines()
    status = json.loads(os.getxattr(mount.point, "user.phonofs.status"))
    states = [line.split()[5] for line in table if line.endswith(status["control"])]
    return sum(state == "03" for state in states)  # SS_CONNECTED of linux/net.h


def test_a_catalogue_of_another_version_is_set_aside_and_built_anew(tmp_path):
    """Said in the log; the same tree again."""
    with standing(flat(1000, 2000)) as stand_in:
        with mounted(stand_in.url, tmp_path) as mount:
            first = files(mount.point)
            assert mount.stop() == 0
        file = sqlite3.connect(mount.cache / "catalogue.sqlite", isolation_level=None)
        file.execute("PRAGMA user_version = 99")
        file.close()
        with mounted(stand_in.url, tmp_path) as mount:
            assert files(mount.point) == first
            until(lambda: "has schema 99" in mount.log_text(), 5)
            assert list(mount.cache.glob("catalogue.sqlite.damaged-*"))


def test_a_damaged_catalogue_is_set_aside_and_built_anew(tmp_path):
    """Said in the log; the same tree again."""
    with standing(flat(1000, 2000)) as stand_in:
        with mounted(stand_in.url, tmp_path) as mount:
            first = files(mount.point)
            assert mount.stop() == 0
        path = mount.cache / "catalogue.sqlite"
        path.write_bytes(os.urandom(len(path.read_bytes())))
        with mounted(stand_in.url, tmp_path) as mount:
            assert files(mount.point) == first
            until(lambda: "is damaged" in mount.log_text(), 5)
            assert list(mount.cache.glob("catalogue.sqlite.damaged-*"))


def test_kill_9_leaves_the_known_tree(tmp_path):
    """Killed in the middle of listing and following: the next mount shows all of it."""
    account = flat(*[100] * 300)
    with standing(account) as stand_in:
        for _ in range(3):
            with mounted(stand_in.url, tmp_path, poll_interval="0.05s", page_size="10") as mount:
                os.listdir(mount.point)
                looking = subprocess.Popen(["ls", "-R", str(mount.point)], stdout=-3, stderr=-3)
                before = searches(stand_in)
                until(lambda before=before: searches(stand_in) > before + 3)
                mount.stop(signal.SIGKILL)
                looking.wait(60)
        with mounted(stand_in.url, tmp_path) as mount:
            assert len(files(mount.point)) == 300
            assert "damaged" not in mount.log_text()


def test_types_and_dates_narrow_tree_and_questions(tmp_path):
    """What is not shown is not asked for either; changing them needs no new catalogue."""
    account = Account(
        [
            flat_item("old", 10, NOON_MS - 40 * 24 * HOUR_MS),
            flat_item("voice", 10, NOON_MS, type="voicemail"),
            flat_item("call", 10, NOON_MS),
            flat_item("cold", 10, NOON_MS, state="ARCHIVED"),
        ]
    )
    with standing(account) as stand_in:
        options = {"types": "callrecording", "since": "2026-02-01", "archived": "hide"}
        with mounted(stand_in.url, tmp_path, **options) as mount:
            assert [path.stem[-4:] for path in files(mount.point)] == ["call"]
            assert os.listdir(mount.point / "2026") == ["2026-03"]
            listing = [
                one.query["filter"]
                for one in stand_in.service.counters.seen
                if one.kind == "search" and "createdTime" in one.query.get("filter", "")
            ]
            assert listing
            assert all("type==callrecording" in each for each in listing)
            assert all("ARCHIVED" not in each for each in listing)
            assert mount.stop() == 0
        with mounted(stand_in.url, tmp_path) as mount:
            assert len(files(mount.point)) == 4


@pytest.mark.parametrize("over_limit", ["refuse", "lower"])
@pytest.mark.parametrize("total", ["pages", "records", "absent"])
@pytest.mark.parametrize("page", ["object", "array"])
def test_a_page_size_the_service_does_not_take(tmp_path, over_limit, total, page):
    """A larger limit is refused with 400, or lowered silently: the day is whole all the same."""
    options = Options(page_limit=40, over_limit=over_limit, total=total, page=page)
    with (
        standing(flat(*[100] * 250), options) as stand_in,
        mounted(stand_in.url, tmp_path, page_size="200") as mount,
    ):
        assert len(files(mount.point)) == 250
