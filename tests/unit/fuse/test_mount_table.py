"""The table of mounts, read without touching a mount."""

import os
from pathlib import Path

import pytest

from phonofs.errors import UsageError
from phonofs.fuse.mountinfo import mount_of, mounted_at, own_mount, the_only_mount

ROOT = "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n"


def line(
    point: str, kind: str = "fuse.phonofs", source: str = "phonofs#work", options: str = "ro"
) -> str:
    return f"36 22 0:44 / {point} ro,nosuid shared:1 master:2 - {kind} {source} {options}\n"


def of_user(point: str, user: int) -> str:
    return line(point, options=f"ro,user_id={user},group_id={user},allow_other")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "mountinfo"
    path.write_text(ROOT)
    return path


def test_the_only_mount_is_found(table: Path) -> None:
    table.write_text(ROOT + line("/mnt/my\\040calls"))
    assert the_only_mount(table).point == "/mnt/my calls"


def test_none_or_several_are_named(table: Path) -> None:
    with pytest.raises(UsageError, match="nothing is mounted"):
        the_only_mount(table)
    table.write_text(ROOT + line("/a") + line("/b"))
    with pytest.raises(UsageError, match="/a, /b"):
        the_only_mount(table)


def test_the_mount_of_the_caller_is_preferred(table: Path) -> None:
    me = os.getuid()
    table.write_text(ROOT + of_user("/theirs", me + 1) + of_user("/mine", me))
    assert the_only_mount(table).point == "/mine"
    table.write_text(ROOT + of_user("/theirs", me + 1))
    assert the_only_mount(table).point == "/theirs"
    table.write_text(ROOT + of_user("/theirs", me + 1) + of_user("/a", me) + of_user("/b", me))
    with pytest.raises(UsageError, match="/a, /b"):
        the_only_mount(table)


def test_a_mount_with_another_subtype_is_ours_by_its_source(table: Path) -> None:
    table.write_text(ROOT + line("/a", kind="fuse.sshfs"))
    assert the_only_mount(table).point == "/a"


def test_other_mounts_are_not_ours(table: Path) -> None:
    table.write_text(ROOT + line("/a", "fuse.sshfs", "me@host:") + line("/b", "ext4", "phonofs#x"))
    with pytest.raises(UsageError, match="nothing is mounted"):
        the_only_mount(table)


def test_a_path_belongs_to_the_innermost_mount(table: Path) -> None:
    table.write_text(ROOT + line("/a") + line("/a/b", "tmpfs", "tmpfs"))
    assert mount_of("/a/2024/x.mp3", table).point == "/a"
    with pytest.raises(UsageError, match="not in a phonofs mount"):
        mount_of("/a/b/x", table)
    with pytest.raises(UsageError, match="not in a phonofs mount"):
        mount_of("/ab", table)


def test_of_two_mounts_at_one_place_the_later_is_on_top(table: Path) -> None:
    table.write_text(ROOT + line("/a") + line("/a", "tmpfs", "tmpfs"))
    top = mounted_at("/a", table)
    assert top is not None
    assert top.kind == "tmpfs"
    assert mounted_at("/nowhere", table) is None


def test_an_automount_point_is_no_mount_until_it_is_mounted_on(table: Path) -> None:
    waiting = line("/mnt/calls", "autofs", "systemd-1")
    table.write_text(ROOT + waiting)
    assert mounted_at("/mnt/calls", table) is None
    table.write_text(ROOT + waiting + line("/mnt/calls"))
    assert mounted_at("/mnt/calls", table).is_phonofs  # type: ignore[union-attr]
    assert mount_of("/mnt/calls/2026", table).source == "phonofs#work"


def test_a_search_takes_the_callers_own_mount_and_no_other(table: Path) -> None:
    me = os.getuid()
    table.write_text(ROOT + of_user("/theirs", me + 1))
    assert own_mount(table=table) is None
    table.write_text(ROOT + of_user("/theirs", me + 1) + of_user("/mine", me))
    assert own_mount(table=table) == "/mine"
    assert own_mount("work", table) == "/mine"
    assert own_mount("home", table) is None
    table.write_text(ROOT + of_user("/a", me) + of_user("/b", me))
    with pytest.raises(UsageError, match="--mount: /a, /b"):
        own_mount(table=table)
