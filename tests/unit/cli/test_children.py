"""Child processes that end with the command."""

import os
import select
import signal
import time
from pathlib import Path

import pytest

from phonofs.cli.children import ChildFailed, running
from phonofs.errors import MountFailed
from phonofs.process.daemonize import Ready
from tests.support.mounts import until


def waiting(ready: Ready) -> None:
    ready("")
    while True:
        time.sleep(60)


def test_a_child_runs_while_the_block_does() -> None:
    with running(waiting) as child:
        assert child.wait(0) is None
        os.kill(child.pid, 0)
    assert child.status == -signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(child.pid, 0)


def test_a_child_that_cannot_start_gives_its_status(capfd: pytest.CaptureFixture[str]) -> None:
    def failing(ready: Ready) -> None:
        raise MountFailed("there is no room")

    with pytest.raises(ChildFailed) as caught, running(failing):
        pass
    assert caught.value.exit_status == 32
    assert capfd.readouterr().err == "phonofs: there is no room\n"


def test_a_child_that_ends_by_itself_is_waited_for() -> None:
    with running(lambda ready: ready("")) as child:
        assert child.wait(10) == 0


def test_a_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    """By the kernel (PR_SET_PDEATHSIG), since a killed parent can do nothing."""
    said = tmp_path / "pid"

    def parent(ready: Ready) -> None:
        with running(waiting) as grandchild:
            said.write_text(str(grandchild.pid))
            ready("")
            time.sleep(60)

    with running(parent) as child:
        grandchild = os.pidfd_open(int(said.read_text()))
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        assert _ends(grandchild)


def test_a_child_ends_whose_parent_died_before_it_could_ask_for_the_signal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between fork and prctl nobody tells the child; it looks for itself."""
    said = tmp_path / "pid"
    new_session = os.setsid

    def slow_session() -> None:
        """What the grandchild does first, here until its parent is gone."""
        new_session()
        if (parent_pid := os.getppid()) != test_pid:
            (tmp_path / "new").write_text(str(os.getpid()))
            (tmp_path / "new").rename(said)
            while os.getppid() == parent_pid:
                time.sleep(0.01)

    def silent(ready: Ready) -> None:
        time.sleep(60)

    def parent(ready: Ready) -> None:
        ready("")
        with running(silent):
            pass

    test_pid = os.getpid()
    monkeypatch.setattr(os, "setsid", slow_session)
    with running(parent) as child:
        until(said.exists)
        grandchild = os.pidfd_open(int(said.read_text()))
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        assert _ends(grandchild)


def _ends(process: int) -> bool:
    poll = select.poll()
    poll.register(process, select.POLLIN)
    return bool(poll.poll(10_000))
