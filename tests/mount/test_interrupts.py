"""Which signals end a wait, whose, and how long a read may wait when it is tried again.

The readers are programs of their own. They call read(2) by ctypes, because Python repeats its own
calls after EINTR (PEP 475) and would hide it.
"""

import contextlib
import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from phonofs.fakeservice.account import Account, flat_item
from tests.support.accounts import NOON_MS
from tests.support.mounts import Mount, at_last, files, mounted, standing, until

pytestmark = pytest.mark.fuse

DAY_MS = 86_400_000
LATE_S = 0.7
"""How long content takes to come: several looks of the mount at who waits."""

COMMON = """
import ctypes, mmap, os, signal, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)
def read_once(fd):
    buffer = ctypes.create_string_buffer(4096)
    got = libc.read(fd, buffer, 4096)
    return got if got >= 0 else -ctypes.get_errno()
"""


def account(count: int) -> Account:
    """A file a day: nothing is brought ahead with another one."""
    return Account(
        flat_item(f"{index:08d}", 3 << 20, NOON_MS - DAY_MS * index) for index in range(count)
    )


def program(code: str, *words: object, **more: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-S", "-c", COMMON + code, *map(str, words)],
        stdout=subprocess.PIPE,
        text=True,
        **more,
    )


def said(process: "subprocess.Popen[str]", within_s: float = 60) -> str:
    try:
        return process.communicate(timeout=within_s)[0].strip()
    except subprocess.TimeoutExpired:
        return "it waits for ever"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    with (
        standing(account(20)) as stand_in,
        mounted(stand_in.url, tmp_path_factory.mktemp("late")) as mount,
    ):
        mount.cold = files(mount.point)
        late = {"fail": "delay", "seconds": LATE_S}
        stand_in.faults({"kind": ["content", "presign", "store"], **late})
        yield mount


@pytest.fixture
def cold(shared):
    """A file that nobody has read yet, whose content is late."""
    return shared.cold.pop()


SIGNALLED = """
number = int(sys.argv[2])
signal.signal(number, lambda *_: None)
signal.siginterrupt(number, False)  # SA_RESTART, as a careful program has it
reader = threading.main_thread().ident
def disturb():
    while True:
        time.sleep(0.05)
        signal.pthread_kill(reader, number)
threading.Thread(target=disturb, daemon=True).start()
print(read_once(os.open(sys.argv[1], os.O_RDONLY)), flush=True)
os._exit(0)
"""

GOES_ON = (
    signal.SIGALRM,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGIO,
    signal.SIGCHLD,
    signal.SIGPROF,
    signal.SIGRTMIN,
)


@pytest.mark.promise("nobody-waits-for-ever")
def test_a_handled_signal_that_asks_for_no_end_leaves_a_read_alone(shared):
    """A timer, SIGCHLD, SIGIO: a program does not expect EINTR of a file for any of them."""
    readers = {number: program(SIGNALLED, shared.cold.pop(), int(number)) for number in GOES_ON}
    assert {number: said(reader) for number, reader in readers.items()} == dict.fromkeys(
        GOES_ON, "4096"
    )


@pytest.mark.promise("nobody-waits-for-ever")
def test_a_handled_signal_that_asks_for_an_end_gives_eintr(tmp_path):
    """So that Ctrl-C, kill and a closed terminal reach a program that handles them."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
    with standing(account(4)) as stand_in, mounted(stand_in.url, tmp_path) as mount:
        paths = files(mount.point)
        stand_in.faults({"kind": "content", "fail": "stall"})
        readers = [program(SIGNALLED, *each) for each in zip(paths, map(int, numbers), strict=True)]
        assert [said(reader) for reader in readers] == [str(-errno.EINTR)] * 4


@pytest.mark.promise("nobody-waits-for-ever")
def test_the_thread_that_opened_a_file_may_end(cold):
    """Pools end their idle threads; the others read on."""
    code = """
opened = []
thread = threading.Thread(target=lambda: opened.append(os.open(sys.argv[1], os.O_RDONLY)))
thread.start(); thread.join()
print(read_once(opened[0]))
"""
    assert said(program(code, cold)) == "4096"


def test_the_thread_that_opened_a_file_may_end_while_another_one_waits(cold):
    code = """
opened, go = [], threading.Event()
def open_and_end():
    opened.append(os.open(sys.argv[1], os.O_RDONLY))
    go.set()
    time.sleep(0.25)
threading.Thread(target=open_and_end).start()
go.wait()
print(read_once(opened[0]))
"""
    assert said(program(code, cold)) == "4096"


@pytest.mark.promise("nobody-waits-for-ever")
@pytest.mark.parametrize(
    ("before", "after"), [("sleep 0.3;", ""), ("", "sleep 0.5")], ids=["before the read", "during"]
)
def test_the_process_that_opened_a_file_may_end(cold, before, after):
    """A shell hands a descriptor on and ends."""
    code = COMMON + "print(read_once(0))"
    inner = f'exec 3<"$1"; ({before} exec "$2" -S -c "$3" <&3) & {after}'
    outer = 'sh -c "$@"; :'  # which waits for the inner one, so that nothing is left of it
    words = ["sh", "-c", outer, "sh", inner, "sh", str(cold), sys.executable, code]
    assert said(subprocess.Popen(words, stdout=subprocess.PIPE, text=True)) == "4096"


def test_a_mapped_file_whose_opener_has_ended(cold):
    """No SIGBUS."""
    code = """
maps = []
def map_it():
    fd = os.open(sys.argv[1], os.O_RDONLY)
    maps.append(mmap.mmap(fd, 0, prot=mmap.PROT_READ))
    maps[0].madvise(mmap.MADV_RANDOM)
thread = threading.Thread(target=map_it)
thread.start(); thread.join()
print(len(maps[0][4096:8192]))
"""
    assert said(program(code, cold)) == "4096"


def test_nginx_with_a_timer(shared, cold, tmp_path):
    """It reads a file in the middle of an answer, with SIGALRM ten times a second."""
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if nginx is None:
        pytest.skip("nginx is not installed; the signal it uses is tried above")
    socket = tmp_path / "socket"
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    folders = " ".join(f"{kind}_temp_path {tmp_path}/{kind};" for kind in kinds)
    (tmp_path / "nginx.conf").write_text(
        "daemon off; master_process off; timer_resolution 50ms; pid nginx.pid; events {}\n"
        f"http {{ access_log off; sendfile off; {folders}\n"
        f"server {{ listen unix:{socket}; root {shared.point}; }} }}\n"
    )
    words = [nginx, "-p", tmp_path, "-e", "error.log", "-c", "nginx.conf"]
    server = subprocess.Popen(words, stderr=subprocess.DEVNULL)
    try:
        until(lambda: socket.exists() or server.poll() is not None)
        url = f"http://here/{cold.relative_to(shared.point)}"
        got = subprocess.run(
            ["curl", "-sSf", "--unix-socket", socket, url], capture_output=True, check=True
        ).stdout
        assert len(got) == 3 << 20
    finally:
        server.terminate()
        server.wait(60)


# deadlines

WAITS_S = 60.0
"""Far more than the deadline below; today's fault is to wait for ever."""


DISTURBED = """
signal.signal(signal.SIGINT, lambda *_: None)
reader = threading.main_thread().ident
def disturb():
    while True:
        time.sleep(0.2)
        signal.pthread_kill(reader, signal.SIGINT)
"""


@contextlib.contextmanager
def stalled(folder: Path, kind: str):
    """A mount with a deadline of a second, over a service that stops answering."""
    with (
        standing(account(2)) as stand_in,
        mounted(stand_in.url, folder, read_deadline="1s", poll_interval="0") as mount,
    ):
        if kind == "content":
            mount.files = files(mount.point)
        else:
            mount.day = at_last(lambda: min(mount.point.glob("*/*/*")))
        faults = stand_in.faults({"kind": kind, "fail": "stall", "name": "stalled"})
        yield mount
        assert faults.fired["stalled"] > 0


@pytest.mark.promise("nobody-waits-for-ever")
def test_a_read_that_is_tried_again_keeps_its_deadline(tmp_path):
    """Python repeats a read after EINTR (PEP 475): EIO must come all the same."""
    code = (
        DISTURBED
        + """
opened = []
def open_it():
    opened.append(os.open(sys.argv[1], os.O_RDONLY))
if sys.argv[2] == "itself":
    open_it()
    threading.Thread(target=disturb, daemon=True).start()
else:
    thread = threading.Thread(target=open_it)
    thread.start(); thread.join()
try:
    os.read(opened[0], 4096)
except OSError as error:
    print(error.errno, flush=True)
os._exit(0)
"""
    )
    with stalled(tmp_path, "content") as mount:
        openers = ("a thread that has ended", "itself")
        readers = [program(code, *each) for each in zip(mount.files, openers, strict=True)]
        assert [said(reader, WAITS_S) for reader in readers] == [str(errno.EIO)] * 2


def test_what_is_listed_again_keeps_its_deadline(tmp_path):
    """The same for a folder that was never listed, and for a name in it."""
    code = (
        DISTURBED
        + """
threading.Thread(target=disturb, daemon=True).start()
try:
    os.open(sys.argv[1], os.O_RDONLY)
except OSError as error:
    print(error.errno, flush=True)
os._exit(0)
"""
    )
    with stalled(tmp_path, "search") as mount:
        readers = [program(code, path) for path in (mount.day, mount.day / "name")]
        assert [said(reader, WAITS_S) for reader in readers] == [str(errno.EIO)] * 2


# where /proc hides the processes of others

HIDDEN = """
mount -t proc -o hidepid=2,gid=12345 proc /proc || exit 77
"$1" "phonofs#work" "$2" -o drop_privileges,allow_other,ro,nosuid,nodev,noexec,default_permissions
status=$?
[ $status = 0 ] || exit $status
echo mounted
cat  # until the test has done
"""


@pytest.fixture
def hidden(tmp_path):
    """A mount whose process sees no other process in /proc; ``point`` leads to it from here."""
    mount_fuse3 = shutil.which("mount.fuse3") or shutil.which("mount.fuse3", path="/sbin:/usr/sbin")
    if os.geteuid() != 0 or mount_fuse3 is None:
        pytest.skip("needs root and mount.fuse3 (package fuse3)")
    with standing(account(2)) as stand_in:
        mount = Mount(stand_in.url, tmp_path / "m", tmp_path / "cache")
        mount.point.mkdir()
        mount.on_path(tmp_path / "bin")
        space = subprocess.Popen(
            ["unshare", "-m", "sh", "-c", HIDDEN, "sh", mount_fuse3, str(mount.point)],
            env=mount.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            if space.stdout.readline() != "mounted\n":
                status = space.wait(60)
                assert status == 77, "it was not mounted"
                pytest.skip("/proc cannot be mounted with hidepid=2 here")
            mount.point = Path(f"/proc/{space.pid}/root{mount.point}")
            mount.stand_in = stand_in
            yield mount
            subprocess.run(
                ["nsenter", f"--mount=/proc/{space.pid}/ns/mnt", "umount", "-l", tmp_path / "m"],
                check=True,
            )
        finally:
            space.stdin.close()
            space.wait(60)
            space.stdout.close()


@pytest.mark.promise("nobody-waits-for-ever")
def test_where_proc_hides_a_caller_it_is_left_to_its_deadline(hidden):
    """`hidepid=2`: a file, a folder and a name that take a while are right all the same."""
    hidden.stand_in.faults({"fail": "delay", "seconds": LATE_S})
    code = "print(read_once(os.open(sys.argv[1], os.O_RDONLY)))"
    first, second = files(hidden.point)
    assert {said(program(code, path)) for path in (first, second)} == {"4096"}
