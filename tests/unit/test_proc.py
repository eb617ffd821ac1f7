"""What is known of a process, from a thread of it too."""

import os
import subprocess
import threading
from pathlib import Path

from phonofs.proc import UNKNOWN, Programs, Sessions
from tests.support.descriptors import descriptors, settled_descriptors


def test_this_process():
    comm = Path("/proc/self/comm").read_text().strip()
    found = Sessions().look(os.getpid())
    assert (found.pid, found.program) == (os.getpid(), comm)
    login = Path("/proc/self/loginuid").read_text()
    assert found.login == (None if login == "4294967295" else int(login))
    assert found.unit is None or "/" not in found.unit


def test_a_thread_is_its_process_by_whatever_name():
    seen = []

    def work() -> None:
        with open("/proc/thread-self/comm", "w") as file:
            file.write("a thread")
        seen.append(Programs().look(threading.get_native_id()))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [Programs().look(os.getpid())]


def test_a_process_that_runs_another_program_is_looked_at_again():
    comm = Path("/proc/self/comm")
    before = comm.read_text()
    sessions, programs = Sessions(), Programs()
    try:
        for name in ("one", "another"):
            comm.write_text(name)
            assert sessions.look(os.getpid()).program == name
            assert programs.look(os.getpid()).program == name
    finally:
        comm.write_text(before.strip())


def test_what_cannot_be_known():
    gone = subprocess.Popen(["true"])
    gone.wait()
    for pid in (0, -1, gone.pid):
        assert Sessions().look(pid) == UNKNOWN


def test_a_process_that_has_ended_is_not_known_any_more():
    """Nor is another one that has its number: the file that is kept open is the former one's."""
    programs = Programs()
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        running.stdin.write(b"x")
        running.stdin.flush()
        assert running.stdout.read(1) == b"x"  # before that it may still have our name
        found = [programs.look(running.pid).program for _ in range(2)]
    assert found == ["cat", "cat"]
    assert programs.look(running.pid) == UNKNOWN
    assert programs.look(os.getpid()).pid == os.getpid()


def test_one_file_is_kept_open_and_closed():
    before = settled_descriptors()
    programs = Programs()
    for pid in (os.getpid(), os.getppid(), os.getpid(), 0, 1):
        programs.look(pid)
    assert descriptors() <= before + 1
    del programs
    assert descriptors() == before
