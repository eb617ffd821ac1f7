"""Runs of an export: complete or said, again, updated, pruned, and killed at any point."""

import csv
import errno
import hashlib
import json
import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from phonofs.errors import UsageError
from phonofs.export import batch as batch_module
from phonofs.export.contents import NotCopied, Reason
from phonofs.export.destination import Destination
from tests.support.accounts import NOON_MS
from tests.support.export_world import DAY, Account, export, tree


@pytest.fixture(autouse=True)
def unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait for the disk: the tests are about the order of steps."""
    monkeypatch.setattr(Destination, "sync", lambda self: None)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    monkeypatch.setattr(os, "fdatasync", lambda descriptor: None)


@pytest.fixture
def account() -> Account:
    account = Account()
    for number in range(5):
        account.add(f"{number:08d}", 2000 + number)
    account.texts_by_path[f"{DAY}/00000000.txt"] = ("00000000.mp3", b"[00:01] Ann: hello\n")
    account.texts_by_path[f"{DAY}/00000000.srt"] = ("00000000.mp3", b"1\n")
    return account


def expected(account: Account) -> dict[str, bytes]:
    objects = {path: each.content for path, each in account.objects.items()}
    return objects | {path: content for path, (_, content) in account.texts_by_path.items()}


def missing(path: Path) -> list[dict[str, str]]:
    with (path / "missing.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def manifest(path: Path) -> list[dict[str, str]]:
    with (path / "manifest.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.promise("export-complete-or-said")
def test_all_that_was_chosen_is_there_checked_and_listed(account, tmp_path):
    run = export(account, tmp_path)
    assert not run.missing
    assert tree(tmp_path) == expected(account)
    assert missing(tmp_path) == []
    assert [row["check"] for row in manifest(tmp_path)] == ["md5"] * 5
    sums = dict(
        reversed(line.split("  ", 1)) for line in (tmp_path / "SHA256SUMS").read_text().splitlines()
    )
    assert sums == {
        path: hashlib.sha256(content).hexdigest() for path, content in expected(account).items()
    }
    assert json.loads((tmp_path / "export.json").read_text())["complete"] is True
    assert not (tmp_path / ".phonofs-export").exists()
    assert (tmp_path / f"{DAY}/00000000.mp3").stat().st_mtime == NOON_MS / 1000
    assert (tmp_path / f"{DAY}/00000000.mp3").stat().st_mode & 0o777 == 0o600


@pytest.mark.promise("export-complete-or-said")
def test_what_is_missing_is_said_with_its_reason(account, tmp_path):
    archived = account.add("archived", state="ARCHIVED")
    refused = account.add("refused")
    account.objects[refused].failure = NotCopied(Reason.REFUSED, "not for this key")
    wrong = account.add("wrong")
    account.objects[wrong].content = b"x" * 3000
    short = account.add("short")
    account.objects[short].content = account.objects[short].content[:-1]
    export(account, tmp_path)
    assert {row["path"]: row["reason"] for row in missing(tmp_path)} == {
        archived: "archived",
        refused: "refused",
        wrong: "wrong checksum",
        short: "wrong length",
    }
    assert {archived, refused, wrong, short}.isdisjoint(tree(tmp_path))
    assert len(manifest(tmp_path)) == 5
    assert json.loads((tmp_path / "export.json").read_text())["complete"] is False


def test_without_a_checksum_the_length_is_compared_and_that_is_said(account, tmp_path):
    account.add("plain", checksum="")
    account.add("parts", checksum="0123456789abcdef0123456789abcdef-3")
    account.add("one", multipart_bytes=1 << 20)
    export(account, tmp_path)
    checks = {row["id"]: row["check"] for row in manifest(tmp_path)}
    assert [checks[id] for id in ("plain", "parts", "one")] == ["length", "length", "md5"]


def test_a_checksum_in_parts_of_a_usual_size_is_checked(tmp_path):
    account = Account()
    account.add("parts", (10 << 20) + 5, multipart_bytes=5 << 20)
    export(account, tmp_path)
    assert [row["check"] for row in manifest(tmp_path)] == ["md5"]


def test_a_second_run_reads_nothing(account, tmp_path):
    export(account, tmp_path)
    account.opens = 0
    first = tree(tmp_path)
    run = export(account, tmp_path, update=True)
    assert account.opens == 0
    assert run.counts["copied"] == 0
    assert run.counts["kept"] == 7
    assert tree(tmp_path) == first


def test_a_file_that_was_damaged_or_removed_is_copied_again(account, tmp_path):
    export(account, tmp_path)
    (tmp_path / f"{DAY}/00000001.mp3").write_bytes(b"short")
    (tmp_path / f"{DAY}/00000002.mp3").unlink()
    assert export(account, tmp_path).counts["copied"] == 2
    assert tree(tmp_path) == expected(account)


def test_a_file_system_with_coarse_times_is_no_reason_to_copy_again(account, tmp_path):
    export(account, tmp_path)
    for path in tmp_path.rglob("*.*"):
        if path.is_file():
            even = path.stat().st_mtime_ns // 2_000_000_000 * 2_000_000_000
            os.utime(path, ns=(even, even))
    assert export(account, tmp_path, update=True).counts["copied"] == 0


def test_what_failed_and_may_pass_is_tried_again(account, tmp_path):
    path = f"{DAY}/00000003.mp3"
    failing = account.objects[path]
    failing.failure = NotCopied(Reason.UNAVAILABLE, "late")

    def again(paths):
        failing.failure = None
        return Account.again(account, paths)

    account.again = again
    assert not export(account, tmp_path).missing
    assert tree(tmp_path) == expected(account)


def test_what_failed_and_was_gone_at_the_next_try_is_missing(account, tmp_path):
    path = f"{DAY}/00000003.mp3"
    account.objects[path].failure = NotCopied(Reason.UNAVAILABLE, "late")

    def again(paths):
        account.objects.pop(path, None)
        return Account.again(account, paths)

    account.again = again
    run = export(account, tmp_path)
    assert [(each.path, each.reason) for each in run.missing] == [(path, Reason.UNAVAILABLE)]


def test_a_file_that_was_removed_and_cannot_be_copied_again_is_in_no_list(account, tmp_path):
    export(account, tmp_path)
    path = f"{DAY}/00000003.mp3"
    (tmp_path / path).unlink()
    account.objects[path].failure = NotCopied(Reason.REFUSED, "no")
    assert [each.path for each in export(account, tmp_path).missing] == [path]
    for name in ("SHA256SUMS", "manifest.csv", "manifest.jsonl"):
        assert path not in (tmp_path / name).read_text(), name
    account.objects[path].failure = None
    assert not export(account, tmp_path).missing
    assert path in (tmp_path / "SHA256SUMS").read_text()
    assert tree(tmp_path) == expected(account)


def test_with_the_service_away_not_each_file_is_waited_for(tmp_path):
    account = Account()
    for number in range(100):
        path = account.add(f"{number:08d}", 10)
        account.objects[path].failure = NotCopied(Reason.UNAVAILABLE, "no answer")
    tried = []
    account.open = lambda path: tried.append(path) or Account.open(account, path)
    assert len(export(account, tmp_path).missing) == 100
    assert len(tried) < 3 * 60


def test_new_content_is_copied_with_update_and_else_said(account, tmp_path):
    export(account, tmp_path)
    path = account.add("00000001", 900)
    assert [each.reason for each in export(account, tmp_path).missing] == [Reason.CHANGED]
    assert (tmp_path / path).stat().st_size == 2001
    assert not export(account, tmp_path, update=True).missing
    assert tree(tmp_path) == expected(account)


def test_a_transcript_that_came_later_comes_with_the_next_run(account, tmp_path):
    export(account, tmp_path)
    account.texts_by_path[f"{DAY}/00000004.txt"] = ("00000004.mp3", b"late\n")
    export(account, tmp_path, update=True)
    assert tree(tmp_path) == expected(account)


def test_what_was_withdrawn_is_marked_and_goes_with_prune(account, tmp_path):
    export(account, tmp_path)
    del account.objects[f"{DAY}/00000000.mp3"]
    account.texts_by_path.clear()
    export(account, tmp_path, update=True)
    assert f"{DAY}/00000000.mp3" in tree(tmp_path)
    assert [row["id"] for row in manifest(tmp_path) if row["withdrawn"]] == ["00000000"]
    assert "withdrawn by the service" in (tmp_path / "index.html").read_text()

    (tmp_path / f"{DAY}/mine.txt").write_text("a note of the user")
    run = export(account, tmp_path, update=True, prune=True)
    assert run.counts["pruned"] == 3
    assert tree(tmp_path) == {**expected(account), f"{DAY}/mine.txt": b"a note of the user"}
    assert '"00000000"' not in (tmp_path / "manifest.jsonl").read_text()
    assert "00000000.mp3" not in (tmp_path / "index.html").read_text()


def test_a_text_that_vanishes_as_its_day_is_listed_costs_the_other_texts_nothing(account, tmp_path):
    path = f"{DAY}/00000009.txt"  # of an object that is not listed any more
    account.texts_by_path[path] = ("", b"hello\n")
    account.vanishing.add(path)
    run = export(account, tmp_path)
    assert run.missing == []
    assert (tmp_path / DAY / "00000000.txt").exists()
    assert not (tmp_path / path).exists()


def test_the_texts_of_a_withdrawn_object_go_with_it_when_no_texts_are_asked_for(account, tmp_path):
    account.texts_by_path[f"{DAY}/00000001.txt"] = ("00000001.mp3", b"hello\n")
    export(account, tmp_path)
    del account.objects[f"{DAY}/00000000.mp3"]
    export(account, tmp_path, update=True, prune=True, texts=False)
    assert {path for path in tree(tmp_path) if not path.endswith(".mp3")} == {f"{DAY}/00000001.txt"}


def test_a_text_that_comes_back_is_not_marked(account, tmp_path):
    export(account, tmp_path)
    text = account.texts_by_path.pop(f"{DAY}/00000000.txt")
    export(account, tmp_path, update=True)
    assert '"withdrawn":' in (tmp_path / "manifest.jsonl").read_text()
    account.texts_by_path[f"{DAY}/00000000.txt"] = text
    account.opens = 0
    export(account, tmp_path, update=True)
    assert '"withdrawn":' not in (tmp_path / "manifest.jsonl").read_text()
    assert account.opens == 0


def test_without_update_nothing_is_marked_and_nothing_goes(account, tmp_path):
    export(account, tmp_path)
    gone = account.objects.pop(f"{DAY}/00000003.mp3")
    export(account, tmp_path)
    assert tree(tmp_path)[f"{DAY}/00000003.mp3"] == gone.content
    assert not any(row["withdrawn"] for row in manifest(tmp_path))


def test_what_could_not_be_looked_at_is_not_taken_for_withdrawn(account, tmp_path):
    export(account, tmp_path)
    account.objects.clear()
    run = export(account, tmp_path, update=True, prune=True, not_looked_at=["2026-03 is unknown"])
    assert len(tree(tmp_path)) == 7
    assert [each.kind for each in run.missing] == ["time"]
    assert [row["detail"] for row in missing(tmp_path)] == ["2026-03 is unknown"]


def test_a_withdrawn_object_that_comes_back_is_not_marked(account, tmp_path):
    export(account, tmp_path)
    gone = account.objects.pop(f"{DAY}/00000003.mp3")
    export(account, tmp_path, update=True)
    account.objects[f"{DAY}/00000003.mp3"] = gone
    account.opens = 0
    export(account, tmp_path, update=True)
    assert not any(row["withdrawn"] for row in manifest(tmp_path))
    assert account.opens == 0


def test_an_archived_object_that_is_there_stays(account, tmp_path):
    export(account, tmp_path)
    there = account.objects[f"{DAY}/00000003.mp3"]
    there.item = replace(there.item, state="ARCHIVED")
    assert not export(account, tmp_path, update=True, prune=True).missing
    assert tree(tmp_path) == expected(account)


def test_another_accounts_objects_do_not_come_into_it(account, tmp_path):
    export(account, tmp_path)
    first = tree(tmp_path)
    for path in list(account.objects):
        account.objects[path].item = replace(account.objects[path].item, customer_id="other")
        account.objects[path].content = b"other"
    with pytest.raises(UsageError, match="an export of another account"):
        export(account, tmp_path, update=True, prune=True)
    assert tree(tmp_path) == first


def test_a_full_disk_is_said_before_anything_is_copied(account, tmp_path, monkeypatch):
    monkeypatch.setattr(Destination, "free_bytes", lambda self: 100)
    with pytest.raises(UsageError, match=r"has room for 100 B, and .* are to be copied"):
        export(account, tmp_path)
    assert tree(tmp_path) == {}


def test_a_folder_in_the_way_of_a_file_costs_that_file_only(account, tmp_path):
    export(account, tmp_path)
    path = tmp_path / f"{DAY}/00000002.mp3"
    path.unlink()
    path.mkdir()
    run = export(account, tmp_path)
    assert [(each.path, each.reason) for each in run.missing] == [
        (f"{DAY}/00000002.mp3", Reason.UNWRITABLE)
    ]


class Killed(BaseException):
    """Ends a run where it is, as a kill does: nothing of phonofs runs after it."""


def end_threads() -> None:
    """Wait for the threads of an export that was ended; a kill would have ended them, too."""
    for thread in threading.enumerate():
        if thread.name.startswith("export"):
            thread.join()


def kill_at(monkeypatch: pytest.MonkeyPatch, number: int, calls: list[str]) -> None:
    """Raise Killed in place of the n-th step that changes the destination."""

    def stepping(name, function):
        def step(*arguments, **named):
            if len(calls) >= number:
                raise Killed
            calls.append(name)
            return function(*arguments, **named)

        return step

    for name in ("rename", "unlink", "rmdir", "fsync", "fdatasync", "mkdir", "write"):
        monkeypatch.setattr(os, name, stepping(name, getattr(os, name)))
    monkeypatch.setattr(Destination, "sync", stepping("sync", Destination.sync))


@pytest.mark.promise("export-complete-or-said")
def test_after_a_kill_at_any_step_the_next_run_ends_as_if_there_had_been_none(
    tmp_path, monkeypatch
):
    """A first export, and an update that replaces, adds and prunes; batches of two files."""
    monkeypatch.setattr(batch_module, "MOST_FILES", 2)
    before, after = Account(), Account()
    for number in range(5):
        before.add(f"{number:08d}", 500)
    for number in range(1, 7):
        after.add(f"{number:08d}", 500 if number != 2 else 600)
    after.texts_by_path[f"{DAY}/00000003.txt"] = ("00000003.mp3", b"late\n")
    killed = 0
    for number in range(10_000):
        path = tmp_path / str(number)
        for account, rules in ((before, {}), (after, {"update": True, "prune": True})):
            calls: list[str] = []
            with monkeypatch.context() as patch:
                kill_at(patch, number, calls)
                try:
                    export(account, path, **rules)
                except Killed:
                    killed += 1
                    end_threads()
            export(account, path, **rules)
            assert tree(path) == expected(account), (number, calls)
            assert {row["path"] for row in manifest(path)} == set(account.objects)
            assert not (path / ".phonofs-export").exists()
        if len(calls) < number:
            break
    assert killed > 100


def test_a_disk_that_fills_up_leaves_what_is_there_and_the_next_run_goes_on(
    account, tmp_path, monkeypatch
):
    """Whichever write is the first that does not fit."""
    failed = 0
    for number in range(1, 100):
        path, left = tmp_path / str(number), iter(range(number))

        def write(descriptor, data, left=left, real=os.write):
            if next(left, None) is None:
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(descriptor, data)

        with monkeypatch.context() as patch:
            patch.setattr(os, "write", write)
            try:
                export(account, path)
                break
            except OSError:
                failed += 1
        assert not export(account, path).missing
        assert tree(path) == expected(account)
    assert failed > 10
