"""The commands against a real mount, as a person types them."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from phonofs.fakeservice.account import Account, flat_item
from tests.support.accounts import flat
from tests.support.mounts import Mount, files, mounted, standing, until

pytestmark = pytest.mark.fuse

NOON_MS = int(datetime(2026, 3, 1, 12, tzinfo=UTC).timestamp() * 1000)
SIZE = 300_000


def phonofs(*arguments: object, environment: dict[str, str] | None = None) -> tuple[int, str, str]:
    """Status, output and errors of one command."""
    outcome = subprocess.run(
        [sys.executable, "-m", "phonofs.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=environment,
        stdin=subprocess.DEVNULL,
    )
    return outcome.returncode, outcome.stdout, outcome.stderr


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    items = [flat_item(f"object-{n}", SIZE, NOON_MS + n * 1000) for n in range(12)]
    items += [flat_item("cold", SIZE, NOON_MS - 1000, state="ARCHIVED")]
    with (
        standing(Account(items, (items[0].region,))) as stand_in,
        mounted(stand_in.url, tmp_path) as made,
    ):
        yield made


def test_status_is_json_for_programs_and_a_page_for_people(mount: Mount) -> None:
    status, out, _ = phonofs("status", "--json", mount.point)
    assert (status, json.loads(out)["mountpoint"]) == (0, str(mount.point))
    status, out, _ = phonofs("status", "--all", mount.point)
    assert (status, "catalogue" in out) == (0, True)
    status, out, _ = phonofs("status", mount.point)
    assert (status, "hit rate" in out) == (0, True)
    assert len(out.splitlines()) <= 13


def test_fetch_brings_a_folder_into_the_cache_and_then_has_nothing_to_do(mount: Mount) -> None:
    status, out, _ = phonofs("fetch", "--dry-run", mount.point)
    assert (status, out.strip()) == (
        0,
        "13 files, 12 to fetch (3.4 MiB), 1 archived (see `phonofs restore`)",
    )
    status, out, err = phonofs("fetch", mount.point)
    assert (status, "12 of 12 fetched" in out) == (0, True), err
    readable = [path for path in files(mount.point) if "cold" not in path.name]
    cached = [int(os.getxattr(path, "user.phonofs.cached")) for path in readable]
    assert cached == [SIZE] * 12
    assert "0 to fetch" in phonofs("fetch", mount.point)[1]


def test_fetch_brings_what_has_a_size_of_0_by_its_record(tmp_path: Path) -> None:
    items = [
        replace(flat_item("unsized", SIZE, NOON_MS), size=0),
        flat_item("empty", 0, NOON_MS + 1000),
    ]
    with (
        standing(Account(items, (items[0].region,))) as stand_in,
        mounted(stand_in.url, tmp_path) as made,
    ):
        status, out, err = phonofs("fetch", made.point)
        assert (status, "1 of 1 fetched" in out) == (0, True), err
        (path,) = made.point.rglob("*unsized*")
        assert int(os.getxattr(path, "user.phonofs.cached")) == path.stat().st_size == SIZE
        assert "0 to fetch" in phonofs("fetch", made.point)[1]


def test_fetch_takes_globs_and_refuses_what_is_elsewhere(mount: Mount, tmp_path: Path) -> None:
    assert "13 files" in phonofs("fetch", "-n", f"{mount.point}/*/*/*/*")[1]
    status, _, err = phonofs("fetch", tmp_path)
    assert (status, err) == (1, f"phonofs: {tmp_path} is not in a phonofs mount\n")
    status, _, err = phonofs("fetch", mount.point / "nothing")
    assert (status, err) == (1, f"phonofs: {mount.point / 'nothing'} does not exist\n")


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [("cache_size", "1M", "do not fit"), ("cache_min_free", "900T", "no room left")],
)
def test_fetch_stops_before_the_disk_is_too_full(tmp_path, option, value, words) -> None:
    """Neither more than the cache holds nor what must stay free; nothing is evicted in vain."""
    items = [flat_item(f"object-{n}", 700_000, NOON_MS + n * 1000) for n in range(4)]
    with (
        standing(Account(items)) as stand_in,
        mounted(stand_in.url, tmp_path, **{option: value}) as mount,
    ):
        status, _, err = phonofs("fetch", "-j", 1, mount.point)
        assert (status, words in err) == (1, True), err
        assert stand_in.service.counters.requests["content"] < 4


def test_restore_asks_for_the_archived_ones_alone(mount: Mount) -> None:
    status, out, err = phonofs("restore", mount.point, environment=mount.environment)
    assert (status, "1 of 1 requested" in out) == (0, True), err


def test_one_file_and_one_day_are_no_plural(mount: Mount) -> None:
    (cold,) = (path for path in files(mount.point) if "cold" in path.name)
    plan = "1 file, 0 to fetch (0 B), 1 archived (see `phonofs restore`)"
    status, out, err = phonofs("fetch", cold)
    assert (status, out.strip()) == (1, plan)
    assert err == "phonofs: nothing was fetched: an archived file must be restored first\n"
    assert phonofs("fetch", "--dry-run", cold) == (0, f"{plan}\n", "")
    status, out, err = phonofs("restore", "--days", 1, cold, environment=mount.environment)
    assert (status, out.strip()) == (0, "1 of 1 requested, for 1 day"), err


def test_umount_takes_the_mount_down_and_waits_for_its_process(mount: Mount) -> None:
    assert phonofs("umount", mount.point) == (0, "", "")
    assert not os.path.ismount(mount.point)
    assert mount.process is not None
    assert mount.process.wait(1) == 0
    status, _, err = phonofs("umount", mount.point)
    assert (status, err) == (32, f"phonofs: {mount.point} is not mounted\n")


def test_umount_takes_down_what_a_dead_process_left(mount: Mount) -> None:
    assert mount.process is not None
    mount.process.kill()
    mount.process.wait()
    status, _, err = phonofs("status", mount.point)
    assert status == 32
    assert "has died" in err
    assert phonofs("umount", mount.point) == (0, "", "")
    assert os.listdir(mount.point) == []


def test_umount_leaves_other_mounts_alone() -> None:
    status, _, err = phonofs("umount", "/proc")
    assert (status, err) == (32, "phonofs: /proc is not a phonofs mount but proc\n")


def test_the_service_alone_ends_without_a_word() -> None:
    """``--serve-only`` says how to reach it, and Ctrl-C is no error."""
    demo = subprocess.Popen(
        [sys.executable, "-m", "phonofs.cli", "demo", "--serve-only"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert demo.stdout is not None
    said = [demo.stdout.readline().split()[0] for _ in range(3)]
    assert said == ["api_url", "key", "secret"]
    demo.send_signal(signal.SIGINT)
    assert demo.communicate(timeout=60) == ("", "")
    assert demo.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_demo_leaves_nothing(tmp_path: Path, number: int) -> None:
    """No mount, no folder, no cache, no process."""
    point, private = tmp_path / "calls", tmp_path / "tmp"
    private.mkdir()
    demo = subprocess.Popen(
        [sys.executable, "-m", "phonofs.cli", "demo", str(point)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(private), "XDG_RUNTIME_DIR": str(private)},
    )
    assert demo.stdout is not None
    said = [demo.stdout.readline() for _ in range(4)]
    assert f"ls -l {point}/" in said[1]
    assert files(point)
    children = Path(f"/proc/{demo.pid}/task/{demo.pid}/children").read_text().split()
    assert len(children) == 1
    demo.send_signal(number)
    assert demo.wait(60) == 0
    demo.stdout.close()
    assert not point.exists()
    assert [path.name for path in private.rglob("*") if "demo" in path.name] == []
    until(lambda: not any(Path(f"/proc/{child}").exists() for child in children))


def test_output_onto_a_full_disk_is_one_sentence(tmp_path):
    """Every command that prints, also if it prints more than a buffer takes."""
    options = {"journal": str(tmp_path / "journal")}
    with standing(flat(*[10] * 300)) as service, mounted(service.url, tmp_path, **options) as mount:
        point = str(mount.point)
        files(mount.point)[0].read_bytes()
        commands = (
            ["find", "--mount", point],
            ["find", "--json", "--mount", point],
            ["manifest", point],
            ["status", point],
            ["status", "--json", point],
            ["journal", "show"],
            ["journal", "verify"],
            ["export", str(tmp_path / "out"), "--mount", point],
            ["export", "--help"],
        )
        for words in commands:
            with open("/dev/full", "w") as full:
                done = subprocess.run(
                    [sys.executable, "-m", "phonofs.cli", *words],
                    env=mount.environment,
                    stdout=full,
                    stderr=subprocess.PIPE,
                    text=True,
                    timeout=60,
                )
            [said] = [line for line in done.stderr.splitlines() if not line.startswith("looked")]
            assert said == ("phonofs: the output cannot be written: No space left on device"), words
            assert done.returncode == 1
        assert (tmp_path / "out/export.json").exists()
