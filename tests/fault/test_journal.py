"""The journal against kills at every point of an open, and against a disk that fills up."""

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from phonofs.errors import JournalError, StaleInode, Unavailable
from phonofs.fakeservice.account import change
from phonofs.journal.lines import Line, parse
from phonofs.journal.month_file import RESERVE_BYTES
from phonofs.journal.verification import verify
from tests.fault.scene import PATIENCE, fast, living, standing
from tests.fault.test_disk import tmpfs
from tests.support import killed_open
from tests.support.accounts import NOON_MS, flat
from tests.support.calls import calls

ROOT = Path(__file__).resolve().parents[2]
KILLS = 100
"""In each of two modes; the long run kills at every line."""


@contextlib.contextmanager
def killing(folder: Path, sync_s: float) -> Iterator[subprocess.Popen[str]]:
    """Start the process whose children are killed."""
    command = [sys.executable, "-m", killed_open.__name__, str(folder), str(sync_s)]
    process = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def kill_at(process: subprocess.Popen[str], line: int) -> dict:
    """Have a child killed at a line; return what it gave before."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{line}\n")
    process.stdin.flush()
    answer = json.loads(process.stdout.readline())
    assert not answer["failed"]
    return answer


def lines_of(folder: Path) -> list[Line]:
    raw = b"".join(file.read_bytes() for file in sorted((folder / "journal").rglob("*.jsonl")))
    return [line for line in map(parse, raw.split(b"\n")) if line is not None]


def opens(folder: Path) -> list[Line]:
    return [line for line in lines_of(folder) if line.event == "open"]


@pytest.mark.promise("journal-before-bytes")
@pytest.mark.parametrize("sync_s", [1, 0])
@pytest.mark.parametrize("most", [KILLS, pytest.param(100_000, marks=pytest.mark.slow)])
def test_kills_at_every_point_of_an_open(tmp_path, sync_s, most):
    """Each granted byte has its line, wherever the process was killed: in each thread, too."""
    with killing(tmp_path, sync_s) as process:
        whole = kill_at(process, -1)
        assert len(whole["given"]) == killed_open.FILES
        assert not whole["killed"]
        points = whole["lines"]
        assert points > 100
        kills = given = 0
        most = min(most, points)
        for number in range(most):
            before = len(opens(tmp_path))
            answer = kill_at(process, 1 + number * points // most)
            granted = [line.object for line in opens(tmp_path)[before:]]
            assert set(answer["given"]) <= set(granted), number
            assert len(granted) <= len(answer["given"]) + 1, "and no line is made up"
            kills += answer["killed"]
            given += len(answer["given"])
    assert kills >= most * 0.9, "threads make the last points a little uncertain"
    assert given > most // 2, "some were killed after bytes were given"
    report = verify(tmp_path / "journal")
    assert not report.findings
    assert len(report.gaps) >= kills - 1


@pytest.mark.promise("journal-before-bytes")
@pytest.mark.expected_log("is short", "cannot be written", "is written again")
@fast
async def test_a_disk_that_fills_up(tmp_path, expected_log):
    """It warns at once, and refuses only once the reserve is used up: no open without a line."""
    with tmpfs(tmp_path / "disk", "20m"):
        async with standing(flat(1000)) as service:
            options = {"journal": str(tmp_path / "disk/journal"), "journal_sync": "100ms"}
            async with living(service, tmp_path, **options) as scene:
                [ino] = (await scene.tree()).values()
                status = scene.app.vfs._status
                assert status()["journal"]["reserve_bytes"] == RESERVE_BYTES
                filler = tmp_path / "disk/filler"
                with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
                    while file.write(bytes(65536)):
                        pass
                granted = 0
                refused = ""
                while not refused and granted < 60_000:
                    try:
                        scene.vfs.release(await scene.vfs.open(ino))
                    except JournalError as error:
                        refused = str(error)
                    else:
                        granted += 1
                    if granted % 1000 == 0:
                        await trio.sleep(0.2)
                assert "No space left on device" in refused
                assert any("is short" in line for line in expected_log.seen)
                assert granted > 10_000, "the reserve held that many"
                assert "nothing is opened until it can" in scene.app.status.condition()
                folder = tmp_path / "disk/journal/default"
                lines = sum(
                    b'"open"' in line
                    for file in folder.glob("*.jsonl")
                    for line in file.read_bytes().split(b"\n")
                )
                assert lines == granted
                with pytest.raises(JournalError):
                    await scene.vfs.open(ino)
                filler.unlink()
                for _ in range(PATIENCE * 10):
                    with contextlib.suppress(JournalError):
                        scene.vfs.release(await scene.vfs.open(ino))
                        break
                    await trio.sleep(1)
                assert scene.app.status.document()["journal"]["state"] == "on"
        report = verify(folder)
        assert not report.findings
        assert [gap.reason for gap in report.gaps] == ["the journal could not be written"]


@pytest.mark.promise("journal-before-bytes")
@fast
async def test_an_open_that_was_granted_and_failed_has_its_close(tmp_path):
    """A text cannot be made, and nobody has a handle that could be closed."""
    async with standing(calls()) as service:
        options = {"journal": str(tmp_path / "journal"), "read_deadline": "1s"}
        async with living(service, tmp_path, **options) as scene:
            day = await scene.vfs.walk(".views/by-day/2026-03-02")
            entries = (await scene.vfs.open_folder(day.ino)).entries
            text = next(entry for entry in entries if entry.name.endswith(".srt"))
            scene.faults({"kind": "content", "fail": "status", "status": 503})
            with pytest.raises(Unavailable):
                await scene.vfs.open_text(text.ino)
    granted = opens(tmp_path)
    assert [(line.result, line.kind) for line in granted] == [("granted", "subtitles")] * 2
    closes = [line for line in lines_of(tmp_path) if line.event == "close"]
    assert [(line.of, line.bytes_at_least) for line in closes] == [(line.n, 0) for line in granted]


@fast
async def test_an_object_that_went_while_its_line_was_written_is_not_opened(tmp_path, monkeypatch):
    account = flat(1000)
    async with (
        standing(account) as service,
        living(service, tmp_path, journal=str(tmp_path / "journal")) as scene,
    ):
        [ino] = (await scene.tree()).values()
        journal = scene.app.journal

        async def record(lines):
            [item] = account
            change(account, item.region, item.id, NOON_MS + 1000, state="REVOKED")
            await scene.app.follower.poll(item.region)
            journal.waits += 1
            return await type(journal).record(journal, lines)

        monkeypatch.setattr(journal, "record", record)
        with pytest.raises(StaleInode):
            await scene.vfs.open(ino)
    assert [line.event for line in lines_of(tmp_path)] == ["start", "open", "close", "stop"]


@pytest.mark.expected_log("cannot be written")
@fast
async def test_a_disk_without_room_from_the_start(tmp_path):
    with tmpfs(tmp_path / "disk", "4k"):
        filler = tmp_path / "disk/filler"
        with contextlib.suppress(OSError):
            filler.write_bytes(bytes(4096))
        async with standing(flat(1000)) as service:
            with pytest.raises(JournalError, match="No space left on device"):
                async with living(service, tmp_path, journal=str(tmp_path / "disk/journal")):
                    pass


@fast
async def test_a_start_that_waits_for_the_disk_of_the_journal_can_be_ended(tmp_path, monkeypatch):
    begun, go_on = threading.Event(), threading.Event()

    def hang(settings) -> None:
        begun.set()
        go_on.wait(20)

    async def start(service) -> None:
        async with living(service, tmp_path, journal=str(tmp_path / "journal")):
            pass

    monkeypatch.setattr("phonofs.app._journal", hang)
    async with standing(flat(1000)) as service:
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(start, service)
                await trio.to_thread.run_sync(begun.wait)
                nursery.cancel_scope.cancel()
    go_on.set()
