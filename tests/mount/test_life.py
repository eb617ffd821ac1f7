"""A mount from its beginning to its end: readiness, exit statuses, crash, outage, regions."""

import errno
import os
import signal

import pytest

from phonofs.fakeservice.account import Account, change, flat_item
from phonofs.fakeservice.options import Options
from tests.support.accounts import NOON_MS, content_of, flat
from tests.support.mounts import (
    at_last,
    files,
    is_followed,
    mounted,
    phonofs,
    standing,
    status_of,
    unmounted,
    until,
)
from tests.support.timing import Stopwatch

pytestmark = pytest.mark.fuse


@pytest.fixture
def apart(tmp_path):
    """A mount that is not made yet, over a running stand-in."""
    with standing(flat(1000)) as stand_in, unmounted(stand_in, tmp_path) as mount:
        yield mount


def test_mount_returns_when_the_tree_can_be_read(apart):
    """Exit status 0 only then; umount takes it down and leaves no process."""
    done = phonofs(apart, "mount", str(apart.point))
    assert (done.returncode, done.stderr) == (0, "")
    assert len(files(apart.point)) == 1
    pid = int(
        phonofs(apart, "status", "--json", str(apart.point)).stdout.split('"pid":')[1].split(",")[0]
    )
    done = phonofs(apart, "umount", str(apart.point))
    assert (done.returncode, done.stderr) == (0, "")
    assert not os.path.ismount(apart.point)
    until(lambda: not os.path.exists(f"/proc/{pid}"))


@pytest.mark.parametrize(
    ("environment", "status", "words"),
    [
        ({"PHONOFS_SECRET": "wrong"}, 2, ["secret"]),
        ({"PHONOFS_API_URL": "http://127.0.0.1:9"}, 3, ["127.0.0.1"]),
        ({"PHONOFS_CACHE_SIZE": "many"}, 1, ["PHONOFS_CACHE_SIZE"]),
        ({"PHONOFS_CACHE_SIZ": "1G"}, 1, ["PHONOFS_CACHE_SIZ", "cache_size"]),
    ],
)
@pytest.mark.parametrize("foreground", [[], ["-f"]])
def test_what_goes_wrong_is_one_sentence_and_a_status(
    apart, environment, status, words, foreground
):
    """Credentials 2, service 3, configuration 1; never a traceback, nothing stays mounted."""
    done = phonofs(apart, "mount", *foreground, str(apart.point), **environment)
    assert done.returncode == status, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert all(word.lower() in done.stderr.lower() for word in words), done.stderr
    assert not os.path.ismount(apart.point)


def test_mount_points_that_cannot_be(apart, tmp_path):
    """Missing, a file, not empty, already mounted: 32, with the reason and the remedy."""
    (tmp_path / "file").write_text("x")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/x").write_text("x")
    for name, word in [("none", "mkdir"), ("file", "not a folder"), ("full", "not empty")]:
        done = phonofs(apart, "mount", str(tmp_path / name))
        assert (done.returncode, word in done.stderr) == (32, True), done.stderr
    apart.start()
    done = phonofs(apart, "mount", str(apart.point), PHONOFS_CACHE_DIR=str(tmp_path / "other"))
    assert (done.returncode, "already" in done.stderr) == (32, True), done.stderr


def test_a_second_mount_of_one_cache_says_so(apart, tmp_path):
    """One mount at a time uses a cache folder."""
    apart.start()
    (tmp_path / "second").mkdir()
    done = phonofs(apart, "mount", str(tmp_path / "second"))
    assert done.returncode == 1
    assert "cache" in done.stderr


@pytest.mark.promise("clean-stop")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_unmounts_cleanly(apart, number):
    """Exit status 0, not mounted, within 5 s; no socket or folder of it stays behind."""
    apart.start()
    assert list((apart.cache.parent / "run/phonofs").iterdir())
    watch = Stopwatch()
    assert apart.stop(number) == 0
    assert watch.within(5)
    assert not os.path.ismount(apart.point)
    assert not (apart.cache.parent / "run/phonofs").exists()
    assert "Traceback" not in apart.log_text()


@pytest.mark.promise("crash-is-not-deletion")
def test_after_a_crash_the_mount_point_is_broken_not_empty(apart):
    """An rsync must not take a crash for a deletion; `umount` mends it."""
    apart.start()
    apart.stop(signal.SIGKILL)
    with pytest.raises(OSError, match="not connected") as caught:
        os.listdir(apart.point)
    assert caught.value.errno == errno.ENOTCONN
    done = phonofs(apart, "mount", str(apart.point))
    assert (done.returncode, "umount" in done.stderr) == (32, True)
    assert phonofs(apart, "umount", str(apart.point)).returncode == 0
    apart.start()
    assert len(files(apart.point)) == 1


@pytest.mark.promise("known-stays-without-the-service")
def test_the_catalogue_and_the_cache_go_on_without_the_service(apart):
    """Offline from the start: mount succeeds and says so; known and cached things are there."""
    apart.start()
    (path,) = files(apart.point)
    whole = path.read_bytes()
    assert apart.stop() == 0
    apart.stand_in.stop()
    apart.environment["PHONOFS_READ_DEADLINE"] = "1s"
    done = phonofs(apart, "mount", str(apart.point))
    assert done.returncode == 0
    assert "offline" in done.stderr
    assert path.read_bytes() == whole
    phonofs(apart, "umount", str(apart.point))


@pytest.mark.promise("known-stays-without-the-service")
def test_an_outage_is_survived(tmp_path):
    """While the service is away what is not cached is EIO in time; afterwards all is well."""
    with (
        standing(flat(1000, 2000)) as stand_in,
        mounted(stand_in.url, tmp_path, read_deadline="2s") as mount,
    ):
        second, first = files(mount.point)  # reading ahead goes forward only
        assert len(at_last(first.read_bytes)) == 2000
        stand_in.stop()
        assert len(first.read_bytes()) == 2000
        watch = Stopwatch()
        with pytest.raises(OSError, match="Input/output") as caught:
            second.read_bytes()
        assert caught.value.errno == errno.EIO
        assert watch.within(4)
        stand_in.start()
        until(lambda: _reads(second))
        assert second.read_bytes() == content_of(stand_in.service, "00000000")


def _reads(path) -> bool:
    try:
        return bool(path.read_bytes())
    except OSError:
        return False


def test_each_region_is_a_folder_when_there_is_more_than_one(tmp_path):
    """Two regions, two folders; they are asked for at each mount."""
    account = Account(
        [
            flat_item("a", 10, NOON_MS),
            flat_item("b", 10, NOON_MS, region="uk"),
        ]
    )
    with standing(account) as stand_in:
        for _ in range(2):
            with mounted(stand_in.url, tmp_path) as mount:
                assert sorted(os.listdir(mount.point)) == ["uk", "us-east"]
                assert [p.relative_to(mount.point).parts[1] for p in files(mount.point)] == [
                    "2026"
                ] * 2
                mount.stop()
        assert stand_in.service.counters.requests["regions"] == 2


@pytest.mark.promise("tree-is-the-account")
def test_a_region_that_comes_later_is_shown_at_the_next_mount(tmp_path):
    """Its years would move the others below a folder: till then status and the log say it."""
    account = Account([flat_item("a", 10, NOON_MS)])
    with standing(account) as stand_in:
        with mounted(stand_in.url, tmp_path) as mount:
            assert os.listdir(mount.point) == ["2026"]
            account.put(flat_item("b", 10, NOON_MS, region="ca"))
            mount.process.send_signal(signal.SIGHUP)
            until(lambda: status_of(mount)["catalogue"]["regions_to_come"] == ["ca"])
            assert "region ca" in status_of(mount)["condition"]
            until(lambda: "region ca" in mount.log_text())
            assert os.listdir(mount.point) == ["2026"]
            mount.stop()
        stand_in.stop()
        with mounted(stand_in.url, tmp_path) as mount:  # what was found out is not forgotten
            assert sorted(os.listdir(mount.point)) == ["ca", "us-east"]
            mount.stop()
        stand_in.start()
        with mounted(stand_in.url, tmp_path) as mount:
            assert sorted(os.listdir(mount.point)) == ["ca", "us-east"]
            assert len(files(mount.point)) == 2
            mount.stop()


@pytest.mark.promise("tree-is-the-account")
def test_a_third_region_is_shown_while_mounted(tmp_path):
    """Where regions are folders already, nothing moves: it is there, listed and followed."""
    account = Account([flat_item("a", 9, NOON_MS), flat_item("b", 9, NOON_MS, region="uk")])
    with (
        standing(account) as stand_in,
        mounted(stand_in.url, tmp_path, poll_interval="0.2s") as mount,
    ):
        assert len(files(mount.point)) == 2
        account.put(flat_item("c", 9, NOON_MS, region="ca"))
        mount.process.send_signal(signal.SIGHUP)
        until(lambda: sorted(os.listdir(mount.point)) == ["ca", "uk", "us-east"])
        assert len(files(mount.point / "ca")) == 1
        now_ms = stand_in.service.now_ms()
        account.put(flat_item("d", 9, now_ms, updated_ms=now_ms, region="ca"))
        until(lambda: len(files(mount.point / "ca")) == 2)


@pytest.mark.promise("tree-is-the-account")
def test_configured_regions_are_not_taken_for_the_accounts(tmp_path):
    """Once `regions` is not set any more, the service's own are shown; also while it is away."""
    account = Account([flat_item("a", 9, NOON_MS), flat_item("b", 9, NOON_MS, region="uk")])
    with standing(account) as stand_in:
        for regions, shown in [("uk", ["2026"]), ("", ["uk", "us-east"]), ("uk", ["2026"])]:
            with mounted(stand_in.url, tmp_path, regions=regions) as mount:
                assert sorted(os.listdir(mount.point)) == shown
                mount.stop()
        stand_in.stop()
        with mounted(stand_in.url, tmp_path) as mount:
            assert sorted(os.listdir(mount.point)) == ["uk", "us-east"]
            mount.stop()


def test_regions_that_cannot_be_asked_for_keep_nobody_waiting(tmp_path):
    """The known ones are shown, whatever is answered to the question."""
    account = Account([flat_item("a", 9, NOON_MS), flat_item("b", 9, NOON_MS, region="uk")])
    with standing(account) as stand_in:
        with mounted(stand_in.url, tmp_path) as mount:
            mount.stop()
        for fault in ({"fail": "status", "status": 503}, {"fail": "status", "status": 403}):
            stand_in.faults({"kind": "regions", **fault})
            with mounted(stand_in.url, tmp_path) as mount:
                assert sorted(os.listdir(mount.point)) == ["uk", "us-east"]
                mount.stop()


def test_configured_regions_are_not_asked_for(tmp_path):
    """With `regions` set nothing is asked, and only those are shown."""
    account = Account([flat_item("a", 10, NOON_MS), flat_item("b", 10, NOON_MS, region="uk")])
    with (
        standing(account) as stand_in,
        mounted(stand_in.url, tmp_path, regions="uk") as mount,
    ):
        assert os.listdir(mount.point) == ["2026"]
        assert len(files(mount.point)) == 1
        assert stand_in.service.counters.requests["regions"] == 0


@pytest.mark.promise("changes-within-a-poll")
def test_changes_appear_without_a_remount(tmp_path):
    """New, changed, archived and revoked objects show within a poll, and ls sees it."""
    account = flat(1000, 2000)
    with (
        standing(account) as stand_in,
        mounted(stand_in.url, tmp_path, poll_interval="0.2s") as mount,
    ):
        kept, going = files(mount.point)
        assert len(going.read_bytes()) == 2000
        day = kept.parent
        before = day.stat().st_mtime_ns
        now = stand_in.service.now_ms()
        account.put(flat_item("new", 30, NOON_MS + 3_600_000, updated_ms=now))
        until(lambda: len(os.listdir(day)) == 3)
        until(lambda: day.stat().st_mtime_ns != before)  # the kernel is told a moment later
        change(account, "us-east", "00000001", stand_in.service.now_ms() + 1000, state="REVOKED")
        until(lambda: not going.exists())
        held = [p for p in (tmp_path / "cache/content").rglob("??/*") if p.stat().st_size == 2000]
        until(lambda: not any(p.exists() for p in held))
        change(account, "us-east", "00000000", stand_in.service.now_ms() + 2000, state="ARCHIVED")
        until(lambda: os.getxattr(kept, "user.phonofs.state") == b"ARCHIVED")
        with pytest.raises(OSError, match="No data available"):
            kept.read_bytes()


def test_ls_of_a_year_or_month_lists_no_day(tmp_path):
    """Opening a day lists it; months and years are small questions, none of them twice."""
    account = flat(*[100] * 30)
    with (
        standing(account) as stand_in,
        mounted(stand_in.url, tmp_path, poll_interval="1h") as mount,
    ):
        until(lambda: is_followed(status_of(mount)))  # else some is asked again after 5 s
        os.listdir(mount.point)
        (year,) = mount.point.iterdir()
        (month,) = year.iterdir()
        (day,) = month.iterdir()
        counters = stand_in.service.counters
        assert counters.requests["search"] <= 12 + 31 + 4
        counters.clear()
        os.listdir(month)
        assert counters.requests["search"] == 0
        assert len(os.listdir(day)) == 30
        asked = counters.requests["search"]
        assert asked >= 1
        for path in files(mount.point):
            path.stat()
        assert counters.requests["search"] == asked


@pytest.mark.parametrize("latency_s", [0, 0.02, 0.05])
def test_the_first_ls_asks_little_also_while_the_follower_begins(tmp_path, latency_s):
    """The root's ends, its years and the follower's first poll: a handful of searches."""
    account = flat(100, 100)
    with (
        standing(account, Options(latency_s=latency_s)) as stand_in,
        mounted(stand_in.url, tmp_path) as mount,
    ):
        assert os.listdir(mount.point) == ["2026"]
        assert stand_in.service.counters.requests["search"] <= 9


def test_a_remount_shows_the_known_tree_without_a_question(tmp_path):
    """What was listed is there at once; only the follower asks, for what changed meanwhile."""
    account = flat(*[100] * 20)
    with standing(account) as stand_in:
        with mounted(stand_in.url, tmp_path) as mount:
            known = files(mount.point)
            counters = stand_in.service.counters
            until(lambda: is_followed(status_of(mount)))
            mount.stop()
        counters.clear()
        now_ms = stand_in.service.now_ms()
        account.put(flat_item("late", 30, NOON_MS + 3_600_000, updated_ms=now_ms))
        with mounted(stand_in.url, tmp_path) as mount:
            assert set(known) <= set(files(mount.point))
            until(lambda: len(files(mount.point)) == 21)
            sorts = {seen.query["sortField"] for seen in counters.seen if seen.kind == "search"}
            assert sorts == {"updatedTime"}
