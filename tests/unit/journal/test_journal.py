"""What an open waits for: its line, a sync, a disk that does not answer."""

import errno
import os
import threading
from contextlib import suppress
from pathlib import Path

import pytest
import trio
import trio.testing

from phonofs.access import Access, Opener
from phonofs.errors import CrawlerRefused, JournalError
from phonofs.journal import journal as journal_module
from phonofs.journal.entry import now_text
from phonofs.journal.journal import Journal
from phonofs.journal.lines import Event, Line
from phonofs.journal.verification import verify
from phonofs.proc import Programs
from tests.support.catalogue_world import make, uuid
from tests.unit.journal.test_verification import opened
from tests.unit.journal.test_writer import events, lines

RECORD = make(uuid(1), "2024-09-03T10:00:00Z", callId="7")
ME = Opener(1000, os.getpid())

pytestmark = pytest.mark.real_clock


async def living(nursery: trio.Nursery, path, *, sync_s: float = 1, allow: bool = False) -> Journal:
    journal = Journal.open(path, sync_s=sync_s, allow=allow)
    await nursery.start(journal.run)
    return journal


class Disk:
    """Has ``os.write`` or ``os.fdatasync`` of the journal fail or wait."""

    def __init__(self, monkeypatch) -> None:
        self.error = 0
        self.writes = self.syncs = 0
        self.in_sync, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()
        self.written_in_thread: list[bool] = []
        self.synced_in_thread: list[bool] = []
        self._write, self._sync = os.write, os.fdatasync
        monkeypatch.setattr("phonofs.journal.month_file.os.write", self.write)
        monkeypatch.setattr("phonofs.journal.month_file.os.fdatasync", self.sync)

    def write(self, descriptor: int, data: bytes) -> int:
        if data.startswith(b"{"):  # else it is not the journal's
            self.writes += 1
            self.written_in_thread.append(threading.current_thread() is not threading.main_thread())
            if self.error:
                raise OSError(self.error, os.strerror(self.error))
        return self._write(descriptor, data)

    def sync(self, descriptor: int) -> None:
        self.in_sync.set()
        assert self.go_on.wait(10)
        self.syncs += 1
        self.synced_in_thread.append(threading.current_thread() is not threading.main_thread())
        self._sync(descriptor)


async def test_a_line_is_written_before_record_returns(tmp_path):
    async with trio.open_nursery() as nursery:
        journal = await living(nursery, tmp_path)
        assert await journal.record([opened(1)]) == 2
        assert await journal.record([opened(2), opened(3)]) == 3
        assert events(tmp_path) == ["start", "open", "open", "open"]
        nursery.cancel_scope.cancel()
    journal.close()
    assert not verify(tmp_path).findings


async def test_opens_that_come_during_a_sync_do_not_wait_for_it(tmp_path, monkeypatch):
    async with trio.open_nursery() as nursery:
        journal = await living(nursery, tmp_path, sync_s=0.01)
        disk = Disk(monkeypatch)
        disk.go_on.clear()
        await journal.record([opened(1)])
        await trio.to_thread.run_sync(disk.in_sync.wait)
        async with trio.open_nursery() as together:
            for number in range(50):
                together.start_soon(journal.record, [opened(number)])
        assert len(events(tmp_path)) == 52
        assert disk.writes <= 4, "they were written together"
        assert disk.written_in_thread[0] is False, "without a sync, in the loop"
        assert set(disk.written_in_thread[1:]) == {True}, "beside a sync, in a thread"
        disk.go_on.set()
        with trio.fail_after(10):
            while not disk.synced_in_thread:  # noqa: ASYNC110 - a thread has no event for us
                await trio.sleep(0.01)
        assert disk.synced_in_thread[0], "the loop never waits for a sync"
        nursery.cancel_scope.cancel()
    journal.close()
    assert not verify(tmp_path).findings


async def test_with_a_sync_of_0_each_open_is_on_disk_and_those_that_wait_share_one(
    tmp_path, monkeypatch
):
    async with trio.open_nursery() as nursery:
        journal = await living(nursery, tmp_path, sync_s=0)
        disk = Disk(monkeypatch)
        disk.go_on.clear()
        done = []

        async def one(number: int) -> None:
            await journal.record([opened(number)])
            done.append(number)

        async with trio.open_nursery() as together:
            for number in range(20):
                together.start_soon(one, number)
            await trio.to_thread.run_sync(disk.in_sync.wait)
            await trio.sleep(0.05)
            assert done == []
            disk.go_on.set()
        assert len(done) == 20
        assert disk.syncs <= 3
        nursery.cancel_scope.cancel()
    journal.close()


@pytest.mark.parametrize("runs_again", [False, True])
async def test_what_a_cancelled_task_was_about_to_write_is_written_later(
    tmp_path, monkeypatch, runs_again
):
    async with trio.open_nursery() as nursery:
        journal = await living(nursery, tmp_path, sync_s=60)
        number = await journal.record([opened(1)])
        monkeypatch.setattr(journal._writer, "ready", lambda at: False)  # as in a new month

        def cancel(entries) -> list:
            nursery.cancel_scope.cancel()
            return _lines(entries)

        _lines = journal_module.all_lines
        monkeypatch.setattr(journal_module, "all_lines", cancel)
        journal.note(Line(at=now_text(), event=Event.CLOSE, of=number))
        await journal.record([opened(2)])
    monkeypatch.undo()
    if runs_again:
        async with trio.open_nursery() as nursery:
            await nursery.start(journal.run)
            with trio.fail_after(10):
                while len(events(tmp_path)) < 3:  # noqa: ASYNC110 - a thread has no event for us
                    await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
    journal.close()
    assert events(tmp_path) == ["start", "open", "close", "stop"], "nor what nothing is opened by"


@pytest.mark.promise("journal-before-bytes")
@pytest.mark.expected_log("cannot be written", "is written again")
async def test_if_it_cannot_be_written_nothing_is_granted(tmp_path, monkeypatch, expected_log):
    monkeypatch.setattr(journal_module, "RETRY_S", 0.05)
    async with trio.open_nursery() as nursery:
        journal = await living(nursery, tmp_path)
        access = Access(journal)
        disk = Disk(monkeypatch)
        disk.error = errno.ENOSPC
        for _ in range(5):
            with pytest.raises(JournalError, match=r"No space left on device\): nothing is opened"):
                await access.grant(ME, [RECORD])
        assert "nothing is opened until it can" in access.condition()
        status = access.journal_statistics()
        assert (status["state"], status["failures"] >= 1) == ("failing", True)
        disk.error = 0
        await trio.sleep(0.06)
        assert await access.grant(ME, [RECORD])
        assert access.condition() == ""
        nursery.cancel_scope.cancel()
    journal.close()
    assert events(tmp_path) == ["start", "gap", "open", "stop"]
    assert not verify(tmp_path).findings
    assert len([line for line in expected_log.seen if "cannot be written" in line]) == 1


@pytest.mark.expected_log("cannot be written", "is written again")
async def test_with_allow_files_are_opened_and_the_gap_says_how_many(tmp_path, monkeypatch):
    monkeypatch.setattr(journal_module, "RETRY_S", 0.05)
    async with trio.open_nursery() as nursery:
        journal = await living(nursery, tmp_path, allow=True)
        access = Access(journal)
        disk = Disk(monkeypatch)
        disk.error = errno.EIO
        for _ in range(4):
            assert await access.grant(ME, [RECORD]) == ()
        assert "opens are not recorded until it can" in access.condition()
        disk.error = 0
        await trio.sleep(0.06)
        assert await access.grant(ME, [RECORD])
        assert access.journal_statistics()["unrecorded"] == 4
        nursery.cancel_scope.cancel()
    journal.close()
    gap = next(line for line in lines(tmp_path) if line.event == "gap")
    assert (gap.opens, gap.reason) == (4, "the journal could not be written")


@pytest.mark.expected_log("cannot be written", "is written again")
async def test_a_disk_that_does_not_answer_is_not_waited_for_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr(journal_module, "WRITE_S", 0.1)
    async with trio.open_nursery() as nursery:
        journal = await living(nursery, tmp_path, sync_s=0)
        disk = Disk(monkeypatch)
        disk.go_on.clear()
        with pytest.raises(JournalError, match=r"no answer within 0\.1 s"):
            await journal.record([opened(1)])
        disk.go_on.set()
        nursery.cancel_scope.cancel()
    journal.close()


class HangingDisk(Disk):
    """Writes wait, too, while ``go_on`` is not set."""

    def write(self, descriptor: int, data: bytes) -> int:
        if data.startswith(b"{"):
            self.in_sync.set()
            assert self.go_on.wait(10)
        return super().write(descriptor, data)


async def hanging(journal: Journal, disk: HangingDisk, nursery: trio.Nursery) -> list[object]:
    """Have a write hang in the thread; return what becomes of the open that waits for it."""
    outcome: list[object] = []

    async def record() -> None:
        try:
            outcome.append(await journal.record([opened(1)]))
        except JournalError as error:
            outcome.append(str(error))

    disk.go_on.clear()
    journal._writer.mark_broken()  # so that the next write is one for the thread
    nursery.start_soon(record)
    await trio.to_thread.run_sync(disk.in_sync.wait)
    return outcome


@pytest.mark.expected_log("cannot be written", "is written again")
@pytest.mark.parametrize("allow", [False, True])
async def test_while_a_write_hangs_one_open_waits_and_the_others_are_answered_at_once(
    tmp_path, monkeypatch, allow
):
    async with trio.open_nursery() as nursery:
        journal = await living(nursery, tmp_path, sync_s=0.01, allow=allow)
        disk = HangingDisk(monkeypatch)
        monkeypatch.setattr(journal_module, "WRITE_S", 0.2)
        outcome = await hanging(journal, disk, nursery)
        with trio.fail_after(10):
            while not outcome:  # noqa: ASYNC110 - the record of another task has no event for us
                await trio.sleep(0.01)
        waits = journal.waits
        monkeypatch.setattr(journal_module, "WRITE_S", 1000)
        with trio.fail_after(10):
            for number in range(2, 5):
                if allow:
                    assert await journal.record([opened(number)]) == 0
                else:
                    with pytest.raises(JournalError, match="no answer within"):
                        await journal.record([opened(number)])
        assert journal.waits == waits, "none of them waited"
        disk.go_on.set()
        with trio.fail_after(10):
            while journal._stuck:  # noqa: ASYNC110 - likewise
                await trio.sleep(0.01)
            while journal.statistics()["state"] != "on":
                with suppress(JournalError):
                    await journal.record([opened(5)])
                await trio.sleep(0.05)
        nursery.cancel_scope.cancel()
    journal.close()
    found = lines(tmp_path)
    assert not verify(tmp_path).findings
    ids = [line.object for line in found if line.event == Event.OPEN]
    assert not {opened(number).object for number in (2, 3, 4)} & set(ids)
    closes = [line.of for line in found if line.event == Event.CLOSE]
    hung = [line.n for line in found if line.object == opened(1).object]
    if allow:
        assert sum(line.opens or 0 for line in found if line.event == Event.GAP) == 3
        assert closes == []
    else:
        assert closes == hung, "the line of an open that was refused has its end"


@pytest.mark.expected_log("has no last line")
@pytest.mark.parametrize("call", ["write", "sync"])
async def test_the_end_does_not_wait_for_a_call_that_hangs(tmp_path, monkeypatch, call):
    """Only for a while; the next start tells of a gap."""
    monkeypatch.setattr(journal_module, "WRITE_S", 0.2)
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            journal = await living(nursery, tmp_path, sync_s=0.01)
            disk = HangingDisk(monkeypatch) if call == "write" else Disk(monkeypatch)
            if call == "write":
                await hanging(journal, disk, nursery)
            else:
                disk.go_on.clear()
                await journal.record([opened(1)])
                await trio.to_thread.run_sync(disk.in_sync.wait)
            nursery.cancel_scope.cancel()
        await journal.aclose()
    disk.go_on.set()
    assert "stop" not in events(tmp_path)


@pytest.mark.expected_log("cannot be written", "is written again")
async def test_lines_that_are_dropped_after_a_failure_leave_a_gap(tmp_path, monkeypatch):
    """Though the disk went on, and nobody waited for them."""
    monkeypatch.setattr(journal_module, "WRITE_S", 0.1)
    monkeypatch.setattr(journal_module, "RETRY_S", 1000)
    async with trio.open_nursery() as nursery:
        journal = await living(nursery, tmp_path, sync_s=0)
        disk = Disk(monkeypatch)
        disk.go_on.clear()
        with pytest.raises(JournalError, match="no answer within"):
            await journal.record([opened(1)])
        disk.go_on.set()
        with trio.fail_after(10):
            while journal._pending:  # noqa: ASYNC110 - a thread has no event for us
                await trio.sleep(0.01)
        assert events(tmp_path) == ["start", "open"], "the end of the open was dropped"
        journal._retry_at_s = 0.0
        await journal.record([opened(2)])
        nursery.cancel_scope.cancel()
    journal.close()
    assert events(tmp_path) == ["start", "open", "gap", "open", "stop"]
    assert not verify(tmp_path).findings


@pytest.mark.expected_log("cannot be written", "is written again")
async def test_a_denial_that_cannot_be_recorded_meanwhile_leaves_a_gap(tmp_path, monkeypatch):
    monkeypatch.setattr(journal_module, "WRITE_S", 0.1)
    monkeypatch.setattr(journal_module, "RETRY_S", 0)
    async with trio.open_nursery() as nursery:
        journal = await living(nursery, tmp_path, sync_s=0)
        disk = Disk(monkeypatch)
        disk.go_on.clear()
        with pytest.raises(JournalError, match="no answer within"):
            await journal.record([opened(1)])
        await Access(journal).archived(ME, RECORD)
        monkeypatch.setattr(journal_module, "WRITE_S", 10)
        disk.go_on.set()
        with trio.fail_after(10):
            while journal._stuck or journal._pending:  # noqa: ASYNC110 - likewise
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    journal.close()
    assert "gap" in events(tmp_path)
    assert not verify(tmp_path).findings


@pytest.mark.expected_log("has no last line")
async def test_the_end_waits_for_a_hanging_disk_for_a_while_only(tmp_path, monkeypatch):
    monkeypatch.setattr(journal_module, "WRITE_S", 0.1)
    async with trio.open_nursery() as nursery:
        journal = await living(nursery, tmp_path)
        nursery.cancel_scope.cancel()
    disk = HangingDisk(monkeypatch)
    disk.go_on.clear()
    with trio.fail_after(20):
        await journal.aclose()
    assert events(tmp_path) == ["start"]
    disk.go_on.set()


async def test_an_open_that_is_cancelled_as_it_waits_leaves_no_line_without_its_end(
    tmp_path, monkeypatch
):
    async with trio.open_nursery() as nursery:
        journal = await living(nursery, tmp_path, sync_s=0.01)
        disk = HangingDisk(monkeypatch)
        async with trio.open_nursery() as opens:
            await hanging(journal, disk, opens)
            opens.start_soon(journal.record, [opened(2)])
            await trio.testing.wait_all_tasks_blocked()
            opens.cancel_scope.cancel()
        disk.go_on.set()
        await journal.record([opened(3)])
        nursery.cancel_scope.cancel()
    journal.close()
    found = lines(tmp_path)
    opens_ = [(line.n, line.object) for line in found if line.event == Event.OPEN]
    assert [id for _, id in opens_] == [opened(1).object, opened(3).object]
    assert [line.of for line in found if line.event == Event.CLOSE] == [opens_[0][0]]
    assert not verify(tmp_path).findings


@pytest.mark.expected_log("cannot be written", "is written again")
async def test_a_sync_that_fails_refuses_who_waits_for_it(tmp_path, monkeypatch):
    monkeypatch.setattr(journal_module, "RETRY_S", 0.05)
    async with trio.open_nursery() as nursery:
        journal = await living(nursery, tmp_path, sync_s=0)

        def fail(descriptor: int) -> None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        with monkeypatch.context() as broken:
            broken.setattr("phonofs.journal.month_file.os.fdatasync", fail)
            with pytest.raises(JournalError, match="Input/output error"):
                await journal.record([opened(1)])
        await trio.sleep(0.06)
        await journal.record([opened(2)])
        nursery.cancel_scope.cancel()
    journal.close()
    assert events(tmp_path) == ["start", "open", "gap", "open", "stop"]
    assert not verify(tmp_path).findings


async def test_lines_of_opens_and_closes(tmp_path):
    async with trio.open_nursery() as nursery:
        journal = await living(nursery, tmp_path)
        access = Access(journal, crawlers=["a-crawler"])
        numbers = await access.grant(ME, [RECORD])
        handle = object()
        access.opened(handle, numbers)
        access.closed(handle, 123)
        access.closed(handle, 123)
        await access.archived(ME, RECORD)
        nursery.cancel_scope.cancel()
    journal.close()
    _, opening, closing, archived, _ = lines(tmp_path)
    assert (opening.object, opening.call, opening.type) == (uuid(1), "7", "callrecording")
    assert (opening.uid, opening.pid, opening.how) == (1000, os.getpid(), "mount")
    assert (closing.of, closing.bytes_at_least) == (opening.n, 123)
    assert archived.result == "archived"


async def test_who_is_not_known_is_not_a_crawler(tmp_path):
    """A process that has gone, is hidden, or lives outside of our name space."""
    access = Access(None, crawlers=["tumblerd"])
    for pid in (0, -1, 2**22 + 1):
        assert await access.grant(Opener(1000, pid), [RECORD]) == ()
    assert access.statistics() == {"by_program": {}, "refused": {}}


async def test_a_crawler_is_known_by_the_first_15_characters(tmp_path):
    comm = Path("/proc/self/comm").read_text()
    try:
        Path("/proc/self/comm").write_text("ffmpegthumbnailer")
        access = Access(None, crawlers=["ffmpegthumbnailer"])
        with pytest.raises(CrawlerRefused):
            await access.grant(ME, [RECORD])
        assert access.statistics()["refused"] == {"ffmpegthumbnail": 1}
    finally:
        Path("/proc/self/comm").write_text(comm.strip())


def test_without_journal_and_crawlers_nobody_is_looked_at(monkeypatch):
    monkeypatch.setattr(Programs, "look", lambda *_: pytest.fail("looked"))
    assert trio.run(Access().grant, ME, [RECORD]) == ()


@pytest.mark.expected_log("has no words of searches")
async def test_a_damaged_key_of_the_words_costs_the_words_and_nothing_else(tmp_path):
    for word in ("agent=jo", "agent=jo\udcff"):
        journal = Journal.open(tmp_path, sync_s=1, allow=False)
        [first, second] = journal.hashed([word, "agent=ann"])
        journal.close()
        assert first != second
    (tmp_path / "search.key").write_bytes(b"short")
    async with trio.open_nursery() as nursery:
        journal = await living(nursery, tmp_path)
        access = Access(journal)
        access.searched(access.search(ME, ["agent=jo"]), 3)
        await access.grant(ME, [RECORD])
        nursery.cancel_scope.cancel()
    journal.close()
    [line] = [line for line in lines(tmp_path) if line.event == Event.SEARCH]
    assert (line.words, line.results, line.pid) == (None, 3, os.getpid())
    assert (tmp_path / "search.key").read_bytes() == b"short", "an older line may still need it"
    assert not verify(tmp_path).findings
