"""What the kernel is told and given: in order, and no more than it can take."""

import errno
import math
import threading
from contextlib import ExitStack, suppress

import msgspec
import pyfuse3
import pytest
import trio

from phonofs.catalogue.types import ChangeSet, ObjectChange
from phonofs.fuse.invalidation import MOST_STORED, KernelCache
from tests.support.catalogue_world import make, uuid

MIB = 1 << 20
CHANGE = ObjectChange("changed", 7, 2, "name", make(uuid(1), "2024-09-03T10:00:00Z"), content=True)
CHANGED = ChangeSet([CHANGE])
HANG_S = 60.0


class Kernel:
    """In its place: what it was given, word by word, from whatever thread."""

    def __init__(self, monkeypatch, refuses=False):
        self._send, self.told = trio.open_memory_channel(math.inf)
        self.refuses = refuses
        monkeypatch.setattr(pyfuse3, "notify_store", self._store)
        monkeypatch.setattr(pyfuse3, "invalidate_inode", self._forget)

    def _store(self, ino, offset, data):
        if self.refuses:
            raise OSError(errno.ENOMEM, "no memory")
        trio.from_thread.run_sync(self._send.send_nowait, ("store", ino, offset, data[:3]))

    def _forget(self, ino, attr_only):
        trio.from_thread.run_sync(self._send.send_nowait, ("forget", ino))


async def heard(notifier, kernel, count):
    """Let the notifier run until the kernel was told so much, and the notifier knows it."""
    words = []
    with trio.fail_after(HANG_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(notifier.run)
            words = [await kernel.told.receive() for _ in range(count)]
            notifier.tell(CHANGED)  # the next one is taken when the last ones are over
            await kernel.told.receive()
            nursery.cancel_scope.cancel()
    return words


def test_what_waits_to_be_stored_is_bounded_and_refused_beyond(monkeypatch):
    kernel, notifier = Kernel(monkeypatch), KernelCache()
    taken = [notifier.store(7, number * MIB, bytes(MIB)) for number in range(6)]
    assert taken == [True] * (MOST_STORED // MIB) + [False, False]
    words = trio.run(heard, notifier, kernel, 4)
    assert [offset for _, _, offset, _ in words] == [0, MIB, 2 * MIB, 3 * MIB]
    assert notifier.store(7, 0, b"x")


def test_pages_and_changes_keep_their_order(monkeypatch):
    """Pages of the content before a change must be forgotten with it, and none after it."""
    kernel, notifier = Kernel(monkeypatch), KernelCache()
    notifier.store(7, 0, b"old")
    notifier.tell(CHANGED)
    notifier.store(7, 0, b"new")
    words = trio.run(heard, notifier, kernel, 3)
    assert words == [("store", 7, 0, b"old"), ("forget", 7), ("store", 7, 0, b"new")]


@pytest.mark.expected_log("did not take a notification")
def test_a_page_the_kernel_does_not_take_costs_only_itself(monkeypatch):
    kernel, notifier = Kernel(monkeypatch, refuses=True), KernelCache()
    notifier.store(7, 0, bytes(MOST_STORED))
    notifier.tell(CHANGED)
    assert trio.run(heard, notifier, kernel, 1) == [("forget", 7)]
    assert notifier.store(7, 0, b"x")


@pytest.mark.expected_log("did not take a notification", "fault of phonofs")
@pytest.mark.parametrize("error", [OSError(errno.ENOMEM, "no memory"), ValueError("odd")])
def test_a_name_the_kernel_does_not_take_costs_only_itself(monkeypatch, error):
    """What comes after it is told all the same, of the same change and of the next ones."""
    kernel, notifier = Kernel(monkeypatch), KernelCache()
    names = []

    def forget_name(parent, name):
        names.append(name)
        if len(names) == 1:
            raise error

    monkeypatch.setattr(pyfuse3, "invalidate_entry", forget_name)
    entries = ((2, "Jürgen"), (2, "山田"))
    notifier.tell(ChangeSet([msgspec.structs.replace(CHANGE, entries=entries), CHANGE]))
    assert trio.run(heard, notifier, kernel, 2) == [("forget", 7), ("forget", 7)]
    assert names == ["Jürgen".encode(), "山田".encode()]


async def told_of_names(monkeypatch, work, lookups):
    """Queue changes while lookups wait; return what the kernel hears before they end, and after."""
    kernel, notifier = Kernel(monkeypatch), KernelCache()
    monkeypatch.setattr(pyfuse3, "invalidate_entry", lambda parent, name: None)
    told = []
    with trio.fail_after(HANG_S):
        async with trio.open_nursery() as nursery:
            await nursery.start(notifier.run)
            with ExitStack() as waiting:
                for directory in lookups:
                    waiting.enter_context(notifier.looking_up(directory))
                for each in work:
                    each(notifier)
                await trio.testing.wait_all_tasks_blocked(0.05)
                with suppress(trio.WouldBlock):
                    while True:
                        told.append(kernel.told.receive_nowait())
                with notifier.looking_up(NAMED.entries[0][0]):  # a later one is not waited for
                    waiting.close()
                    later = [await kernel.told.receive() for _ in range(len(work) - len(told))]
            nursery.cancel_scope.cancel()
    return told, later


NAMED = msgspec.structs.replace(CHANGE, entries=((2, "old"), (5, "other")))


@pytest.mark.parametrize("lookups", [[2], [5], [2, 5, 5]])
def test_names_are_told_once_the_lookups_in_their_directory_are_answered(monkeypatch, lookups):
    """A thread that waits for the lock of a directory could not be killed. Order is kept."""
    work = [
        lambda it: it.store(9, 0, b"new"),
        lambda it: it.tell(ChangeSet([NAMED])),
        lambda it: it.store(7, 0, b"new"),
    ]
    expected = [("store", 9, 0, b"new"), ("forget", 7), ("store", 7, 0, b"new")]
    told, later = trio.run(told_of_names, monkeypatch, work, lookups)
    assert told == expected[: len(told)]
    assert len(told) < 2
    assert told + later == expected
    assert trio.run(told_of_names, monkeypatch, work, [3, 7]) == (expected, [])


def test_all_that_is_forgotten_waits_for_lookups_too(monkeypatch):
    def forget(it):
        it.opened(7)
        it.forget([(2, "old")])

    assert trio.run(told_of_names, monkeypatch, [forget], [2]) == ([], [("forget", 7)])
    directories = ChangeSet([], {2: ["2026"]})
    work = [lambda it: it.tell(directories)]
    assert trio.run(told_of_names, monkeypatch, work, [2]) == ([], [("forget", 2)])


async def told_in_time(notifier, ino):
    async with trio.open_nursery() as nursery:
        await nursery.start(notifier.run)
        notifier.tell(CHANGED)
        notifier.tell_size(ino)
        with trio.fail_after(HANG_S):
            await notifier.told(ino)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("refuses", [False, True])
@pytest.mark.expected_log("did not take a notification")
def test_a_size_is_told_whatever_waits_in_the_kernel(monkeypatch, refuses):
    """To forget pages may wait for the very read that waits for the kernel to know a size."""
    heard, read_is_answered, pages_are_forgotten = [], threading.Event(), threading.Event()

    def forget(ino, attr_only):
        if not attr_only:
            read_is_answered.wait(HANG_S)
            pages_are_forgotten.set()
            return
        heard.append((ino, attr_only))
        if refuses:
            raise OSError(errno.EIO, "no")

    monkeypatch.setattr(pyfuse3, "invalidate_inode", forget)
    notifier = KernelCache()
    trio.run(told_in_time, notifier, 8)
    assert heard == [(8, True)]
    read_is_answered.set()
    assert pages_are_forgotten.wait(HANG_S), "its thread outlasts the run; it is over now"


def test_a_size_that_comes_while_another_is_told_is_told_too(monkeypatch):
    """The kernel may have asked for the first one already; who waits does so for the second."""
    begun, go_on = threading.Event(), threading.Event()
    told = []

    def forget(ino, attr_only):
        told.append(ino)
        begun.set()
        assert go_on.wait(HANG_S)

    monkeypatch.setattr(pyfuse3, "invalidate_inode", forget)

    async def tell_twice():
        notifier = KernelCache()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(notifier.run)
            notifier.tell_size(7)
            await trio.to_thread.run_sync(begun.wait, HANG_S)
            notifier.tell_size(7)
            go_on.set()
            with trio.fail_after(HANG_S):
                await notifier.told(7)
            nursery.cancel_scope.cancel()

    trio.run(tell_twice)
    assert told == [7, 7]
