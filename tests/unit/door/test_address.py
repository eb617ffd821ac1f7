"""A client finds the socket by the file in the cache folder, and trusts no other file."""

import os
from pathlib import Path

import pytest

from phonofs.door.address import DOOR, read_address


def test_a_folder_without_a_daemon_has_none(tmp_path):
    assert read_address(tmp_path) is None
    assert read_address(tmp_path / "missing") is None


def test_the_path_of_the_socket_is_read(tmp_path):
    (tmp_path / DOOR).write_text("/run/user/1000/phonofs/x.sock\n")
    assert read_address(tmp_path) == Path("/run/user/1000/phonofs/x.sock")


@pytest.mark.parametrize("text", ["", "\n", "relative.sock\n", "/" + "x" * 300])
def test_what_names_no_socket_is_none(tmp_path, text):
    (tmp_path / DOOR).write_text(text)
    assert read_address(tmp_path) is None


def test_a_link_and_a_folder_are_refused(tmp_path):
    (tmp_path / "elsewhere").write_text("/tmp/other.sock\n")
    os.symlink(tmp_path / "elsewhere", tmp_path / DOOR)
    with pytest.raises(OSError, match="symbolic links"):
        read_address(tmp_path)
    (tmp_path / DOOR).unlink()
    (tmp_path / DOOR).mkdir()
    with pytest.raises(PermissionError):
        read_address(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_the_file_of_another_user_is_refused(tmp_path):
    (tmp_path / DOOR).write_text("/tmp/other.sock\n")
    os.chown(tmp_path / DOOR, 12345, 12345)
    with pytest.raises(PermissionError):
        read_address(tmp_path)
