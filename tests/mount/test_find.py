"""``phonofs find`` and ``phonofs manifest``, over a mount and over the catalogue alone."""

import csv
import hashlib
import io
import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pytest

from phonofs.fakeservice.account import Account, Item, change, flat_item
from phonofs.manifest.columns import COLUMNS
from tests.mount.test_control import NOBODY, as_user, asked_as, public
from tests.support.accounts import NOON_MS
from tests.support.customers import DEMO_KEY, OTHER_KEY, customers, objects_of
from tests.support.demo_mount import Demo
from tests.support.mounts import (
    Mount,
    at_last,
    is_followed,
    mount_in_background,
    mounted,
    phonofs,
    standing,
    status_of,
    unmount,
    unmounted,
    until,
)

pytestmark = pytest.mark.fuse

__all__ = ["public"]  # a fixture

DAY_MS = 86_400_000
FORMULA = "=HYPERLINK(1)"
NOT_MOUNTED = "test-find"  # of a profile that is mounted, that mount is searched


def id_of(path: str) -> str:
    return os.getxattr(path, "user.phonofs.id").decode()


def ids_of(output: str, end: str = "\n") -> set[str]:
    return {id_of(path) for path in output.split(end) if path}


def is_shown(item: Item) -> bool:
    return item.state in ("AVAILABLE", "ARCHIVED")


def agents(item: Item) -> set[str]:
    return {item.tags.get("agentName", ""), item.tags.get("userName", "")}


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


@pytest.mark.promise("search-whole-or-said")
def test_find_prints_all_objects_of_an_agent_and_nothing_else(demo: Demo):
    """With no folder ever opened; and no content is asked for."""
    before = demo.service.counters.requests["content"]
    done = phonofs(demo.mount, "find", "--mount", str(demo.point), "--agent", "alex wilber")
    assert done.returncode == 0, done.stderr
    expected = {
        item.id for item in demo.service.account if is_shown(item) and "Alex Wilber" in agents(item)
    }
    assert ids_of(done.stdout) == expected != set()
    assert done.stderr.startswith("looked at 2026-01-02 to ")
    assert demo.service.counters.requests["content"] == before


@pytest.mark.promise("search-whole-or-said")
def test_a_manifest_is_the_object_list(demo: Demo):
    done = phonofs(demo.mount, "manifest", str(demo.point))
    assert done.returncode == 0, done.stderr
    listed = rows(done.stdout)
    items = {item.id: item for item in demo.service.account if is_shown(item)}
    assert sorted(row["id"] for row in listed) == sorted(items)
    assert [*listed[0]] == [name for name, _ in COLUMNS]
    for row in listed:
        assert Path(row["path"]).name == row["name"]
        assert int(row["bytes"]) == os.stat(row["path"]).st_size
        assert row["type"] == items[row["id"]].type
    lines = phonofs(demo.mount, "manifest", "--jsonl", str(demo.point)).stdout.splitlines()
    records = [json.loads(line) for line in lines]
    assert [record["path"] for record in records] == [row["path"] for row in listed]
    assert [record["id"] for record in records] == [row["id"] for row in listed]


def test_duckdb_reads_both_tables(demo: Demo, tmp_path):
    count = sum(map(is_shown, demo.service.account))
    for form in ("csv", "jsonl"):
        path = tmp_path / f"calls.{form}"
        path.write_text(phonofs(demo.mount, "manifest", f"--{form}", str(demo.point)).stdout)
        read = "read_json_auto" if form == "jsonl" else "read_csv_auto"
        [(found, paths)] = duckdb.sql(
            f"SELECT count(*), count(DISTINCT path) FROM {read}('{path}')"
        ).fetchall()
        assert (found, paths) == (count, count)


def test_what_find_prints_is_listed_by_manifest(demo: Demo):
    asked = ("--mount", str(demo.point), "--direction", "in", "--longer", "30s")
    found = subprocess.run(
        [sys.executable, "-m", "phonofs.cli", "find", "-0", *asked],
        env=demo.mount.environment, capture_output=True, check=True, timeout=60,
    )  # fmt: skip
    listed = subprocess.run(
        [sys.executable, "-m", "phonofs.cli", "manifest", "--files0-from=-"],
        env=demo.mount.environment, input=found.stdout, capture_output=True, check=True, timeout=60,
    )  # fmt: skip
    paths = [os.fsdecode(path) for path in found.stdout.split(b"\0") if path]
    assert [row["path"] for row in rows(listed.stdout.decode())] == paths != []
    as_json = phonofs(demo.mount, "find", "--json", *asked).stdout.splitlines()
    assert [json.loads(line)["path"] for line in as_json] == paths


def test_a_manifest_of_a_view_lists_its_objects(demo: Demo):
    """Under their paths in the date tree."""
    [folder, *_] = sorted((demo.point / ".views/by-agent").glob("2*/*"))
    shown = {path: id_of(str(path)) for path in folder.iterdir() if is_object(path)}
    listed = rows(phonofs(demo.mount, "manifest", str(folder)).stdout)
    assert {row["id"] for row in listed} == set(shown.values()) != set()
    assert all(row["path"].startswith(f"{demo.point}/2") for row in listed)
    one = next(path for path in shown if path.suffix == ".mp3")
    done = phonofs(demo.mount, "manifest", str(one))
    assert [row["id"] for row in rows(done.stdout)] == [shown[one]]
    [text, *_] = [path for path in folder.iterdir() if path not in shown]
    assert phonofs(demo.mount, "manifest", str(text)).returncode == 4


def test_a_manifest_of_views_names_each_object_once_and_each_path_as_typed(demo: Demo):
    """``by-day``, ``by-agent``, ``by-queue`` and ``latest`` show the same objects."""
    views = demo.point / ".views"
    shown = {id_of(str(path)) for path in (views / "latest").iterdir() if is_object(path)}
    listed = [row["id"] for row in rows(phonofs(demo.mount, "manifest", str(views)).stdout)]
    assert shown <= set(listed)
    assert len(listed) == len(set(listed))
    sums = next(views.glob("by-day/*/MD5SUMS"))
    in_view = sums.parent / sums.read_text().splitlines()[0].split("  ")[1]
    in_tree = Path(os.getxattr(in_view, "user.phonofs.path").decode())
    typed = [str(in_view.relative_to(demo.point)), str(in_tree)]
    done = subprocess.run(
        [sys.executable, "-m", "phonofs", "manifest", "--md5", *typed],
        capture_output=True, text=True, cwd=demo.point, env=demo.mount.environment,
    )  # fmt: skip
    assert [line.split("  ")[1] for line in done.stdout.splitlines()] == typed


def is_object(path: Path) -> bool:
    try:
        return bool(id_of(str(path)))
    except OSError:
        return False


def test_md5sum_checks_a_folder_and_a_copy_of_it(tmp_path):
    items = [flat_item(f"{n:08d}", 5000, NOON_MS + n * DAY_MS) for n in range(3)]
    with (
        standing(Account(items)) as stand_in,
        mounted(stand_in.url, tmp_path) as mount,
    ):
        sums = phonofs(mount, "manifest", "--md5", str(mount.point)).stdout
        assert subprocess.run(["md5sum", "-c"], input=sums, text=True, check=False).returncode == 0
        copy = tmp_path / "copy"
        subprocess.run(["cp", "-r", "--no-preserve=mode", mount.point, copy], check=True)
        by_name = subprocess.run(
            [sys.executable, "-m", "phonofs.cli", "manifest", "--md5",
             "--mount", mount.point, "2026/2026-03"],
            cwd=copy, env=mount.environment, capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        assert len(by_name.splitlines()) == 3
        check = ["md5sum", "-c", "--quiet"]
        done = subprocess.run(check, input=by_name, text=True, cwd=copy, check=False)
        assert done.returncode == 0
        damaged = next(path for path in copy.rglob("*.mp3"))
        damaged.write_bytes(b"x" * 5000)
        done = subprocess.run(
            check, input=by_name, text=True, cwd=copy, capture_output=True, check=False
        )
        assert (done.returncode, "FAILED" in done.stdout) == (1, True)


def test_links_are_made_anew_and_nothing_else_is_touched(demo: Demo, tmp_path):
    links = tmp_path / "links"
    asked = ("find", "--mount", str(demo.point), "--link", str(links))
    for agent in ("Hannah Weiss", "Alex Wilber"):
        done = phonofs(demo.mount, *asked, "--agent", agent)
        assert done.returncode == 0, done.stderr
        targets = [os.readlink(link) for link in links.iterdir()]
        assert targets
        assert all(agent.replace(" ", "-") in Path(target).name for target in targets)
        assert done.stdout == f"{len(targets)} files linked in {links}\n"
    one = next(iter(links.iterdir()))
    assert one.name == f"{Path(os.readlink(one)).parent.name}_{Path(os.readlink(one)).name}"
    (links / "mine").write_text("kept")
    done = phonofs(demo.mount, *asked)
    assert (done.returncode, "mine" in done.stderr) == (1, True)
    assert len([*links.iterdir()]) == len(targets) + 1


@pytest.mark.parametrize("asked", [("--call", "00000123"), ("--number", "+1 (202) 555-0148")])
def test_a_call_or_number_in_an_unlisted_account_costs_few_requests(tmp_path, asked):
    """400 days of two objects; at most three searches for all that match."""
    items = [
        flat_item(f"{n:08d}", 1000, NOON_MS - n // 2 * DAY_MS,
                  tags={"callId": f"{n:08d}", "address": f"+1202555{n:04d}"})
        for n in range(800)
    ]  # fmt: skip
    items[148].tags["callId"] = "00000123"
    with standing(Account(items)) as stand_in, mounted(stand_in.url, tmp_path) as mount:
        until(lambda: is_followed(status_of(mount)))
        until(lambda: not mount_is_busy(mount))
        before = stand_in.service.counters.requests["search"]
        done = phonofs(mount, "find", "--mount", str(mount.point), *asked)
        assert done.returncode == 0, done.stderr
        assert "00000148" in ids_of(done.stdout)
        assert stand_in.service.counters.requests["search"] - before <= 3
        assert "asked the service for" in done.stderr
        assert "phonofs index makes it certain" in done.stderr


def mount_is_busy(mount: Mount) -> bool:
    return bool(status_of(mount)["service"]["slots"]["in_use"])


@pytest.mark.promise("search-whole-or-said")
def test_what_cannot_be_looked_at_is_said(tmp_path):
    """The service goes away after one day was opened: that day is found, the rest is said."""
    items = [flat_item(f"{n:08d}", 1000, NOON_MS - n * DAY_MS) for n in range(5)]
    with (
        standing(Account(items)) as stand_in,
        mounted(stand_in.url, tmp_path, read_deadline="1s") as mount,
    ):
        day = mount.point / "2026/2026-03/2026-03-02"
        assert len(at_last(lambda: os.listdir(day))) == 1
        stand_in.stop()
        done = phonofs(mount, "find", "--mount", str(mount.point))
        assert done.returncode == 4, done.stderr
        assert ids_of(done.stdout) >= {"00000000"}
        assert "could not be looked at" in done.stderr
        done = phonofs(mount, "find", "--mount", str(mount.point), "--since", "2026-03-02")
        assert (done.returncode, ids_of(done.stdout)) == (0, {"00000000"})
        done = phonofs(mount, "manifest", str(day), str(day / "nothing.mp3"))
        assert (done.returncode, len(rows(done.stdout))) == (4, 1)
        assert f"{day.relative_to(mount.point)}/nothing.mp3 is not there" in done.stderr


@pytest.mark.promise("search-whole-or-said")
def test_a_withdrawn_object_is_no_longer_found(tmp_path):
    items = [flat_item(f"{n:08d}", 1000, NOON_MS) for n in range(3)]
    with (
        standing(Account(items)) as stand_in,
        mounted(stand_in.url, tmp_path, poll_interval="200ms") as mount,
    ):
        asked = ("find", "--mount", str(mount.point), "--call", "00000001")
        assert ids_of(phonofs(mount, *asked).stdout) == {"00000001"}
        service = stand_in.service
        now_ms = service.now_ms() + 1000
        change(service.account, "us-east", "00000001", now_ms, state="REVOKED")
        until(lambda: phonofs(mount, *asked).stdout == "")
        assert phonofs(mount, *asked).returncode == 0


def test_without_a_mount_the_catalogue_answers(tmp_path):
    """Paths begin with the year then; a day that was never opened is said to be missing."""
    items = [flat_item(f"{n:08d}", 1000, NOON_MS - n * DAY_MS) for n in range(3)]
    with standing(Account(items)) as stand_in, unmounted(stand_in, tmp_path) as mount:
        mount_in_background(mount)
        [path] = (mount.point / "2026/2026-03/2026-03-01").iterdir()
        relative = str(path.relative_to(mount.point))
        unmount(mount)
        stand_in.stop()
        asked = ("--profile", NOT_MOUNTED)
        done = phonofs(mount, "find", *asked, "--since", "2026-03-01", "--until", "2026-03-01")
        assert (done.returncode, done.stdout) == (0, f"{relative}\n"), done.stderr
        assert done.stderr == "looked at 2026-03-01 (known)\n"
        done = phonofs(mount, "find", *asked)
        assert done.returncode == 4
        assert relative in done.stdout
        assert "run phonofs index" in done.stderr
        done = phonofs(mount, "manifest", *asked, "2026/2026-03/2026-03-01", relative)
        assert [row["path"] for row in rows(done.stdout)] == [relative, relative]
        done = phonofs(mount, "manifest", *asked, "--md5", relative)
        [item] = [each for each in items if each.id == "00000001"]
        content = b"".join(item.content.pieces(0, 1000))
        assert done.stdout == f"{hashlib.md5(content).hexdigest()}  {relative}\n"
        assert "--link needs a mount" in phonofs(mount, "find", *asked, "--link", "x").stderr


@pytest.mark.promise("search-whole-or-said")
def test_another_customers_key_finds_nothing_of_the_first(tmp_path):
    accounts = {
        DEMO_KEY: objects_of("customer-A", "aaaa", 5000, 6000),
        OTHER_KEY: objects_of("customer-B", "bbbb", 800),
    }
    with customers(accounts) as stand_in, unmounted(stand_in, tmp_path) as mount:
        mount_in_background(mount)
        assert len(phonofs(mount, "find", "--mount", str(mount.point)).stdout.splitlines()) == 2
        unmount(mount)
        for key, count in ((DEMO_KEY, 2), (OTHER_KEY, 0)):
            done = phonofs(mount, "find", "--profile", NOT_MOUNTED, PHONOFS_KEY=key)
            assert len(done.stdout.splitlines()) == count
        assert done.returncode == 1
        assert "nothing is known of the account" in done.stderr


def test_other_users_search_what_they_may_read(public, tmp_path):
    items = [flat_item(f"{n:08d}", 1000, NOON_MS) for n in range(2)]
    with (
        standing(Account(items)) as stand_in,
        mounted(stand_in.url, public, allow_other="yes") as mount,
    ):
        done = subprocess.run(
            as_user(NOBODY, sys.executable, "-m", "phonofs.cli", "find",
                    "--mount", str(mount.point), "--call", "00000001"),
            env={**mount.environment, "HOME": "/nonexistent"},
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert (done.returncode, len(done.stdout.splitlines())) == (0, 1), done.stderr
        name = status_of(mount)["control_shared"]
        public.chmod(0o700)
        for command in ({"command": "find", "condition": {}}, {"command": "manifest", "paths": []}):
            assert "may not" in asked_as(NOBODY, name, **command)["error"]


@pytest.mark.promise("manifest-harmless")
def test_a_hostile_name_reaches_no_spreadsheet_and_no_terminal(tmp_path):
    tags = {"callId": "\x1b]0;x\x07", "callerName": FORMULA, "agentName": "\x1b[31m=1+1"}
    item = flat_item("00000000", 1000, NOON_MS, tags=tags, name="@SUM(1)\u202e.mp3")
    with standing(Account([item])) as stand_in, mounted(stand_in.url, tmp_path) as mount:
        outputs = [
            phonofs(mount, "manifest", f"--{form}", str(mount.point)).stdout
            for form in ("csv", "jsonl", "md5", "m3u8")
        ]
        outputs.append(phonofs(mount, "find", "--mount", str(mount.point)).stdout)
        outputs.append(phonofs(mount, "find", "--json", "--mount", str(mount.point)).stdout)
        assert not any("\x1b" in text or "\x07" in text for text in outputs)
        [row] = rows(outputs[0])
        assert row["caller_name"] == f"'{FORMULA}"
        assert row["agent"] == " [31m=1+1"
        assert row["object_name"] == "'@SUM(1).mp3"
        assert json.loads(outputs[1])["tags"][1]["value"] == FORMULA


def test_words_are_refused_until_they_are_looked_for(demo: Demo):
    done = phonofs(demo.mount, "find", "chargeback")
    assert (done.returncode, "not looked for in transcripts yet" in done.stderr) == (1, True)


def test_dates_are_those_of_the_folders(demo: Demo):
    last = datetime(2026, 3, 1, tzinfo=UTC).date()
    for since, until_day in ((last, last), (last - timedelta(days=9), last - timedelta(days=3))):
        asked = ("--since", str(since), "--until", str(until_day))
        done = phonofs(demo.mount, "find", "--mount", str(demo.point), *asked)
        expected = sorted(
            str(path)
            for path in demo.point.rglob("*")
            if path.is_file() and str(since) <= path.parent.name <= str(until_day)
        )
        assert done.stdout.splitlines() == expected != []
        listed = phonofs(demo.mount, "manifest", str(demo.point), *asked)
        assert [row["path"] for row in rows(listed.stdout)] == expected


def test_a_path_that_is_no_path_of_the_tree_is_said(demo: Demo):
    asked = ("manifest", "--mount", str(demo.point))
    for path, status, said in (
        ("notes.txt", 1, "notes.txt is not in"),
        ("/2026/2026-03", 1, "/2026/2026-03 is not in"),
        (f"{demo.point}/notes", 4, "notes is no region of this account"),
        (f"{demo.point}/2026/2026-13", 4, "2026/2026-13 is not there"),
        ("2026/2026-03/2026-03-01/nobody.mp3", 4, "nobody.mp3 is not there"),
    ):
        done = phonofs(demo.mount, *asked, path)
        assert (done.returncode, said in done.stderr) == (status, True), done.stderr


def test_searching_needs_no_fuse():
    """So that it works where only a client is installed."""
    code = "import sys, phonofs.cli.{}; sys.exit('pyfuse3' in sys.modules)"
    for module in ("find", "manifest", "index", "catalogue_source", "links"):
        assert (
            subprocess.run([sys.executable, "-c", code.format(module)], check=False).returncode == 0
        )


def test_a_manifest_as_parquet_is_the_table_of_the_csv(demo: Demo, tmp_path):
    """A file a month; also without a mount, and of some months alone."""
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    folder = tmp_path / "manifest"
    done = phonofs(demo.mount, "manifest", "--parquet", str(folder), str(demo.point))
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    listed = rows(phonofs(demo.mount, "manifest", str(demo.point)).stdout)
    written = parquet.read_table(folder).to_pylist()
    assert {row["id"]: row["path"] for row in written} == {row["id"]: row["path"] for row in listed}
    months = sorted({Path(row["path"]).parent.name[:7] for row in listed})
    assert sorted(path.name for path in folder.iterdir()) == [f"{each}.parquet" for each in months]
    for name, text in listed[0].items():
        [value] = [row[name] for row in written if row["id"] == listed[0]["id"]]
        if not isinstance(value, datetime | float):
            assert str("" if value is None else value) == text.removeprefix("'"), name
    before = (folder / f"{months[0]}.parquet").stat().st_ino
    asked = ("manifest", "--mount", str(demo.point), "--parquet", str(folder))
    again = phonofs(demo.mount, *asked, "--since", months[-1])
    assert again.returncode == 0, again.stderr
    assert (folder / f"{months[0]}.parquet").stat().st_ino == before
    assert parquet.read_table(folder).num_rows == len(listed)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--jsonl"], "different outputs"),
        (["--since", "2026-02-03"], "whole months"),
        (["--until", "2026-02-03"], "whole months"),
        (["2026/2026-02/2026-02-03"], "whole months"),
        (["2026", "2025"], "name one folder"),
        (["--files0-from", "/dev/null"], "name one folder"),
    ],
)
def test_parquet_is_of_whole_months(demo: Demo, tmp_path, words, said):
    """Else the file of a month would lack objects, and who compares would take them for gone."""
    folder = tmp_path / "manifest"
    if words[0] == "--files0-from":
        words = ["--files0-from", str(tmp_path / "paths")]
        (tmp_path / "paths").write_bytes(b"2026\0")
    asked = ("manifest", "--mount", str(demo.point), "--parquet", str(folder), *words)
    done = phonofs(demo.mount, *asked)
    assert (done.returncode, said in done.stderr) == (1, True), done.stderr
    assert not folder.exists()


def test_parquet_is_whole_or_as_it_was(tmp_path):
    """What could not be looked at is said, and no file is replaced."""
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    items = [flat_item("a", 10, NOON_MS), flat_item("b", 10, NOON_MS + DAY_MS)]
    folder = tmp_path / "manifest"
    with standing(Account(items)) as service, mounted(service.url, tmp_path) as mount:
        asked = ("manifest", "--mount", str(mount.point), "--parquet", str(folder))
        assert phonofs(mount, *asked, "--offline").returncode == 4
        assert [*folder.iterdir()] == []
        assert phonofs(mount, *asked).returncode == 0
        assert len([*folder.iterdir()]) == 1
