"""Who waits in a handler: deadlines and pending signals."""

import contextlib
import os
import signal
import subprocess
import sys

import pytest
import trio

from phonofs.errors import Interrupted, Unavailable
from phonofs.fuse.interrupts import InterruptibleRequests, wants_out


def status(pending=0, shared=0, blocked=0, ignored=0, caught=0) -> str:
    return (
        "Name:\tcat\n"
        f"SigPnd:\t{pending:016x}\nShdPnd:\t{shared:016x}\n"
        f"SigBlk:\t{blocked:016x}\nSigIgn:\t{ignored:016x}\nSigCgt:\t{caught:016x}\n"
    )


def mask(*numbers: int) -> int:
    return sum(1 << (number - 1) for number in numbers)


INT = mask(signal.SIGINT)
STOP = mask(signal.SIGTSTP)
TIMER = mask(signal.SIGALRM)
ALL = mask(*signal.valid_signals())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (status(), False),
        (status(pending=INT), True),
        (status(shared=INT), True),
        (status(shared=INT, blocked=INT), False),
        (status(shared=INT, ignored=INT), False),
        (status(shared=STOP), False),
        (status(shared=TIMER), True),
        (status(shared=TIMER, caught=TIMER), False),
        (status(shared=INT | TIMER, caught=ALL), True),
        (status(shared=mask(signal.SIGCHLD)), False),
        (status(shared=mask(signal.SIGCHLD), caught=ALL), False),
        *((status(shared=mask(number), caught=ALL), False) for number in (10, 12, 17, 27, 29, 34)),
        *((status(shared=mask(number), caught=ALL), True) for number in (1, 2, 3, 15)),
        ("", False),
    ],
)
def test_only_signals_that_ask_to_give_up_count(text, expected):
    """Fatal ones; of the handled ones SIGHUP, SIGINT, SIGQUIT and SIGTERM; none that is blocked,
    ignored or of job control."""
    assert wants_out(text) is expected


@pytest.mark.parametrize("name", ["\x0bSigPnd:\tz", "\x1cShdPnd:\tff", "\x0cTgid:\tx"])
def test_a_process_may_have_any_name(name):
    """Only a line feed ends a line, and the kernel escapes that one in a name (proc(5))."""
    assert wants_out(f"Name:\t{name}\n" + status().partition("\n")[2]) is False
    assert wants_out(f"Name:\t{name}\n" + status(shared=INT).partition("\n")[2]) is True


SIGNALLED = """
import signal, time
for name in ("SIGTERM", "SIGALRM"):
    signal.signal(getattr(signal, name), lambda *_: None)
print("ready", flush=True)
while True:
    time.sleep(60)
"""


@contextlib.contextmanager
def stopped(*pending: int):
    """A process that handles signals, and has these pending because it is stopped."""
    child = subprocess.Popen([sys.executable, "-S", "-c", SIGNALLED], stdout=subprocess.PIPE)
    try:
        assert child.stdout.readline() == b"ready\n"
        child.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, child.pid, os.WSTOPPED)
        for number in pending:
            child.send_signal(number)
        yield child
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


async def ended(waits, pid, *, read=False, **more):
    """How a wait on behalf of a process ends, and when."""
    begun = trio.current_time()
    async with trio.open_nursery() as scanning:
        scanning.start_soon(waits.run)
        try:
            with waits.reading(pid, 1, 0, 10, **more) if read else waits.waiting(pid):
                await trio.sleep_forever()
        except (Interrupted, Unavailable) as error:
            kind = type(error)
        scanning.cancel_scope.cancel()
    return kind, trio.current_time() - begun


async def test_a_waiter_ends_at_its_deadline():
    """No handler waits longer than it may."""

    waiting = InterruptibleRequests(deadline_s=5)
    with pytest.raises(Unavailable), waiting.waiting(0):
        await trio.sleep_forever()
    assert trio.current_time() == pytest.approx(5)
    assert len(waiting) == 0


@pytest.mark.parametrize("read", [False, True])
async def test_a_caller_with_a_pending_signal_is_let_go(read):
    """EINTR within a scan or two, where the signal asks it to end; else it waits on."""
    with stopped(signal.SIGALRM, signal.SIGTERM) as child:
        kind, took_s = await ended(InterruptibleRequests(deadline_s=60), child.pid, read=read)
        assert (kind, took_s <= 0.2) == (Interrupted, True)
    with stopped(signal.SIGALRM) as child:
        kind, took_s = await ended(InterruptibleRequests(deadline_s=60), child.pid, read=read)
        assert (kind, took_s) == (Unavailable, pytest.approx(60))


@pytest.mark.parametrize("read", [False, True])
async def test_a_caller_that_cannot_be_looked_at_is_left_to_its_deadline(read):
    """It may have ended before the wait began, or /proc hides it: it is not known."""
    with stopped() as child:
        pass
    kind, took_s = await ended(InterruptibleRequests(deadline_s=60), child.pid, read=read)
    assert (kind, took_s) == (Unavailable, pytest.approx(60))


async def test_a_reader_that_was_killed_is_let_go_and_its_second_try_keeps_the_deadline():
    """The kernel asks a second time what its read-ahead did not bring; somebody else may wait."""
    waits = InterruptibleRequests(deadline_s=60)
    with stopped() as child:

        async def kill():
            await trio.sleep(10)
            child.kill()
            child.wait()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(kill)
            kind, took_s = await ended(waits, child.pid, read=True)
        assert (kind, took_s) == (Interrupted, pytest.approx(10.1, abs=0.11))
        kind, more_s = await ended(waits, child.pid, read=True)
        assert (kind, took_s + more_s) == (Unavailable, pytest.approx(60))


async def test_whoever_reads_past_the_page_cache_is_there_until_it_is_answered():
    """So that it was another one who opened the file, if that one has ended."""
    with stopped() as child:

        async def kill():
            await trio.sleep(10)
            child.kill()
            child.wait()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(kill)
            end = await ended(
                InterruptibleRequests(deadline_s=60), child.pid, read=True, direct=True
            )
        assert end == (Unavailable, pytest.approx(60))


async def test_a_read_that_is_repeated_later_has_a_deadline_of_its_own():
    """Only what is repeated at once is the same try."""
    waits = InterruptibleRequests(deadline_s=60)
    with stopped(signal.SIGTERM) as child:
        assert (await ended(waits, child.pid, read=True))[0] is Interrupted
    await trio.sleep(2)
    assert await ended(waits, 0, read=True) == (Unavailable, pytest.approx(60))


async def test_what_ends_in_time_is_left_alone():
    """The value passes through and nothing stays registered."""

    waiting = InterruptibleRequests(deadline_s=1)
    with waiting.waiting(0):
        await trio.sleep(0.5)
    assert len(waiting) == 0
