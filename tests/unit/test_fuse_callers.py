"""Who waits in a handler: deadlines and pending signals."""

import os
import signal
import subprocess
import sys

import pytest
import trio

from phonofs.errors import Interrupted, Unavailable
from phonofs.fuse import callers
from phonofs.fuse.callers import Callers, has_signal, wants_out


def status(pending=0, shared=0, blocked=0, ignored=0) -> str:
    return (
        "Name:\tcat\n"
        f"SigPnd:\t{pending:016x}\nShdPnd:\t{shared:016x}\n"
        f"SigBlk:\t{blocked:016x}\nSigIgn:\t{ignored:016x}\n"
    )


INT = 1 << (signal.SIGINT - 1)
STOP = 1 << (signal.SIGTSTP - 1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (status(), False),
        (status(pending=INT), True),
        (status(shared=INT), True),
        (status(shared=INT, blocked=INT), False),
        (status(shared=INT, ignored=INT), False),
        (status(shared=STOP), False),
        ("", False),
    ],
)
def test_only_signals_that_ask_to_give_up_count(text, expected):
    """Blocked, ignored and job-control signals leave the caller waiting."""
    assert wants_out(text) is expected


def test_a_process_that_is_gone_wants_out():
    """Nobody is left to be answered."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert has_signal(child.pid)
    assert not has_signal(os.getpid())


async def test_a_waiter_ends_at_its_deadline():
    """No handler waits longer than it may."""

    waiting = Callers(deadline_s=5)
    with pytest.raises(Unavailable), waiting.waiting(0):
        await trio.sleep_forever()
    assert trio.current_time() == pytest.approx(5)
    assert len(waiting) == 0


async def test_a_caller_with_a_pending_signal_is_let_go(monkeypatch):
    """EINTR within a scan or two, and only for the one that has the signal."""
    monkeypatch.setattr(callers, "has_signal", lambda pid: pid == 7)

    waiting = Callers(deadline_s=60)

    async def wait(pid, expected):
        with pytest.raises(expected), waiting.waiting(pid):
            await trio.sleep_forever()
        ended[pid] = trio.current_time()

    ended: dict[int, float] = {}
    async with trio.open_nursery() as scanning:
        scanning.start_soon(waiting.run)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait, 7, Interrupted)
            nursery.start_soon(wait, 8, Unavailable)
        scanning.cancel_scope.cancel()
    assert ended[7] <= 0.2
    assert ended[8] == pytest.approx(60)


async def test_what_ends_in_time_is_left_alone():
    """The value passes through and nothing stays registered."""

    waiting = Callers(deadline_s=1)
    with waiting.waiting(0):
        await trio.sleep(0.5)
    assert len(waiting) == 0
