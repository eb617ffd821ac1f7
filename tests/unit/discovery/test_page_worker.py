"""Pages are made ready by another process where that pays, and here whatever becomes of it."""

import io
import logging
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import trio
import trio.testing

from phonofs.catalogue.placement import Placement
from phonofs.catalogue.prepared_page import PreparedPage, prepare
from phonofs.catalogue.types import TreeOptions
from phonofs.discovery import page_worker as page_worker
from phonofs.discovery import page_worker_main as helper
from phonofs.discovery.lister import Lister
from phonofs.discovery.page_worker import BUSY_PAGES, MANY, PageWorker
from phonofs.discovery.page_worker_main import LENGTH, message
from phonofs.service.records import parse_page
from tests.support.catalogue_world import (
    FakeService,
    Settings,
    check,
    files,
    make,
    ms,
    opened,
    uuid,
)
from tests.unit.catalogue.test_prepared_page import page

NOON = ms("2024-09-17T12:00:00")
VIEW = TreeOptions.of(Settings())
BODY = page([make(uuid(n), NOON + n * 1000, agentName="Ann") for n in range(100)])
READY = prepare(parse_page(BODY, "us-east"), "us-east", 0, Placement(VIEW))
ODD = page([make("odd-1111", NOON)]).replace(b'"odd-1111"', b"null")
two_processors = pytest.mark.skipif(
    len(os.sched_getaffinity(0)) < 2, reason="with one processor there is no other process"
)
real = pytest.mark.real_clock


async def until(condition: Callable[[], bool]) -> None:
    """A process begins or ends: nothing tells of it."""
    while not condition():  # noqa: ASYNC110
        await trio.sleep(0.01)


@asynccontextmanager
async def helped() -> AsyncIterator[PageWorker]:
    """One whose process is there."""
    it = PageWorker(VIEW)
    async with trio.open_nursery() as nursery:
        await nursery.start(it.run)
        it.expect(MANY)
        with trio.fail_after(20):
            await until(lambda: it._jobs is not None)
        yield it
        nursery.cancel_scope.cancel()


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@two_processors
@real
async def test_the_process_prepares_the_same_pages_in_order():
    """Side by side, as many as are asked for; it is gone with the mount."""
    bodies = [page([make(uuid(k * 100 + n), NOON) for n in range(20 + k)]) for k in range(40)]
    made: dict[int, PreparedPage | None] = {}
    async with helped() as it:
        pid = it.pid
        assert pid is not None
        assert await it.prepared(BODY, "us-east", 0) == READY
        for odd in (ODD, b"no page"):
            assert await it.prepared(odd, "us-east", 0) is None  # who asks reads it again

        async def one(number: int) -> None:
            made[number] = await it.prepared(bodies[number], "uk", 3)

        async with trio.open_nursery() as nursery:
            for number in range(40):
                nursery.start_soon(one, number)
        assert it.pid == pid
    for number, body in enumerate(bodies):
        assert made[number] == prepare(parse_page(body, "uk"), "uk", 3, Placement(VIEW))
    assert gone(pid)


@two_processors
@real
async def test_many_small_pages_justify_it_too():
    """A walk through small days has as much to read as a large day; a few pages are read here."""
    it = PageWorker(VIEW)
    async with trio.open_nursery() as nursery:
        await nursery.start(it.run)
        for _ in range(BUSY_PAGES - 1):
            assert await it.prepared(BODY, "us-east", 0) is None
        await trio.testing.wait_all_tasks_blocked()
        assert it.pid is None
        assert await it.prepared(BODY, "us-east", 0) is None
        with trio.fail_after(20):
            await until(lambda: it._jobs is not None)
        assert await it.prepared(BODY, "us-east", 0) == READY
        nursery.cancel_scope.cancel()


@two_processors
@real
async def test_it_knows_no_key_and_no_secret(monkeypatch):
    """Of the settings in the environment nothing reaches it; it has no file but its pipes."""
    monkeypatch.setenv("PHONOFS_SECRET", "hush")
    monkeypatch.setenv("PHONOFS_PROFILE", "work")
    async with helped() as it:
        proc = Path(f"/proc/{it.pid}")
        assert b"PHONOFS" not in (proc / "environ").read_bytes()
        assert b"hush" not in (proc / "environ").read_bytes()
        targets = [os.readlink(each) for each in (proc / "fd").iterdir()]
        assert all(target.startswith("pipe:") or target == "/dev/null" for target in targets)
        assert os.getsid(it.pid or 0) == it.pid


@two_processors
@real
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_what_ends_the_mount_does_not_end_it_first(number):
    """Ctrl-C and a service manager's SIGTERM reach both: the mount ends it."""
    async with helped() as it:
        assert it.pid is not None
        os.kill(it.pid, number)
        assert await it.prepared(BODY, "us-east", 0) is not None
        assert it._jobs is not None


@two_processors
@real
async def test_killed_it_is_done_without(expected_log):
    """Pages on their way are not made; it is not begun again for a while."""
    expected_log.expect("the process that reads pages broke")
    async with helped() as it:
        pid = it.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        made: list[PreparedPage | None] = []

        async def one() -> None:
            made.append(await it.prepared(BODY, "us-east", 0))

        async with trio.open_nursery() as nursery:
            for _ in range(30):
                nursery.start_soon(one)
            await trio.testing.wait_all_tasks_blocked()
            os.kill(pid, signal.SIGKILL)
        assert made == [None] * 30
        assert gone(pid)
        it.expect(MANY)
        assert not it._wanted.is_set()
        assert await it.prepared(BODY, "us-east", 0) is None


@two_processors
@real
async def test_stuck_it_is_ended(monkeypatch, expected_log):
    """Nobody waits longer for a page than it may take."""
    expected_log.expect("was stuck")
    monkeypatch.setattr(page_worker, "PATIENCE_S", 0.2)
    async with helped() as it:
        pid = it.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        with trio.fail_after(10):
            assert await it.prepared(BODY, "us-east", 0) is None
            await until(lambda: gone(pid))


@two_processors
@real
async def test_idle_it_ends_and_begins_again(monkeypatch, caplog):
    """Without a word in the log."""
    async with helped() as it:
        with monkeypatch.context() as patch, trio.fail_after(20):
            patch.setattr(page_worker, "IDLE_S", 0.05)
            await it.prepared(BODY, "us-east", 0)
            await until(lambda: it.pid is None)
        with trio.fail_after(20):
            it.expect(MANY)
            await until(lambda: it._jobs is not None)
    assert not [each for each in caplog.records if each.levelno >= logging.WARNING]


@real
async def test_where_it_cannot_begin_no_page_is_made(monkeypatch, expected_log):
    """No program of that name, or it ends at once."""
    expected_log.expect("the process that reads pages broke")
    for program in ("/nonexistent/python", "/bin/true"):
        monkeypatch.setattr(sys, "executable", program)
        it = PageWorker(VIEW)
        async with trio.open_nursery() as nursery:
            await nursery.start(it.run)
            it.expect(MANY)
            with trio.fail_after(10):
                await until(lambda it=it: it._not_before_s > 0 and not it._wanted.is_set())
            assert await it.prepared(BODY, "us-east", 0) is None
            nursery.cancel_scope.cancel()


async def test_few_records_need_no_process():
    """Nor does a mount whose worker does not run: then the caller prepares its pages."""
    it = PageWorker(VIEW)
    it.expect(MANY - 1)
    assert not it._wanted.is_set()
    it.expect(MANY)
    assert await it.prepared(BODY, "us-east", 0) is None


def test_the_process_ends_with_its_input(monkeypatch):
    """Also in the middle of a message: so it does not outlive a mount that was killed."""
    monkeypatch.setattr(signal, "signal", lambda *args: None)
    whole = message(VIEW) + message((BODY, "us-east", 0))
    for given, answers in ((b"", 0), (whole[:9], 0), (whole[:-1], 1), (whole, 2)):
        out = io.BytesIO()
        helper.main(io.BytesIO(given), out)
        said = out.getvalue()
        sizes = []
        while said:
            (size,) = LENGTH.unpack_from(said)
            sizes.append(msgspec.msgpack.decode(said[4 : 4 + size], type=PreparedPage | None))
            said = said[4 + size :]
        assert len(sizes) == answers
    assert sizes == [None, READY]


def test_the_process_as_it_is_begun():
    """The module runs as a program, from anywhere, and reads its pipe to the end."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "phonofs.discovery.page_worker_main"],
        input=message(VIEW) + message((BODY, "us-east", 0)),
        capture_output=True,
        cwd="/",
        timeout=30,
        check=True,
    )
    assert done.stderr == b""
    assert done.stdout == message(None) + message(READY)


@two_processors
@real
async def test_a_day_is_listed_whole_while_the_process_is_killed(tmp_path: Path, expected_log):
    """A listing of 3,000 in which it is killed after it made some pages ready."""
    expected_log.expect("the process that reads pages broke")
    service = FakeService(latency_s=0.02, totals=True)
    service.put(*(make(uuid(n), NOON + n * 10) for n in range(3000)))
    catalogue = opened(tmp_path)
    catalogue.set_regions(["us-east"])
    async with helped() as it:
        lister = Lister(service, catalogue, Settings(), page_worker=it)

        def kill(_: FakeService) -> None:
            if len(service.asked) > 30 and it.pid is not None:
                os.kill(it.pid, signal.SIGKILL)

        service.before_answer = kill
        async with trio.open_nursery() as nursery:
            await nursery.start(lister.run)
            ino = 1
            for name in ("2024", "2024-09", "2024-09-17"):
                await lister.list(ino)
                entry = catalogue.lookup(ino, name)
                assert entry is not None
                ino = entry.ino
            await lister.list(ino)
            nursery.cancel_scope.cancel()
    assert len(files(catalogue)) == 3000
    check(catalogue)
    catalogue.close()
