"""The control socket is its owner's: others can neither reach it nor put a false one there."""

import json
import os
import shutil
import stat
from contextlib import suppress
from pathlib import Path

import pytest
import trio

from phonofs.control import server as control
from phonofs.control.peers import Peer
from phonofs.control.server import Broadcast, Control

pytestmark = pytest.mark.real_clock

BIG = b"x" * 200_000
NESTED = b'{"command": ' + b"[" * 30_000 + b"]" * 30_000 + b"}\n"


def made(path: Path) -> Control:
    return Control(
        path, set_level=lambda level: None, events=Broadcast(), options=lambda: {"fine": "yes"}
    )


async def answer(path: Path, request: bytes) -> bytes:
    stream = await trio.open_unix_socket(str(path))
    async with stream:
        await stream.send_all(request)
        return b"".join([chunk async for chunk in stream])


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
async def test_its_modes_do_not_depend_on_the_umask(tmp_path, umask):
    """A socket 0600 in a folder 0700."""
    path = tmp_path / "run" / "phonofs" / "x.sock"
    path.parent.parent.mkdir()
    before = os.umask(umask & ~0o700)
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(made(path).run)
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
            nursery.cancel_scope.cancel()
    finally:
        os.umask(before)


@pytest.mark.parametrize("plant", ["link", "open to all", "a file", "a path too long"])
async def test_a_folder_that_cannot_be_used_is_not_used(tmp_path, monkeypatch, plant):
    """In /tmp anybody may have been there first: the socket goes to a new folder of its own."""
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    folder = tmp_path / "phonofs-0"
    if plant == "link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        folder.symlink_to(tmp_path / "elsewhere")
    elif plant == "open to all":
        folder.mkdir()
        folder.chmod(0o777)
    elif plant == "a file":
        folder.write_text("")
    else:
        folder = tmp_path / ("x" * 100)
    control = made(folder / "x.sock")
    async with trio.open_nursery() as nursery:
        await nursery.start(control.run)
        assert control.path.parent.parent == tmp_path / "tmp"
        assert stat.S_IMODE(control.path.parent.stat().st_mode) == 0o700
        assert json.loads(await answer(control.path, b'{"command": "options"}\n')) == {
            "fine": "yes"
        }
        nursery.cancel_scope.cancel()
    assert not list(tmp_path.glob("elsewhere/*"))
    assert not list(tmp_path.glob("tmp/*"))


@pytest.mark.expected_log("no commands are accepted")
async def test_without_any_place_for_it_the_mount_goes_on_and_says_why(tmp_path, monkeypatch):
    """And once there is a place, the socket is there too; one that was removed comes back."""
    monkeypatch.setenv("TMPDIR", str(tmp_path / "none"))
    (tmp_path / "run").write_text("in the way")
    control = made(tmp_path / "run/phonofs/x.sock")
    async with trio.open_nursery() as nursery:
        await nursery.start(control.run)
        assert control.path is None
        assert "cannot be made: Not a directory" in control.trouble
        (tmp_path / "run").unlink()
        for _ in range(2):  # it comes, and comes back after a logout
            with trio.fail_after(20):
                while not (control.path and control.path.exists()):  # noqa: ASYNC110
                    await trio.sleep(0.01)
            assert control.trouble == ""
            shutil.rmtree(tmp_path / "run")
        nursery.cancel_scope.cancel()


async def test_a_peer_of_another_user_is_sent_away(tmp_path, monkeypatch):
    """Even if it got at the socket: not a byte is answered."""
    path = tmp_path / "phonofs" / "x.sock"
    async with trio.open_nursery() as nursery:
        await nursery.start(made(path).run)
        assert json.loads(await answer(path, b'{"command": "options"}\n')) == {"fine": "yes"}
        other = Peer(os.getuid() + 1, frozenset())
        monkeypatch.setattr(control, "peer_of", lambda sock: other)
        with suppress(trio.BrokenResourceError):
            assert await answer(path, b'{"command": "options"}\n') == b""
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "request_line",
    [b"", b"\n", b"{", b"[]\n", b'{"command": 1}\n', b"\xff\n", b"x" * 200_000, NESTED],
)
async def test_what_is_no_request_is_answered_and_survived(tmp_path, request_line):
    """Bounded, and the next client is served."""
    path = tmp_path / "phonofs" / "x.sock"
    async with trio.open_nursery() as nursery:
        await nursery.start(made(path).run)
        stream = await trio.open_unix_socket(str(path))
        async with stream:
            try:
                await stream.send_all(request_line)
                stream.socket.shutdown(1)
                said = b"".join([chunk async for chunk in stream])
                assert b"error" in said
            except (trio.BrokenResourceError, OSError):
                pass
        assert json.loads(await answer(path, b'{"command": "options"}\n')) == {"fine": "yes"}
        nursery.cancel_scope.cancel()
