"""The views over a real mount, read with real tools; every text compared with the service's."""

import csv
import errno
import json
import mmap
import os
import random
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from phonofs.demo.dataset import demo_account
from phonofs.fakeservice.account import Account, change
from phonofs.texts import forms, render
from tests.support.accounts import content_of
from tests.support.calls import AUDIO_BYTES, call, calls, text, transcript_json
from tests.support.demo_mount import Demo
from tests.support.mounts import Mount, StandIn, at_last, files, mounted, phonofs, standing, until

pytestmark = pytest.mark.fuse

MONTH = "2026-03"
LISTS = ("MD5SUMS", "calls.csv", "calls.jsonl")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[tuple[StandIn, Mount]]:
    """Two days of calls of two agents, mounted."""
    with standing(calls()) as stand_in, mounted(stand_in.url, tmp_path) as mount:
        yield stand_in, mount


def walk(point: Path) -> dict[str, tuple[int, ...]]:
    """Return what a walk of the date tree sees: attributes by path."""
    found = {}
    for parent, folders, names in os.walk(point):
        for name in (*folders, *names):
            path = Path(parent, name)
            seen = path.lstat()
            kept = (seen.st_ino, seen.st_size, seen.st_mode, seen.st_mtime_ns, seen.st_nlink)
            found[str(path.relative_to(point))] = kept
    return found


def below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def requests(stand_in: StandIn) -> int:
    return stand_in.service.counters.requests["content"]


def id_of(path: Path) -> str:
    return os.getxattr(path, "user.phonofs.id").decode()


def is_text(path: Path) -> bool:
    return 0 < path.stat().st_ino >> 56 <= 4


# the date tree


@pytest.mark.promise("views-change-nothing")
def test_a_walk_is_the_same_with_views_and_without(tmp_path):
    with standing(calls()) as stand_in:
        with mounted(stand_in.url, tmp_path, views="") as mount:
            walk(mount.point)
            until(lambda: walk(mount.point) == walk(mount.point))  # the kernel was told of it all
            without = walk(mount.point)
            assert not (mount.point / ".views").exists()
            bytes_of = {path.name: path.read_bytes() for path in files(mount.point)}
            mount.stop()
        with mounted(stand_in.url, tmp_path) as mount:
            assert walk(mount.point) == without
            assert len(below(mount.point / ".views")) > 100
            assert walk(mount.point) == without
            assert {path.name: path.read_bytes() for path in files(mount.point)} == bytes_of
            mount.stop()
        with mounted(stand_in.url, tmp_path, views="views") as mount:
            assert os.listdir(mount.point) == ["2026", "views"]
            shown = walk(mount.point)
            tree = {path: seen for path, seen in shown.items() if not path.startswith("views")}
            assert tree == without


def test_a_mount_of_several_regions_has_views_in_each(tmp_path):
    account = calls(days=1, each=1)
    items = [*account, *call(900, account.item("us-east", "00000000-0").created_ms, "Cy")]
    items[-5:] = [replace(item, region="uk") for item in items[-5:]]
    with (
        standing(Account(items, ("us-east", "uk"))) as stand_in,
        mounted(stand_in.url, tmp_path) as mount,
    ):
        assert not (mount.point / ".views").exists()
        assert os.listdir(mount.point / "uk/.views/by-agent" / MONTH) == ["Cy"]
        assert sorted(os.listdir(mount.point / "us-east/.views/by-agent" / MONTH)) == [
            "Ann-Lee",
            "Bob-Ray",
        ]
        assert not (mount.point / "uk/2026/.views").exists()


@pytest.mark.promise("one-inode-whichever-path")
def test_an_object_has_one_inode_and_one_content(world):
    stand_in, mount = world
    tree = {path.stat().st_ino: path for path in files(mount.point)}
    for view in (f"by-agent/{MONTH}/Ann-Lee", "by-day/2026-03-02", "latest"):
        for path in below(mount.point / ".views" / view):
            if not is_text(path) and path.name not in LISTS:
                same = tree[path.stat().st_ino]
                assert path.stat() == same.stat()
                assert id_of(path) == id_of(same)
    [path, *_] = below(mount.point / f".views/by-agent/{MONTH}/Ann-Lee")
    assert path.suffix == ".txt" or path.read_bytes()
    audio = next(p for p in below(mount.point / ".views/latest") if p.suffix == ".mp3")
    data = audio.read_bytes()
    assert data == content_of(stand_in.service, id_of(audio))
    before = requests(stand_in)
    assert tree[audio.stat().st_ino].read_bytes() == data
    assert requests(stand_in) == before
    assert os.getxattr(audio, "user.phonofs.path").decode() == str(
        tree[audio.stat().st_ino].relative_to(mount.point)
    )


@pytest.mark.promise("view-whole-or-error")
def test_views_show_every_object(demo: Demo):
    tree = {path.stat().st_ino: path for path in files(demo.point)}
    views = demo.point / ".views"
    by_day: dict[int, list[Path]] = {}
    for path in below(views / "by-day"):
        by_day.setdefault(path.stat().st_ino, []).append(path)
    assert set(tree) == {ino for ino in by_day if ino < 1 << 55}
    for path in files(demo.point):
        agent = _tag(path, "agentName") or _tag(path, "userName")
        month = path.parent.parent.name
        if agent and "callrecording" in path.name:
            name = f"{path.parent.name}_{path.name}"
            folders = [f for f in (views / "by-agent" / month).iterdir() if (f / name).exists()]
            assert len(folders) == 1, path
            assert (folders[0] / name).stat().st_ino == path.stat().st_ino


def _tag(path: Path, tag: str) -> str:
    try:
        return os.getxattr(path, f"user.phonofs.tag.{tag}").decode().strip()
    except OSError:
        return ""


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    account = demo_account(date(2026, 3, 2))
    folder = tmp_path_factory.mktemp("demo")
    with standing(account) as stand_in, mounted(stand_in.url, folder) as mount:
        yield Demo(mount, stand_in)


@pytest.mark.promise("view-whole-or-error")
@pytest.mark.expected_log("region us-east|unreachable|answers 503|failed|did not")
def test_a_day_that_fails_makes_the_month_an_error(tmp_path):
    with (
        standing(calls(days=3)) as stand_in,
        mounted(stand_in.url, tmp_path, read_deadline="1s", page_size="10") as mount,
    ):
        folder = mount.point / ".views/by-agent" / MONTH
        at_last(lambda: os.listdir(mount.point / "2026" / MONTH))
        stand_in.faults({"kind": "search", "fail": "status", "status": 503})
        with pytest.raises(OSError, match="Input/output error"):
            os.listdir(folder)
        stand_in.faults()
        until(lambda: _names(folder) == ["Ann-Lee", "Bob-Ray"])
        assert len(at_last(lambda: os.listdir(folder / "Ann-Lee"))) == 9 * 9


def _read(path: Path) -> str:
    """Return a text; '' if it changed between open and read, which is ESTALE."""
    try:
        return path.read_text()
    except OSError as error:
        assert error.errno == errno.ESTALE  # noqa: PT017
        return ""


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def test_what_changes_is_in_the_views_within_a_poll(tmp_path):
    with (
        standing(calls(days=1, each=1)) as stand_in,
        mounted(stand_in.url, tmp_path, poll_interval="0.2s") as mount,
    ):
        account = stand_in.service.account
        folder = mount.point / ".views/by-agent" / MONTH
        day = mount.point / ".views/by-day/2026-03-02"
        assert _names(folder) == ["Ann-Lee", "Bob-Ray"]
        [words] = [path for path in below(day) if path.name.endswith("_00000000.txt")]
        assert "hello owner 0" in words.read_text()
        now_ms = stand_in.service.now_ms() // 1000 * 1000
        for item in call(7, account.item("us-east", "00000000-0").created_ms + 1000, "Cy Poe"):
            account.put(item)
        until(lambda: _names(folder) == ["Ann-Lee", "Bob-Ray", "Cy-Poe"])
        new = text(transcript_json("something else was said", speaker="owner"))
        change(account, "us-east", "00000000-1", now_ms, content=new)
        until(lambda: "something else was said" in _read(words))
        assert words.stat().st_size == len(words.read_bytes())
        change(account, "us-east", "00000000-2", now_ms + 1000, state="DELETED")
        until(lambda: _read(words) and "external" not in _read(words))
        change(account, "us-east", "00000000-1", now_ms + 1000, state="REVOKED")
        until(lambda: not words.exists())


def test_an_open_text_of_what_changed_gives_no_more(tmp_path):
    with (
        standing(calls(days=1, each=1)) as stand_in,
        mounted(stand_in.url, tmp_path, poll_interval="0.2s") as mount,
    ):
        day = mount.point / ".views/by-day/2026-03-02"
        words = next(path for path in below(day) if path.name.endswith("_00000000.txt"))
        with words.open("rb", buffering=0) as file:
            first = file.read()
            now_ms = stand_in.service.now_ms() // 1000 * 1000
            new = text(transcript_json("a longer text " * 50, speaker="owner"))
            change(stand_in.service.account, "us-east", "00000000-1", now_ms, content=new)
            until(lambda: _errno_of(os.pread, file.fileno(), 4096, 0) == errno.ESTALE)
            assert words.read_bytes() != first
        assert words.stat().st_size == len(words.read_bytes()) > len(first)


def _errno_of(call, *args) -> int | None:
    try:
        call(*args)
    except OSError as error:
        return error.errno
    return None


@pytest.mark.promise("withdrawn-is-gone")
def test_of_what_was_withdrawn_no_word_is_kept(tmp_path):
    """Of its words none is in the cache, and no list, view or search has its caller."""
    words, party = "canary-words-5d1f", "canary-caller-77ab"
    with (
        standing(calls(days=1, each=1)) as stand_in,
        mounted(stand_in.url, tmp_path, poll_interval="0.2s") as mount,
    ):
        account = stand_in.service.account
        now_ms = stand_in.service.now_ms() // 1000 * 1000
        content = text(transcript_json(words, speaker="owner"))
        change(account, "us-east", "00000000-1", now_ms, content=content)
        change(
            account, "us-east", "00000000-0", now_ms, tags={"callId": "call0", "agentName": party}
        )
        day = mount.point / ".views/by-day/2026-03-02"
        until(lambda: any(words in _read(p) for p in below_names(day) if p.suffix == ".txt"))
        until(lambda: _names(mount.point / ".views/by-agent" / MONTH).count(party))
        for name in LISTS:
            (day / name).read_bytes()
        phonofs(mount, "find", "--mount", str(mount.point), "--agent", party)
        until(lambda: words.encode() in kept_on_disk(mount))
        for number in range(5):
            change(account, "us-east", f"00000000-{number}", now_ms + 1000, state="REVOKED")
        until(lambda: not any("00000000." in name for name in _names(day)))
        until(lambda: words.encode() not in kept_on_disk(mount))
        assert not any(party in _read(day / name) for name in LISTS)
        found = phonofs(mount, "find", "--mount", str(mount.point), "--agent", party)
        assert found.stdout == ""


def kept_on_disk(mount: Mount) -> bytes:
    """Return all that lies in the cache directory, but for the catalogue."""
    return b"".join(
        path.read_bytes()
        for path in mount.cache.rglob("*")
        if path.is_file() and not path.name.startswith("catalogue")
    )


# names and sizes


@pytest.mark.promise("names-cost-nothing")
def test_a_file_chooser_that_tries_every_prefix_costs_nothing(world):
    """Names that are not there are answered from what is known, and none of them is kept."""
    stand_in, mount = world
    above = mount.point / ".views/by-agent"
    assert _names(above / MONTH) == ["Ann-Lee", "Bob-Ray"]
    known = stand_in.service.counters.requests.copy()
    for name in ("Ann-Lee", "Bob-Ray", "agent==Ann-Lee", "%2e%2e", "2026-03-0"):
        for length in range(1, len(name)):
            prefix = name[:length]
            assert _errno_of(os.stat, above / MONTH / prefix) == errno.ENOENT, prefix
    assert stand_in.service.counters.requests["search"] - known["search"] <= 1
    assert requests(stand_in) == known["content"]
    assert _names(above / MONTH) == ["Ann-Lee", "Bob-Ray"]


@pytest.mark.promise("names-cost-nothing")
def test_names_cost_no_content_and_sizes_each_source_once(world):
    stand_in, mount = world
    views = mount.point / ".views"
    subprocess.run(["find", views], capture_output=True, check=True)
    listed = [name for _, _, names in os.walk(views) for name in names]
    assert len(listed) > 100
    assert requests(stand_in) == 0
    texts = below(views / "text")
    assert len({path.stat().st_ino for path in texts}) == 12 * 3
    assert requests(stand_in) == 12 * 4  # two transcripts, a summary, notes
    for path in below(views):
        path.stat()
    assert requests(stand_in) == 12 * 4


MAPPED = """
import mmap, sys
with open(sys.argv[1], "rb") as file:
    sys.stdout.buffer.write(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)[:])
"""


@pytest.mark.promise("size-is-the-text-s")
@pytest.mark.parametrize("first", ["stat", "read", "mmap", "list", "copy", "direct", "sendfile"])
def test_a_size_is_the_number_of_bytes(world, first, tmp_path):
    _, mount = world
    folder = mount.point / ".views/by-day/2026-03-02"
    if first == "list":
        assert sum(entry.stat().st_size == 0 for entry in os.scandir(folder)) == 0
    names = [name for name in os.listdir(folder) if name.endswith((".txt", ".srt"))]
    assert len(names) == 6 * 5
    if first == "copy":
        subprocess.run(["cp", "-r", folder, tmp_path / "copy"], check=True)
    for name in names:
        path = folder / name
        if first == "read":
            descriptor = os.open(path, os.O_RDONLY)
            data = os.read(descriptor, 1 << 20)
            os.close(descriptor)
        elif first == "direct":
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECT)
            buffer = mmap.mmap(-1, 1 << 16)
            data = buffer[: os.readv(descriptor, [buffer])]
            os.close(descriptor)
        elif first == "sendfile":
            descriptor = os.open(path, os.O_RDONLY)
            with (tmp_path / "sent").open("wb") as sent:
                os.sendfile(sent.fileno(), descriptor, 0, 1 << 20)
            os.close(descriptor)
            data = (tmp_path / "sent").read_bytes()
        elif first == "mmap":  # in a process of its own: a page fault waits with the GIL held
            data = subprocess.run(
                [sys.executable, "-c", MAPPED, path], capture_output=True, check=True
            ).stdout
        elif first == "copy":
            data = (tmp_path / "copy" / name).read_bytes()
        else:
            path.stat()
            data = path.read_bytes()
        assert path.stat().st_size == len(data) > 0
        assert path.read_bytes() == data


@pytest.mark.promise("size-is-the-text-s")
@pytest.mark.expected_log(".*")
@pytest.mark.parametrize("seed", range(3))
def test_sizes_are_right_or_errors_while_the_service_fails(tmp_path, seed):
    """Three of ten requests for content fail, bodies are cut; a kill in between."""
    rng = random.Random(seed)
    rules = (
        {"kind": "content", "fail": "cut", "after": 20, "every": 4},
        {"kind": "content", "fail": "status", "status": 503, "every": 5},
    )
    with standing(calls(each=4)) as stand_in:
        told: dict[str, int] = {}
        for again in range(3):
            with mounted(stand_in.url, tmp_path, read_deadline="0.6s") as mount:
                stand_in.faults(*rules)
                paths = [path for path in below_names(mount.point / ".views/by-day") if
                         path.suffix in (".txt", ".srt")]  # fmt: skip
                rng.shuffle(paths)
                for path in paths:
                    _compare(path, told, rng)
                if again == 1:
                    mount.process.kill()
                    mount.process.wait()
        assert len(told) > 20


def below_names(folder: Path) -> list[Path]:
    """Return files by their names alone, without a stat."""
    return [Path(parent, name) for parent, _, names in os.walk(folder) for name in names]


def _compare(path: Path, told: dict[str, int], rng: random.Random) -> None:
    size = data = number = None
    for step in rng.sample(["stat", "read"], 2):
        try:
            if step == "stat":
                size = path.stat().st_size
            else:
                descriptor = os.open(path, os.O_RDONLY)
                try:
                    data = os.read(descriptor, 1 << 20)
                finally:
                    os.close(descriptor)
        except OSError as failed:
            number = failed.errno
    assert number in (None, errno.EIO), path
    for known in (size, len(data) if data is not None else None):
        if known is not None:
            assert known > 0
            assert told.setdefault(path.name, known) == known


@pytest.mark.promise("text-is-the-service-s")
def test_grep_finds_in_texts_what_the_service_has(world, tmp_path):
    stand_in, mount = world
    account = stand_in.service.account
    expected = tmp_path / "expected"
    for path in files(mount.point):
        if "_callcenterrecording_" in path.name:
            number = id_of(path)[:8]
            folder = expected / path.relative_to(mount.point).parent
            folder.mkdir(parents=True, exist_ok=True)
            sides = []
            for side, name in (("1", None), ("2", f"Caller {int(number)}")):
                item = account.item("us-east", f"{number}-{side}")
                said = forms.utterances(item.content.read(0, 1 << 20)) or []
                sides.append([each._replace(speaker=name or item.tags["agentName"])
                              for each in said])  # fmt: skip
            words = render.text_file(forms.merged(sides))
            (folder / f"{path.stem}.txt").write_bytes(words)
            (folder / f"{path.stem}.summary.txt").write_text(f"Summary of hello {int(number)}\n")
            (folder / f"{path.stem}.notes.txt").write_text(f"Note {int(number)}\n")
    before = requests(stand_in)
    for words in ("hello owner", "yes", "Note 1"):
        found = [
            subprocess.run(["grep", "-rc", words, "."], cwd=folder, capture_output=True, text=True)
            for folder in (expected, mount.point / ".views/text")
        ]
        assert sorted(found[0].stdout.splitlines()) == sorted(found[1].stdout.splitlines())
        assert found[1].stderr == ""
    assert requests(stand_in) - before == 12 * 4
    audio = [key for key in stand_in.service.counters.sent if key[1].endswith("-0")]
    assert audio == []


@pytest.mark.expected_log("a form that is not known")
def test_a_form_that_is_not_known_has_no_text(tmp_path):
    account = calls(days=1, each=1)
    odd = text(json.dumps({"words": ["hello"]}))
    change(account, "us-east", "00000000-1", 1, content=odd)
    change(account, "us-east", "00000000-2", 1, content=odd)
    with standing(account) as stand_in, mounted(stand_in.url, tmp_path) as mount:
        day = mount.point / ".views/by-day/2026-03-02"
        with pytest.raises(FileNotFoundError):
            next(p for p in below_names(day) if p.name.endswith("_00000000.txt")).read_bytes()
        for path in below_names(day):
            if path.name.endswith("_00000000.srt"):
                assert [_errno_of(os.stat, path) for _ in range(3)] == [errno.ENOENT] * 3
        time.sleep(1.1)  # names in views are kept for a second
        names = [name for name in os.listdir(day) if "_00000000." in name]
        assert sorted(name.partition("_00000000.")[2] for name in names) == [
            "agentnotes.txt",
            "mp3",
            "notes.txt",
            "summary.json",
            "summary.txt",
            "transcript.external.json",
            "transcript.owner.json",
        ]


def test_no_texts_if_they_are_switched_off(tmp_path):
    with standing(calls(days=1)) as stand_in, mounted(stand_in.url, tmp_path, texts="off") as mount:
        views = mount.point / ".views"
        assert "text" not in os.listdir(views)
        assert not (views / "text").exists()
        assert not any(is_text(path) for path in below(views))
        assert len(below(views / "by-day")) == 6 * 5 + len(LISTS)


# lists


@pytest.mark.promise("size-is-the-text-s")
def test_lists_of_a_day_name_every_object(demo: Demo):
    for day in sorted((demo.point / ".views/by-day").iterdir())[-8:]:
        shown = {
            path.name: path for path in below(day) if path.name not in LISTS and not is_text(path)
        }
        with (day / "calls.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        records = [json.loads(line) for line in (day / "calls.jsonl").read_text().splitlines()]
        assert [row["name"] for row in rows] == sorted(shown)
        for row, record in zip(rows, records, strict=True):
            seen, path = shown[row["name"]], demo.point / row["path"]
            assert path.stat().st_ino == seen.stat().st_ino
            assert row["id"] == record["id"] == id_of(seen)
            assert record["path"] == row["path"]
        for name in LISTS[1:]:
            assert (day / name).stat().st_size == len((day / name).read_bytes()) > 0
        command = ["md5sum", "-c", "--quiet", "MD5SUMS"]
        if (day / "MD5SUMS").exists():
            ran = subprocess.run(command, cwd=day, capture_output=True, text=True)
            assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


@pytest.mark.promise("size-is-the-text-s")
def test_lists_follow_changes(tmp_path):
    with (
        standing(calls(days=1, each=1)) as stand_in,
        mounted(stand_in.url, tmp_path, poll_interval="0.2s") as mount,
    ):
        table = mount.point / ".views/by-day/2026-03-02/calls.csv"
        before = table.read_bytes()
        assert table.stat().st_size == len(before)
        account = stand_in.service.account
        now_ms = stand_in.service.now_ms() // 1000 * 1000
        change(account, "us-east", "00000000-4", now_ms, state="REVOKED")
        until(lambda: _read(table).count("\n") == before.count(b"\n") - 1)
        assert table.stat().st_size == len(table.read_bytes())
        assert "00000000-4" not in table.read_text()
        for item in call(5, account.item("us-east", "00000000-0").created_ms, "=cmd|A1"):
            account.put(replace(item, updated_ms=now_ms + 1000))
        until(lambda: "'=cmd" in _read(table))
        assert table.stat().st_size == len(table.read_bytes())


# reading ahead


def test_who_reads_one_agents_calls_is_brought_nobody_elses(tmp_path):
    """Also by other processes than the one that listed the folder."""
    account = calls(days=2, agents=("Ann Lee", "Bob Ray", "Cy Poe"), each=7)
    for how in ("cat", "xargs"):
        folder = tmp_path / how
        folder.mkdir()
        with standing(account) as stand_in, mounted(stand_in.url, folder) as mount:
            view = mount.point / f".views/by-agent/{MONTH}/Bob-Ray"
            if how == "cat":
                command = f"cd {view} && cat *.mp3 | wc -c"
            else:
                command = f"find {view} -name '*.mp3' | sort | xargs -n1 cat | wc -c"
            ran = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
            assert int(ran.stdout) == 14 * AUDIO_BYTES
            sent = {id for (_, id), each in stand_in.service.counters.sent.items() if each.bytes}
            theirs = {account.item("us-east", id).tags.get("agentName") for id in sent}
            assert theirs <= {"Bob Ray", None}
            assert {id for id in sent if id.endswith("-0")} == {
                item.id for item in account if item.id.endswith("-0")
                and item.tags["agentName"] == "Bob Ray"
            }  # fmt: skip


# attributes


def test_attributes_of_what_the_views_make(world):
    _, mount = world
    day = mount.point / ".views/by-day/2026-03-02"
    found = {
        path.name.partition("_00000000.")[2]: os.getxattr(path, "user.phonofs.type")
        for path in below(day)
        if "_00000000." in path.name and is_text(path)
    }
    assert found == {
        "txt": b"text",
        "srt": b"subtitles",
        "summary.txt": b"summary-text",
        "notes.txt": b"notes-text",
    }
    [words] = [path for path in below(day) if path.name.endswith("_00000000.txt")]
    assert os.getxattr(words, "user.phonofs.made_from") == b"00000000-1 00000000-2"
    assert os.listxattr(words) == os.listxattr(day) == []
    for path, name in [(words, "user.phonofs.id"), (day, "user.phonofs.type")]:
        assert _errno_of(os.getxattr, path, name) == errno.ENODATA


# tools


def test_links_lead_to_days(world):
    _, mount = world
    for name in ("today", "yesterday"):
        target = os.readlink(mount.point / ".views" / name)
        assert target.startswith("../20")
        assert (mount.point / ".views" / name).is_symlink()


def test_tools_copy_a_view(demo: Demo, tmp_path):
    view = demo.point / ".views/text"
    subprocess.run(["cp", "-r", view, tmp_path / "cp"], check=True)
    subprocess.run(["tar", "cf", tmp_path / "tar", "-C", view.parent, "text"], check=True)
    subprocess.run(["tar", "xf", tmp_path / "tar", "-C", tmp_path], check=True)
    for copy in ("cp", "text"):
        different = subprocess.run(["diff", "-r", tmp_path / copy, view], capture_output=True)
        assert different.stdout + different.stderr == b""
    if shutil.which("rsync"):
        command = ["rsync", "-a", f"{view}/", f"{tmp_path / 'cp'}/"]
        subprocess.run(command, check=True)
        again = subprocess.run([*command, "-ni"], capture_output=True, text=True, check=True)
        assert [line for line in again.stdout.splitlines() if line.startswith(">f")] == []


@pytest.mark.skipif(not shutil.which("ffprobe"), reason="ffprobe is not installed")
def test_ffprobe_reads_the_subtitles_of_a_view(demo: Demo):
    [path, *_] = [p for p in below(demo.point / ".views/latest") if p.suffix == ".srt"]
    command = ["ffprobe", "-v", "error", "-of", "json", "-show_packets", path]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert len(json.loads(ran.stdout)["packets"]) == path.read_text().count("-->")


@pytest.mark.skipif(not (shutil.which("mpv") and shutil.which("script")), reason="no mpv")
def test_mpv_shows_the_subtitles_of_a_call_on_a_terminal(demo: Demo):
    """It finds them by itself, and has no other subtitles made."""
    every = below_names(demo.point / ".views/latest")
    audio = next(p for p in every if p.suffix == ".mp3" and p.with_suffix(".srt") in every)
    path = audio.with_suffix(".srt")
    command = f"mpv --no-config --no-video --ao=null --length=2 {shlex.quote(str(audio))}"
    ran = subprocess.run(
        ["script", "-qec", command, "/dev/null"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True, timeout=60,
        env={**os.environ, "TERM": "xterm"},
    )  # fmt: skip
    first = path.read_text().split("\n\n")[0].splitlines()[2:]
    assert all(line in ran.stdout for line in first), ran.stdout
    assert ran.stdout.count("--sid=") == 1


def test_fetch_takes_files_of_a_view(world):
    stand_in, mount = world
    view = mount.point / f".views/by-agent/{MONTH}/Ann-Lee"
    done = phonofs(mount, "fetch", str(view))
    assert done.returncode == 0, done.stderr
    sent = stand_in.service.counters.sent
    assert {id for (_, id), each in sent.items() if each.bytes} == {
        item.id for item in stand_in.service.account if item.tags["callId"] in _calls_of("Ann Lee",
        stand_in)
    }  # fmt: skip


def _calls_of(agent: str, stand_in: StandIn) -> set[str]:
    return {
        item.tags["callId"]
        for item in stand_in.service.account
        if item.tags.get("agentName") == agent
    }
