"""``phonofs export``, over a mount and with a session of its own."""

import csv
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from phonofs.cli.mount_contents import MountContents
from phonofs.demo import media
from phonofs.export.contents import NotCopied
from phonofs.fakeservice.account import Account, Item, change, flat_item
from tests.support.accounts import NOON_MS, content_of, flat
from tests.support.browser import CHROMIUM, browser
from tests.support.calls import DAY_MS, call, calls, transcript_json
from tests.support.calls import text as text_content
from tests.support.counted_service import Service
from tests.support.mounts import Mount, files, mounted, phonofs, standing, unmounted, until

pytestmark = pytest.mark.fuse

NOT_MOUNTED = "test-export"  # of a profile that is mounted, that mount is asked
HOSTILE = "<script>fetch('http://example.com/')</script>"


def exported(mount: Mount, dest: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Export from a mount."""
    return phonofs(mount, "export", str(dest), "--mount", str(mount.point), *words)


def tree(path: Path) -> dict[str, bytes]:
    """Return the exported files of a folder, without its lists."""
    return {
        str(each.relative_to(path)): each.read_bytes()
        for each in path.rglob("*")
        if each.is_file() and each.relative_to(path).parts[0].isdecimal()
    }


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def is_whole(service: Service, dest: Path) -> bool:
    """Return whether all objects of an account are in an export, and nothing is said missing."""
    listed = {row["id"]: row["path"] for row in rows(dest / "manifest.csv")}
    items = [item for item in service.account if item.state == "AVAILABLE"]
    same = all((dest / listed[item.id]).read_bytes() == content_of(service, item.id, item.region)
               for item in items)  # fmt: skip
    return same and len(listed) == len(items) and not rows(dest / "missing.csv")


def sums_are_right(dest: Path) -> bool:
    done = subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=dest, check=False)
    return done.returncode == 0


@pytest.mark.promise("export-complete-or-said")
def test_an_export_is_the_mount_with_its_texts_beside(tmp_path):
    dest = tmp_path / "out"
    with standing(calls()) as stand_in, mounted(stand_in.url, tmp_path) as mount:
        done = exported(mount, dest)
        assert done.returncode == 0, done.stderr
        shown = {}
        for day in ("2026-03-02", "2026-03-03"):
            for each in (mount.point / ".views/by-day" / day).iterdir():
                if each.name.endswith((".srt", ".txt")) and "agentnotes" not in each.name:
                    shown[f"2026/2026-03/{day}/{each.name}"] = each.read_bytes()
        objects = {str(each.relative_to(mount.point)): each.read_bytes()
                   for each in files(mount.point)}  # fmt: skip
        assert tree(dest) == shown | objects
        assert len(shown) == 48
        assert is_whole(stand_in.service, dest)
        assert sums_are_right(dest)


def test_a_second_run_of_an_unchanged_month_asks_for_no_content(tmp_path):
    dest = tmp_path / "out"
    with standing(calls()) as stand_in, mounted(stand_in.url, tmp_path, cache_size="0") as mount:
        assert exported(mount, dest).returncode == 0
        stand_in.service.counters.clear()
        again = exported(mount, dest, "--update")
        assert again.returncode == 0
        assert "108 kept" in again.stdout
        asked = stand_in.service.counters.requests
        assert asked["content"] + asked["presign"] + asked["store"] == 0


def test_the_options_of_find_and_paths_choose(tmp_path):
    with standing(calls()) as stand_in, mounted(stand_in.url, tmp_path) as mount:
        day = str(mount.point / "2026/2026-03/2026-03-03")
        words = ("--agent", "Ann*", "--type", "callcenterrecording")
        assert exported(mount, tmp_path / "out", day, *words).returncode == 0
        listed = rows(tmp_path / "out/manifest.csv")
        assert {(row["agent"], row["type"], row["path"][13:23]) for row in listed} == {
            ("Ann Lee", "callcenterrecording", "2026-03-03")
        }
        assert len(listed) == 3
        names = sorted(Path(path).suffix for path in tree(tmp_path / "out"))
        assert names == [".mp3"] * 3 + [".srt"] * 3 + [".txt"] * 3
        assert exported(mount, tmp_path / "none", day, "--no-texts", *words).returncode == 0
        assert len(tree(tmp_path / "none")) == 3
        other = exported(mount, tmp_path / "out", "--agent", "Bob*")
        assert other.returncode == 1
        assert "is an export of something else" in other.stderr
        view = str(mount.point / ".views/by-agent/2026-03/Bob-Ray")
        assert exported(mount, tmp_path / "view", view).returncode == 0
        assert len(rows(tmp_path / "view/manifest.csv")) == 30


def test_without_a_mount_the_command_asks_the_service_itself(tmp_path):
    dest = tmp_path / "out"
    with standing(calls()) as stand_in, unmounted(stand_in, tmp_path) as mount:
        done = phonofs(mount, "export", str(dest), "2026/2026-03", "--profile", NOT_MOUNTED)
        assert done.returncode == 0, done.stderr
        assert is_whole(stand_in.service, dest)
        assert len(tree(dest)) == 108
        stand_in.service.counters.clear()
        again = phonofs(mount, "export", str(dest), "--update")
        assert again.returncode == 0, again.stderr
        assert stand_in.service.counters.bytes == 0


def test_with_several_regions_each_has_its_folder_and_its_texts(tmp_path):
    items = [*calls(days=1, each=1), *(replace(each, region="uk") for each in calls(days=1))]
    with standing(Account(items)) as stand_in:
        with mounted(stand_in.url, tmp_path) as mount:
            assert exported(mount, tmp_path / "mount").returncode == 0
            day = mount.point / "uk/.views/by-day/2026-03-02"
            names = {each.name for each in day.glob("*.srt")}
        words = ("export", str(tmp_path / "session"), "--profile", NOT_MOUNTED)
        done = phonofs(mount, *words)
        assert done.returncode == 0, done.stderr
        for dest in (tmp_path / "mount", tmp_path / "session"):
            found = (dest / "uk/2026/2026-03/2026-03-02").glob("*.srt")
            assert {each.name for each in found} == names
            assert len(names) == 6
            assert len(list((dest / "us-east").rglob("*.srt"))) == 2
            assert sums_are_right(dest)
            assert len(rows(dest / "manifest.csv")) == len(items)


def test_a_session_sees_what_changed_since_the_last_one(tmp_path):
    """New, replaced and withdrawn objects of days that are known, and a late transcript."""
    dest = tmp_path / "out"
    account = calls(days=1)
    with standing(account) as stand_in, unmounted(stand_in, tmp_path) as mount:
        words = ("export", str(dest), "--profile", NOT_MOUNTED)
        assert phonofs(mount, *words).returncode == 0
        now = time.time_ns() // 1_000_000
        assert change(account, "us-east", "00000000-0", now, state="REVOKED")
        said = text_content(transcript_json("other words"))
        assert change(account, "us-east", "00000001-1", now, content=said, checksum=None)
        account.put(flat_item("newcomer", 900, NOON_MS + 1000, updated_ms=now))
        late = phonofs(mount, *words, "--update", "--prune")
        assert late.returncode == 0, late.stderr
        assert is_whole(stand_in.service, dest)
        assert not any("00000000.mp3" in path for path in tree(dest))
        assert any(b"other words" in content for path, content in tree(dest).items()
                   if path.endswith("00000001.txt"))  # fmt: skip


def test_an_export_into_a_mount_is_refused(tmp_path):
    with standing(flat(100)) as stand_in, mounted(stand_in.url, tmp_path) as mount:
        for dest in (mount.point, mount.point / "2026", mount.point / ".views/out"):
            done = exported(mount, dest)
            assert done.returncode == 1
            assert "which is read-only: choose another folder" in done.stderr
        (tmp_path / "link").symlink_to(mount.point)
        assert exported(mount, tmp_path / "link/out").returncode == 1


def test_an_export_of_another_profile_is_refused(tmp_path):
    with standing(flat(100)) as stand_in, unmounted(stand_in, tmp_path) as mount:
        words = ("export", str(tmp_path / "out"), "--profile")
        assert phonofs(mount, *words, NOT_MOUNTED).returncode == 0
        done = phonofs(mount, *words, f"{NOT_MOUNTED}-2", "--update", "--prune")
        assert done.returncode == 1
        assert f"is an export of profile {NOT_MOUNTED}" in done.stderr
        assert len(tree(tmp_path / "out")) == 1


def test_archived_and_refused_objects_are_missing_and_come_later(tmp_path):
    account = flat(1000, 2000, 3000, 4000)
    dest = tmp_path / "out"
    with (
        standing(account) as stand_in,
        mounted(stand_in.url, tmp_path, poll_interval="1s") as mount,
    ):
        now = time.time_ns() // 1_000_000
        change(account, "us-east", "00000001", now, state="ARCHIVED")
        stand_in.faults({"kind": ["content", "presign"], "id": "00000002", "fail": "status",
                         "status": 403})  # fmt: skip
        done = exported(mount, dest)
        assert done.returncode == 4
        assert "export: 2 of 4 objects" in done.stdout
        assert "see missing.csv" in done.stdout
        reasons = {row["id"]: row["reason"] for row in rows(dest / "missing.csv")}
        assert reasons == {"00000001": "archived", "00000002": "refused"}
        stand_in.faults()
        change(account, "us-east", "00000001", now + 1000, state="AVAILABLE")
        path = next(row["path"] for row in rows(dest / "missing.csv") if row["id"] == "00000001")
        until(lambda: os.getxattr(mount.point / path, "user.phonofs.state") == b"AVAILABLE")
        assert exported(mount, dest).returncode == 0
        assert is_whole(stand_in.service, dest)


def test_withdrawn_objects_are_marked_and_then_removed(tmp_path):
    account = flat(1000, 2000)
    dest = tmp_path / "out"
    with (
        standing(account) as stand_in,
        mounted(stand_in.url, tmp_path, poll_interval="1s") as mount,
    ):
        assert exported(mount, dest).returncode == 0
        gone = rows(dest / "manifest.csv")[0]
        change(account, "us-east", gone["id"], time.time_ns() // 1_000_000, state="REVOKED")
        until(lambda: not (mount.point / gone["path"]).exists())
        marked = exported(mount, dest, "--update")
        assert marked.returncode == 0
        assert "1 withdrawn" in marked.stdout
        assert (dest / gone["path"]).exists()
        assert rows(dest / "manifest.csv")[0]["withdrawn"]
        pruned = exported(mount, dest, "--update", "--prune")
        assert "1 pruned" in pruned.stdout
        assert not (dest / gone["path"]).exists()
        assert len(tree(dest)) == 1
        assert sums_are_right(dest)


def test_an_object_that_is_withdrawn_while_it_is_copied_costs_that_object_only(tmp_path):
    account = flat(1000, 2000)
    with (
        standing(account) as stand_in,
        mounted(stand_in.url, tmp_path, poll_interval="1s") as mount,
    ):
        gone = files(mount.point)[0]
        id = os.getxattr(gone, "user.phonofs.id").decode()
        source = MountContents(str(mount.point), "").open(str(gone.relative_to(mount.point)))
        try:
            assert source.size in (1000, 2000)
            change(account, "us-east", id, time.time_ns() // 1_000_000, state="REVOKED")
            until(lambda: not gone.exists())
            with pytest.raises(NotCopied, match="Stale file handle"):
                _ = source.size
        finally:
            source.close()


def with_faults(count: int, tmp_path: Path) -> None:
    """Export with each twentieth request failing, and each twentieth object for good."""
    days = 20
    account = Account(
        flat_item(f"{n:08d}", 500 + n % 4000, NOON_MS + n % days * DAY_MS + n * 100)
        for n in range(count)
    )
    random.seed(17)
    lost = {f"{n:08d}" for n in random.sample(range(count), count // 20)}
    refused = [
        {"kind": ["content", "presign"], "id": id, "fail": "status", "status": 404}
        for id in sorted(lost)[:30]
    ]
    passing = [
        {"kind": ["content", "store"], "probability": 0.02, "fail": "status", "status": 503},
        {"kind": ["content", "store"], "probability": 0.02, "fail": "cut", "after": 100},
        {"kind": ["content", "store"], "probability": 0.01, "fail": "flip", "at": 7},
        {"kind": "search", "probability": 0.05, "fail": "status", "status": 503},
    ]
    for id in sorted(lost)[30:]:
        change(account, "us-east", id, NOON_MS + 30 * DAY_MS, checksum="0" * 32)
    dest = tmp_path / "out"
    with standing(account) as stand_in, mounted(stand_in.url, tmp_path) as mount:
        stand_in.faults(*refused, *passing)
        words = [sys.executable, "-m", "phonofs.cli", "export", str(dest), str(mount.point)]
        done = subprocess.run(words, env=mount.environment, capture_output=True, check=False)
        missing = {row["id"]: row for row in rows(dest / "missing.csv")}
        listed = {row["id"]: row for row in rows(dest / "manifest.csv")}
        assert done.returncode == 4, done.stderr
        assert missing.keys() | listed.keys() == {item.id for item in account}
        assert missing.keys().isdisjoint(listed)
        assert lost <= missing.keys()
        assert len(missing) <= len(lost) + count // 100
        assert all(row["reason"] and row["detail"] for row in missing.values())
        for id, row in listed.items():
            assert (dest / row["path"]).read_bytes() == content_of(stand_in.service, id)
            assert row["check"] == "md5"
        assert len(tree(dest)) == len(listed)
        assert sums_are_right(dest)


@pytest.mark.promise("export-complete-or-said")
def test_with_faults_all_is_there_and_checked_or_named(tmp_path):
    with_faults(400, tmp_path)


@pytest.mark.slow
def test_with_faults_ten_thousand_objects_are_there_or_named(tmp_path):
    with_faults(10_000, tmp_path)


@pytest.mark.promise("export-complete-or-said")
def test_an_export_that_is_killed_again_and_again_ends_whole(tmp_path):
    account = flat(*(20_000 + n for n in range(300)))
    dest = tmp_path / "out"
    random.seed(9)
    with standing(account) as stand_in, mounted(stand_in.url, tmp_path) as mount:
        words = [sys.executable, "-m", "phonofs.cli", "export", str(dest), str(mount.point)]
        stand_in.faults({"kind": "content", "fail": "delay", "seconds": 0.02})
        for _ in range(8):
            process = subprocess.Popen(
                words, env=mount.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            until(lambda process=process: (dest / "export.json").exists() or process.poll() == 0)
            time.sleep(random.uniform(0, 0.6))  # a kill at any moment
            process.kill()
            process.wait()
        done = subprocess.run(words, env=mount.environment, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        assert is_whole(stand_in.service, dest)
        assert sums_are_right(dest)
        assert not (dest / ".phonofs-export").exists()


@pytest.mark.parametrize("has_mount", [True, False])
def test_ctrl_c_keeps_what_was_copied(tmp_path, has_mount):
    account = flat(*(20_000 for _ in range(200)))
    dest = tmp_path / "out"
    with standing(account) as stand_in, ExitStack() as stack:
        if has_mount:
            mount = stack.enter_context(mounted(stand_in.url, tmp_path))
            of = ["--mount", str(mount.point)]
        else:
            mount = stack.enter_context(unmounted(stand_in, tmp_path))
            of = ["--profile", NOT_MOUNTED]
        stand_in.faults({"kind": "content", "skip": 60, "fail": "stall"})
        words = [sys.executable, "-m", "phonofs.cli", "export", str(dest), *of]
        process = subprocess.Popen(
            words, env=mount.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        staging = dest / ".phonofs-export/new"
        until(lambda: staging.is_dir() and len(list(staging.iterdir())) > 30)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 130
        assert "the next run goes on from here" in said
        kept = len(tree(dest))
        assert kept > 10
        stand_in.faults()
        done = phonofs(mount, "export", str(dest), *of)
        assert done.returncode == 0, done.stderr
        assert f"{kept} kept" in done.stdout


def test_a_full_disk_is_said_and_the_next_run_goes_on(tmp_path):
    """A file system of 3 MiB and 4 MB of calls whose sizes are not told."""
    items = (flat_item(f"{n:08d}", 40_000, NOON_MS + n * 1000) for n in range(100))
    account = Account(replace(item, size=0) for item in items)
    dest = tmp_path / "small"
    dest.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(dest)], check=True)
    try:
        with standing(account) as stand_in, mounted(stand_in.url, tmp_path) as mount:
            done = exported(mount, dest)
            assert done.returncode == 1
            assert "cannot be written to: No space left on device" in done.stderr
            subprocess.run(["mount", "-o", "remount,size=20m", str(dest)], check=True)
            done = exported(mount, dest)
            assert done.returncode == 0, done.stderr
            assert is_whole(stand_in.service, dest)
    finally:
        subprocess.run(["umount", str(dest)], check=True)


def page_account() -> Account:
    """Make calls that a browser can play, one of them of a hostile caller."""
    items: list[Item] = []
    for number, agent in enumerate(("Alex Wilber", "Diego Siciliani", "Grady Archie")):
        made = list(call(number, NOON_MS + number * 700_000, agent, words="Good morning, how"))
        made[0] = replace(made[0], content=media.mp3("call", agent, 36_000, stereo=False))
        items += made
    hostile = dict(items[-5].tags) | {"callerName": HOSTILE, "agentName": HOSTILE}
    items[-5] = replace(items[-5], tags=hostile)
    return Account(items)


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
def test_the_page_plays_in_a_browser_and_asks_for_nothing_outside(tmp_path):
    dest = tmp_path / "out"
    with standing(page_account()) as stand_in, mounted(stand_in.url, tmp_path) as mount:
        assert exported(mount, dest).returncode == 0
    with browser(tmp_path / "browser") as page:
        page.open((dest / "index.html").as_uri())
        assert page.evaluate("document.querySelector('audio').play().then(() => 'plays')")
        assert page.evaluate(
            "Promise.all([...document.querySelectorAll('audio')].map(each => each.duration || "
            "new Promise(done => each.onloadedmetadata = () => done(each.duration))))"
        ) == pytest.approx([36.0] * 3, abs=0.1)
        assert page.evaluate("document.scripts.length") == 0
        assert HOSTILE in page.evaluate("document.body.innerText")
        page.evaluate("document.querySelector('details').open = true")
        page.screenshot(tmp_path / "page.png")
        folder = dest.as_uri()
        assert len(page.requests) >= 4
        outside = [url for url in page.requests if not url.startswith((folder, "data:"))]
        assert outside == []
        assert page.problems == []
