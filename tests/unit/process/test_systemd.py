"""What systemd is told: the watchdog only when the tree answers, the condition when it changes."""

import errno
import os
import subprocess
import threading

import pytest
import trio

from phonofs.process import systemd
from phonofs.process.systemd import StatusLine, Watchdog, ask_tree, watchdog_interval_s


def test_the_watchdog_is_for_the_process_it_names(monkeypatch):
    """WATCHDOG_USEC counts where WATCHDOG_PID is ours, our shell's, or not said."""
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    for text, wanted in [("", None), ("x", None), ("0", None), ("30000000", 30.0)]:
        monkeypatch.setenv("WATCHDOG_USEC", text)
        assert watchdog_interval_s() == wanted
    for pid in (os.getpid(), os.getppid()):
        monkeypatch.setenv("WATCHDOG_PID", str(pid))
        assert watchdog_interval_s() == 30.0
    monkeypatch.setenv("WATCHDOG_PID", "0")
    assert watchdog_interval_s() is None


@pytest.mark.real_clock
async def test_the_watchdog_is_fed_while_the_tree_answers():
    """Each time after it was asked; not when the answer is that nobody serves it."""
    answers = [True, True, False, True]
    told: list[int] = []

    def ask(point: str) -> bool:
        if len(answers) == 1:
            trio.from_thread.run_sync(scope.cancel)
        return answers.pop(0)

    with trio.CancelScope() as scope:
        watchdog = Watchdog("/m", 0.6, ask=ask, tell=lambda text: told.append(len(answers)))
        await watchdog.run()
    assert told == [3, 2]


@pytest.mark.real_clock
async def test_a_tree_that_hangs_starves_the_watchdog_and_takes_one_thread(expected_log):
    """The question that hangs is not asked a second time beside it."""
    expected_log.expect("does not answer")
    asked: list[str] = []
    told: list[str] = []
    go_on = threading.Event()

    def hang(point: str) -> bool:
        asked.append(point)
        return go_on.wait(20)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(Watchdog("/m", 0.1, ask=hang, tell=told.append).run)
        while not asked or len(expected_log.seen) < 3:  # noqa: ASYNC110 - a thread, and the log
            await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    go_on.set()
    assert (asked, told) == (["/m"], [])


def test_an_error_of_the_service_is_an_answer_of_the_tree(monkeypatch):
    """EIO is one; ENOTCONN says that nobody serves the mount."""
    for number, answers in [(errno.EIO, True), (errno.EACCES, True), (errno.ENOTCONN, False)]:

        def end(command: list[str], number: int = number, **options: object):
            return subprocess.CompletedProcess(command, number)

        monkeypatch.setattr(systemd.subprocess, "run", end)
        assert ask_tree("/m") is answers


@pytest.mark.expected_log("cannot be asked")
def test_a_process_that_cannot_be_started_says_nothing_of_the_tree(monkeypatch):
    """Else a mount would be ended for want of processes."""

    def fail(command: list[str], **options: object):
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(systemd.subprocess, "run", fail)
    assert ask_tree("/m")


async def test_the_status_line_is_told_when_it_changes():
    """Once each, as one line."""
    conditions = iter(["mounted", "mounted", "no token:\nrefused", "no token:\nrefused"])
    told: list[str] = []
    with trio.move_on_after(7):
        await StatusLine(lambda: next(conditions), tell=told.append).run()
    assert told == ["STATUS=mounted", "STATUS=no token: refused"]
