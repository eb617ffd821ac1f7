"""A journal that was changed, and what ``verify`` says of it."""

import os
import random

import pytest

from phonofs.errors import UsageError
from phonofs.journal.journal import Journal
from phonofs.journal.lines import Event, Line, Result
from phonofs.journal.verification import verify
from phonofs.journal.writer import Writer

NOVEMBER, DECEMBER = "2025-11-30T23:59:59.000Z", "2025-12-01T00:00:00.000Z"


def opened(number: int, at: str = NOVEMBER) -> Line:
    return Line(
        at=at, event=Event.OPEN, result=Result.GRANTED, object=f"id-{number}", region="us-east"
    )


def written(path, months=(NOVEMBER, DECEMBER), opens=5):
    """Write a journal of some months, stopped as it should be; return the files."""
    writer = Writer(path)
    writer.append([Line(at=months[0], event=Event.START)])
    for month in months:
        for number in range(opens):
            writer.append([opened(number, month)])
    writer.append([Line(at=months[-1], event=Event.STOP)])
    writer.sync()
    writer.save()
    writer.close()
    return sorted(path.glob("*.jsonl"))


def test_a_whole_chain_goes_on_from_month_to_month(tmp_path):
    files = written(tmp_path / "j")
    assert [file.name for file in files] == ["2025-11.jsonl", "2025-12.jsonl"]
    report = verify(tmp_path / "j")
    assert (report.findings, report.gaps) == ([], [])
    assert (report.lines, report.months, report.first, report.end.n) == (12, 2, 1, 12)
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    assert (tmp_path / "j").stat().st_mode & 0o777 == 0o700


@pytest.mark.promise("journal-shows-changes")
def test_one_flipped_bit_is_found_wherever_it_is(tmp_path):
    for file in written(tmp_path / "j", opens=1):
        content = file.read_bytes()
        for place in range(len(content)):
            for bit in range(8) if place % 50 == 0 else (place % 8,):
                changed = bytearray(content)
                changed[place] ^= 1 << bit
                file.write_bytes(changed)
                assert verify(tmp_path / "j").findings, (file.name, place, bit)
        file.write_bytes(content)
    assert not verify(tmp_path / "j").findings


@pytest.mark.promise("journal-shows-changes")
def test_one_line_removed_is_found_whichever_it_is(tmp_path):
    for file in written(tmp_path / "j"):
        content = file.read_bytes()
        lines = content.splitlines(keepends=True)
        for number in range(len(lines)):
            file.write_bytes(b"".join(lines[:number] + lines[number + 1 :]))
            assert verify(tmp_path / "j").findings, (file.name, number)
        file.write_bytes(content)


@pytest.mark.promise("journal-shows-changes")
def test_one_line_moved_or_repeated_is_found_wherever_it_goes(tmp_path):
    files = written(tmp_path / "j")
    for file in files:
        content = file.read_bytes()
        lines = content.splitlines(keepends=True)
        for number, line in enumerate(lines):
            others = lines[:number] + lines[number + 1 :]
            for place in range(len(lines)):
                if place != number:
                    file.write_bytes(b"".join([*others[:place], line, *others[place:]]))
                    assert verify(tmp_path / "j").findings, (file.name, number, place)
            file.write_bytes(b"".join([*lines[:number], line, *lines[number:]]))
            assert verify(tmp_path / "j").findings
        file.write_bytes(content)
    last = files[0].read_bytes().splitlines(keepends=True)
    files[0].write_bytes(b"".join(last[:-1]))
    files[1].write_bytes(last[-1] + files[1].read_bytes())
    assert verify(tmp_path / "j").findings, "from one month to the next"


@pytest.mark.promise("journal-shows-changes")
def test_months_that_were_moved_away_are_not_missed_and_can_be_brought_back(tmp_path):
    path = tmp_path / "j"
    first, second = written(path)
    archived = first.read_bytes()
    first.unlink()
    report = verify(path)
    assert (report.findings, report.first, report.end.n) == ([], 7, 12)
    second_content = second.read_bytes()
    second.unlink()
    assert (verify(path).lines, verify(path).findings) == (0, [])
    journal = Journal.open(path, sync_s=1, allow=False)
    journal.close()
    report = verify(path)
    assert (report.findings, report.first, report.gaps) == ([], 13, [])
    first.write_bytes(archived)
    newest = max(path.glob("*.jsonl")).name
    assert verify(path).findings == [f"lines 7 to 12 are missing before {newest}"]
    second.write_bytes(second_content)
    assert verify(path).findings == []


def test_a_hash_that_was_kept_elsewhere_shows_a_chain_that_is_all_new(tmp_path):
    path = tmp_path / "j"
    written(path)
    kept = verify(path).end.hash
    assert not verify(path, kept).findings
    for file in path.iterdir():
        file.unlink()
    written(path, opens=6)
    assert not verify(path).findings, "whoever owns the files can do this"
    assert verify(path, kept).findings == [f"no line has the hash {kept}"]


def test_any_bytes_are_verified(tmp_path):
    """Whatever is in the files, there is an answer."""
    (tmp_path / "j").mkdir()
    for seed in range(200):
        chosen = random.Random(seed)
        content = chosen.randbytes(chosen.randrange(400)) + b"\n" * chosen.randrange(3)
        (tmp_path / "j/2026-11.jsonl").write_bytes(content)
        assert verify(tmp_path / "j").findings


def test_a_journal_that_is_not_there(tmp_path):
    with pytest.raises(UsageError, match="there is no journal at"):
        verify(tmp_path / "j")


@pytest.mark.promise("journal-shows-changes")
def test_a_flip_in_the_last_line_after_a_kill_shows_against_a_hash_that_was_kept(tmp_path):
    """No line follows it, and ``chain.json`` ends before it."""
    writer = Writer(tmp_path)
    writer.append([Line(at=NOVEMBER, event=Event.START)])
    writer.save()
    writer.append([opened(1)])
    kept = writer.end.hash
    os.close(writer._lock)  # as a kill does
    assert not verify(tmp_path, kept).findings
    [file] = tmp_path.glob("*.jsonl")
    file.write_bytes(file.read_bytes().replace(b'"granted"', b'"refused"'))
    assert not verify(tmp_path).findings, "nothing here can tell"
    assert verify(tmp_path, kept).findings == [f"no line has the hash {kept}"]
