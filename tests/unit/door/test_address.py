"""A client finds the socket by the file in the cache folder, and trusts no other file."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from phonofs.client.connection import Connection
from phonofs.door.address import DOOR, connected, read_address
from phonofs.door.call import who_is_there


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


def test_a_daemon_of_this_user_is_connected_to(tmp_path):
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        with pytest.raises(ConnectionRefusedError):
            connected(path, 1.0)
        listener.listen()
        with connected(path, 1.0) as connection:
            assert connection.gettimeout() == 1.0
    path.unlink()
    with pytest.raises(FileNotFoundError):
        connected(path, 1.0)


LISTEN = """
import os, socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
os.setuid(12345)
listener.listen()
print(flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_what_another_user_listens_at_is_no_daemon(tmp_path):
    """A daemon that was killed has left its note, and its folder in /tmp is another user's now."""
    path = tmp_path / "s"
    (tmp_path / DOOR).write_text(f"{path}\n")
    with subprocess.Popen(
        [sys.executable, "-c", LISTEN, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"\n"
        with pytest.raises(ConnectionRefusedError, match="another user's"):
            Connection(path, 1.0)
        assert who_is_there(tmp_path) is None
        other.communicate()
