"""The control socket is its owner's: others can neither reach it nor put a false one there."""

import json
import os
import stat
from contextlib import suppress
from pathlib import Path

import pytest
import trio

from phonofs import control
from phonofs.control import Broadcast, Control
from phonofs.errors import UsageError

pytestmark = pytest.mark.real_clock


def made(path: Path) -> Control:
    return Control(
        path, status=lambda: {"fine": True}, set_level=lambda level: None, events=Broadcast()
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


@pytest.mark.parametrize("plant", ["link", "open to all", "a file"])
async def test_a_folder_somebody_else_prepared_is_refused(tmp_path, plant):
    """In /tmp anybody may have been there first."""
    folder = tmp_path / "phonofs-0"
    if plant == "link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        folder.symlink_to(tmp_path / "elsewhere")
    elif plant == "open to all":
        folder.mkdir()
        folder.chmod(0o777)
    else:
        folder.write_text("")
    with pytest.raises((UsageError, BaseExceptionGroup)):
        async with trio.open_nursery() as nursery:
            await nursery.start(made(folder / "x.sock").run)
    assert not list(tmp_path.glob("elsewhere/*"))


async def test_a_peer_of_another_user_is_sent_away(tmp_path, monkeypatch):
    """Even if it got at the socket: not a byte is answered."""
    path = tmp_path / "phonofs" / "x.sock"
    async with trio.open_nursery() as nursery:
        await nursery.start(made(path).run)
        assert json.loads(await answer(path, b'{"command": "status"}\n')) == {"fine": True}
        monkeypatch.setattr(control, "_peer_uid", lambda stream: os.getuid() + 1)
        with suppress(trio.BrokenResourceError):
            assert await answer(path, b'{"command": "status"}\n') == b""
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "request_line", [b"", b"\n", b"{", b"[]\n", b'{"command": 1}\n', b"\xff\n", b"x" * 200_000]
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
        assert json.loads(await answer(path, b'{"command": "status"}\n')) == {"fine": True}
        nursery.cancel_scope.cancel()
