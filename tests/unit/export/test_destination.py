"""The folder of an export: what it accepts, and that nothing leads out of it."""

import json
import os
import threading

import pytest

from phonofs.errors import PhonofsError, UsageError
from phonofs.export.destination import opened
from tests.support.export_world import DAY, Account, export, tree


@pytest.fixture
def account() -> Account:
    account = Account()
    account.add("00000000")
    account.add("00000001")
    return account


def test_a_folder_with_other_things_in_it_is_refused_and_stays(account, tmp_path):
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(UsageError, match="is neither empty nor an export"):
        export(account, tmp_path)
    assert os.listdir(tmp_path) == ["letter.txt"]


def test_a_file_is_no_destination(account, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is not a folder"):
        export(account, tmp_path / "file")


def test_an_export_json_of_somebody_else_is_refused(account, tmp_path):
    (tmp_path / "export.json").write_text(json.dumps({"name": "something else"}))
    with pytest.raises(UsageError, match="is not what phonofs wrote"):
        export(account, tmp_path)


def test_a_new_file_system_is_empty_enough(account, tmp_path):
    (tmp_path / "lost+found").mkdir()
    assert not export(account, tmp_path).missing


def test_two_exports_do_not_write_into_one_folder(account, tmp_path):
    with opened(str(tmp_path)), pytest.raises(UsageError, match="another export is writing"):
        export(account, tmp_path)


@pytest.mark.parametrize("link", ["2026", "2026/2026-03", DAY])
def test_a_link_in_place_of_a_folder_is_not_followed(account, tmp_path, link):
    dest, outside = tmp_path / "dest", tmp_path / "outside"
    export(account, dest)
    real = dest / link
    real.rename(outside)
    real.symlink_to(outside)
    before = tree_of(outside)
    run = export(account, dest, update=True, prune=True)
    assert len(run.missing) == 2
    account.objects.clear()
    export(account, dest, update=True, prune=True)
    assert tree_of(outside) == before


def test_a_link_in_place_of_a_file_is_replaced_and_not_written_through(account, tmp_path):
    dest, outside = tmp_path / "dest", tmp_path / "outside.mp3"
    export(account, dest)
    outside.write_bytes(b"mine")
    file = dest / f"{DAY}/00000000.mp3"
    file.unlink()
    file.symlink_to(outside)
    assert not export(account, dest).missing
    assert outside.read_bytes() == b"mine"
    assert not file.is_symlink()
    assert file.read_bytes() == account.objects[f"{DAY}/00000000.mp3"].content


def test_a_link_in_place_of_the_working_folder_is_refused(account, tmp_path):
    (tmp_path / "outside/new").mkdir(parents=True)
    (tmp_path / "outside/new/0").write_text("mine")
    (tmp_path / "dest").mkdir()
    (tmp_path / "dest/.phonofs-export").symlink_to(tmp_path / "outside")
    with pytest.raises(UsageError, match="cannot be written to"):
        export(account, tmp_path / "dest")
    assert (tmp_path / "outside/new/0").read_text() == "mine"


@pytest.mark.parametrize("path", ["../../letter.txt", "/etc/hostname", "2026/../../letter.txt", ""])
def test_a_manifest_that_was_tampered_with_removes_nothing_outside(account, tmp_path, path):
    dest = tmp_path / "dest"
    export(account, dest)
    (tmp_path / "letter.txt").write_text("mine")
    manifest = dest / "manifest.jsonl"
    lines = manifest.read_text().replace(f"{DAY}/00000000.mp3", path)
    manifest.write_text(lines)
    account.objects.clear()
    export(account, dest, update=True, prune=True)
    assert (tmp_path / "letter.txt").read_text() == "mine"
    assert os.path.exists("/etc/hostname")
    assert f"{DAY}/00000001.mp3" not in tree(dest)


def test_a_manifest_that_is_none_is_an_error_and_nothing_is_removed(account, tmp_path):
    export(account, tmp_path)
    (tmp_path / "manifest.jsonl").write_text('{"id":"x"}\n')
    with pytest.raises(PhonofsError, match="has a line that phonofs did not write"):
        export(account, tmp_path, update=True, prune=True)
    assert len(tree(tmp_path)) == 2


@pytest.mark.parametrize("path", ["../x.mp3", "a/../../x.mp3", "/x.mp3", "a//x.mp3", "a/\0.mp3"])
def test_an_object_with_a_hostile_path_stays_out_and_is_said(tmp_path, path):
    account = Account()
    account.objects[path] = account.objects.pop(account.add("00000000"))
    run = export(account, tmp_path / "dest")
    assert [each.path for each in run.missing] == [path]
    assert set(os.listdir(tmp_path)) == {"dest"}
    assert tree(tmp_path / "dest") == {}


def test_the_copies_run_in_threads_of_their_own(account, tmp_path):
    threads = set()
    account.open = lambda path: threads.add(threading.get_ident()) or Account.open(account, path)
    export(account, tmp_path)
    assert threading.get_ident() not in threads


def tree_of(path):
    return {each.name: each.read_bytes() for each in path.rglob("*") if each.is_file()}


def test_a_thread_that_outlasts_the_export_touches_no_other_folder(tmp_path):
    """Others may have its descriptors by then."""
    with opened(str(tmp_path / "export")) as destination:
        staged, descriptor = destination.stage()
        os.close(descriptor)
    other = tmp_path / "other"
    other.mkdir()
    (other / staged).write_text("mine")
    folders = [os.open(other, os.O_RDONLY | os.O_DIRECTORY) for _ in range(5)]
    destination.drop(staged)
    with pytest.raises(OSError, match="the export has ended"):
        destination.stage()
    assert os.listdir(other) == [staged]
    for folder in folders:
        os.close(folder)
