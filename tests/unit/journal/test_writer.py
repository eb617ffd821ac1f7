"""How the chain goes on after a kill, a power cut, a full disk, a clock that was set back."""

import errno
import os

import msgspec
import pytest

from phonofs.errors import JournalError, UsageError
from phonofs.journal.folder import load_chain
from phonofs.journal.journal import Journal
from phonofs.journal.lines import Event, Line, parse
from phonofs.journal.month_file import RESERVE_BYTES, MonthFile
from phonofs.journal.verification import verify
from phonofs.journal.writer import Writer
from tests.unit.journal.test_verification import DECEMBER, NOVEMBER, opened


def events(path) -> list[str]:
    return [line.event for line in lines(path)]


def lines(path) -> list[Line]:
    raw = b"".join(file.read_bytes() for file in sorted(path.glob("*.jsonl")))
    return [line for line in map(parse, raw.split(b"\n")) if line is not None]


def killed(path, *, at=NOVEMBER) -> Writer:
    """Write an open, and let go of the lock without any last line."""
    writer = Writer(path)
    writer.append([Line(at=at, event=Event.START), opened(1, at)])
    writer.save()
    os.close(writer._lock)
    return writer


def test_after_a_kill_the_chain_goes_on_with_a_gap(tmp_path):
    killed(tmp_path)
    Journal.open(tmp_path, sync_s=1, allow=False).close()
    assert events(tmp_path) == ["start", "open", "gap", "start", "stop"]
    report = verify(tmp_path)
    assert not report.findings
    assert [gap.reason for gap in report.gaps] == [
        "phonofs was not stopped: what the disk had not taken yet is missing"
    ]
    Journal.open(tmp_path, sync_s=1, allow=False).close()
    assert events(tmp_path)[5:] == ["start", "stop"], "it was stopped: no gap"


@pytest.mark.parametrize("cut", range(1, 150, 7))
def test_a_torn_last_line_is_kept_and_followed_by_a_gap(tmp_path, cut):
    writer = Writer(tmp_path)
    writer.append([Line(at=NOVEMBER, event=Event.START)])
    writer.save()
    writer.append([opened(1)])
    os.close(writer._lock)
    os.truncate(writer.file, writer.file.stat().st_size - cut)
    torn = writer.file.read_bytes()
    Journal.open(tmp_path, sync_s=1, allow=False).close()
    assert writer.file.read_bytes() == torn + (b"\n" if not torn.endswith(b"\n") else b"")
    report = verify(tmp_path)
    assert not report.findings
    assert len(report.gaps) == 1
    assert ("a line is not whole" in report.gaps[0].reason) == (cut > 1)


def test_a_torn_line_on_a_full_disk_is_followed_by_a_gap_once_there_is_room(tmp_path, monkeypatch):
    file = killed(tmp_path).file
    with file.open("ab") as appended:
        appended.write(b'{"v":1,"n":3,"at":"2026')

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    writer = Writer(tmp_path)
    with monkeypatch.context() as broken:
        broken.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space left"):
            writer.append([Line(at=NOVEMBER, event=Event.START)])
    writer.append([opened(4)])
    writer.save()
    writer.close()
    report = verify(tmp_path)
    assert not report.findings
    assert "a line is not whole" in report.gaps[0].reason


def test_a_torn_line_that_was_never_synced_breaks_nothing(tmp_path):
    file = killed(tmp_path).file
    with file.open("ab") as appended:
        appended.write(b'{"v":1,"n":3,"at":"2026')
    assert verify(tmp_path).findings == [
        "2025-11.jsonl, line 3 is not whole: it is being written, or was cut"
    ]
    Journal.open(tmp_path, sync_s=1, allow=False).close()
    report = verify(tmp_path)
    assert not report.findings
    assert "a line is not whole" in report.gaps[0].reason
    assert report.end.n == 6, "the torn line has a number, too"


def test_lines_that_a_disk_lost_are_said_to_be_missing(tmp_path):
    file = killed(tmp_path).file
    first = file.read_bytes().splitlines(keepends=True)[0]
    file.write_bytes(first)
    Journal.open(tmp_path, sync_s=1, allow=False).close()
    assert "lines that were written are missing" in verify(tmp_path).gaps[0].reason
    assert verify(tmp_path).findings, "a gap line does not make up for what is missing"


def test_a_clock_that_was_set_back_turns_no_page_back(tmp_path):
    writer = Writer(tmp_path)
    for at in (NOVEMBER, DECEMBER, NOVEMBER):
        writer.append([opened(1, at)])
    writer.save()
    writer.close()
    counts = {file.name: len(file.read_bytes().splitlines()) for file in tmp_path.glob("*.jsonl")}
    assert counts == {"2025-11.jsonl": 1, "2025-12.jsonl": 2}
    assert not verify(tmp_path).findings


def test_space_is_reserved_ahead_and_given_back_at_the_end(tmp_path):
    writer = Writer(tmp_path)
    writer.append([opened(1)])
    writer.sync()
    assert writer.reserve_bytes == RESERVE_BYTES
    file = writer.file
    assert file.stat().st_size < 1000, "the length is that of the lines"
    assert file.stat().st_blocks * 512 >= RESERVE_BYTES
    writer.append([opened(2)])
    assert writer.reserve_bytes < RESERVE_BYTES
    writer.close()
    assert file.stat().st_blocks * 512 < 100_000


def test_a_month_that_is_over_gives_its_space_back(tmp_path):
    writer = Writer(tmp_path)
    writer.append([opened(1, NOVEMBER)])
    writer.sync()
    over = writer.file
    writer.append([opened(2, DECEMBER)])
    assert over.stat().st_blocks * 512 < 100_000
    writer.close()


def test_after_a_kill_at_the_beginning_of_a_month_the_chain_goes_on_from_the_month_before(tmp_path):
    writer = Writer(tmp_path)
    writer.append([opened(1, NOVEMBER)])
    writer.save()
    writer.append([opened(2, NOVEMBER)])
    os.close(writer._lock)
    (tmp_path / "2025-12.jsonl").touch()
    writer = Writer(tmp_path)
    assert writer.append([opened(3, DECEMBER)]) == 4, "behind the line of the gap"
    writer.close()
    report = verify(tmp_path)
    assert not report.findings
    assert len(report.gaps) == 1
    assert set(load_chain(tmp_path).months) == {"2025-11", "2025-12"}


def test_half_a_line_that_a_full_disk_took_is_taken_back(tmp_path, monkeypatch):
    file = MonthFile(tmp_path / "2026-11.jsonl")
    file.append(b"whole\n")
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:3]))
    with pytest.raises(OSError, match="No space left"):
        file.append(b"another\n")
    monkeypatch.undo()
    file.append(b"third\n")
    file.close()
    assert (tmp_path / "2026-11.jsonl").read_bytes() == b"whole\nthird\n"


def test_half_a_line_that_cannot_be_taken_back_is_followed_by_a_gap(tmp_path, monkeypatch):
    """As on a file with the attribute ``a`` (chattr): it may only be appended to."""
    writer = Writer(tmp_path)
    writer.append([Line(at=NOVEMBER, event=Event.START)])

    def refused(*arguments):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    write = os.write
    with monkeypatch.context() as broken:
        broken.setattr(os, "write", lambda fd, data: write(fd, data[:20]))
        broken.setattr(os, "ftruncate", refused)
        with pytest.raises(OSError, match="not permitted"):
            writer.append([opened(1)])
    assert writer.append([opened(2)]) == 4
    writer.save()
    writer.close()
    assert events(tmp_path) == ["start", "gap", "open"]
    assert not verify(tmp_path).findings


def test_a_second_process_is_refused(tmp_path):
    journal = Journal.open(tmp_path / "j", sync_s=1, allow=False)
    with pytest.raises(UsageError, match="in use by another process"):
        Journal.open(tmp_path / "j", sync_s=1, allow=False)
    journal.close()


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match="cannot be used"):
        Journal.open(tmp_path / "file/default", sync_s=1, allow=False)


def test_a_folder_that_others_may_replace_is_refused(tmp_path):
    tmp_path.joinpath("open").mkdir()
    tmp_path.joinpath("open").chmod(0o777)
    with pytest.raises(UsageError, match="others may replace it"):
        Journal.open(tmp_path / "open/default", sync_s=1, allow=False)


def test_a_damaged_note_of_the_chain_is_no_obstacle_but_is_found(tmp_path):
    Journal.open(tmp_path, sync_s=1, allow=False).close()
    (tmp_path / "chain.json").write_bytes(b"{")
    assert any("chain.json" in finding for finding in verify(tmp_path).findings)
    Journal.open(tmp_path, sync_s=1, allow=False).close()
    assert events(tmp_path) == ["start", "stop", "start", "stop"]
    assert not verify(tmp_path).findings


def test_what_is_not_known_is_null_and_what_does_not_apply_is_left_out(tmp_path):
    writer = Writer(tmp_path)
    writer.append([Line(at=NOVEMBER, event=Event.OPEN, uid=None, object="x")])
    writer.close()
    [file] = tmp_path.glob("*.jsonl")
    line = msgspec.json.decode(file.read_bytes().splitlines()[0])
    assert line["uid"] is None
    assert "of" not in line
    assert list(line)[:4] == ["v", "n", "at", "event"]
    assert list(line)[-1] == "prev"
