"""Nobody hangs: 200 reads wait for a service that stalls, and all else answers at once."""

import errno
import os
import signal
import subprocess
import sys

import pytest

from phonofs.fuse.kernel_limits import MOST as MOST_IN_BACKGROUND
from tests.fault.tools import gauges, in_state, quiet, reading, status
from tests.support.accounts import content_of, flat
from tests.support.mounts import at_last, files, mounted, standing, until
from tests.support.timing import Stopwatch, timely

pytestmark = pytest.mark.fuse


READERS = 200
DEADLINE_S = 3.0
AT_ONCE_S = 1.0
BIG = 3 << 20
MOST = READERS * 3 // 4
"""Of readers that come later, some find their files brought ahead."""


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stalled")
    with (
        standing(flat(*[BIG] * READERS, 1000)) as stand_in,
        mounted(stand_in.url, folder, read_deadline=f"{DEADLINE_S}s", timeout="30s") as mount,
    ):
        mount.stand_in = stand_in
        yield mount


@pytest.fixture
def stalled(shared):
    """201 files, one of them cached, and a service that takes requests and says nothing more."""
    mount = shared
    mount.stand_in.faults()
    if mount.process is None:  # a test ended it
        mount.clean_up()
        mount.start()
    *mount.others, mount.cached = files(mount.point)  # the last one: nothing is brought ahead
    whole = content_of(mount.stand_in.service, f"{READERS:08d}")
    assert at_last(mount.cached.read_bytes) == whole
    mount.faults = mount.stand_in.faults({"fail": "stall", "name": "stalled"})
    return mount


def wait_for_all(mount, n):
    until(lambda: status(mount)["fuse"]["waiting"] >= n)
    assert mount.faults.fired["stalled"] > 0


def within(bound_s, what):
    watch = Stopwatch()
    what()
    return watch.within(bound_s)


def drop_pages(path):
    """Out of the page cache, so that the mount itself has to answer."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@pytest.mark.promise("nobody-waits-for-others")
@pytest.mark.expected_log
def test_everything_else_answers_while_200_reads_wait(stalled, kernel):
    """ls, stat, df, cached reads and status within a second; each read ends by its deadline."""
    mount, point = stalled, stalled.point
    connection = kernel.connection(point)
    assert int((connection / "max_background").read_text()) == MOST_IN_BACKGROUND
    with reading((path, 0, 1000) for path in mount.others[:-1]) as readers:
        wait_for_all(mount, READERS - 1)
        drop_pages(mount.cached)
        assert within(AT_ONCE_S, lambda: len(os.listdir(mount.cached.parent)))
        assert within(AT_ONCE_S, lambda: [path.stat() for path in mount.others])
        assert within(AT_ONCE_S, lambda: os.statvfs(point))
        assert within(AT_ONCE_S, mount.cached.read_bytes)
        assert within(AT_ONCE_S, lambda: os.getxattr(mount.cached, "user.phonofs.id"))
        assert within(AT_ONCE_S, lambda: status(mount))
        assert within(AT_ONCE_S, lambda: os.path.exists(mount.cached.parent / "none"))
        command = [sys.executable, "-m", "phonofs.cli", "status", "--json", str(point)]
        assert within(3, lambda: subprocess.run(command, env=mount.environment, check=True))
        busy = subprocess.run(["umount", point], capture_output=True)
        assert busy.returncode != 0
        assert kernel.waiting(connection) >= READERS - 1
        ends = readers.ends()
    assert {got for got, _ in ends} == {-errno.EIO}
    assert timely(max(took for _, took in ends), DEADLINE_S + 1.5)
    until(lambda: quiet(mount), within_s=15)
    assert kernel.waiting(connection) == 0
    assert "Traceback" not in mount.log_text()
    mount.stand_in.faults()
    until(lambda: _reads(mount.others[-1]))
    whole = content_of(mount.stand_in.service, f"{READERS - 1:08d}")
    assert mount.others[-1].read_bytes() == whole


def test_killed_readers_are_let_go_at_once(stalled):
    """SIGKILL for 200 waiting readers: the process is gone and the gauges fall to zero."""
    mount = stalled
    with reading((path, 0, 1000) for path in mount.others[:-1]) as readers:
        wait_for_all(mount, MOST)
        watch = Stopwatch()
        readers.kill()
        assert watch.within(AT_ONCE_S)
    until(lambda: gauges(mount)["waiting"] == 0, within_s=2)
    until(lambda: gauges(mount)["open_files"] == 0, within_s=2)
    until(lambda: quiet(mount), within_s=20)


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "way", ["SIGTERM", pytest.param("umount -l", marks=SLOW), pytest.param("SIGKILL", marks=SLOW)]
)
def test_no_process_stays_behind(stalled, kernel, way):
    """Readers that wait when the mount goes end at once; none is left in state D."""
    mount = stalled
    connection = kernel.connection(mount.point)
    with reading((path, 0, 1000) for path in mount.others[:-1]) as readers:
        wait_for_all(mount, MOST)
        watch = Stopwatch()
        if way == "umount -l":
            subprocess.run(["umount", "-l", mount.point], check=True)
            assert watch.within(AT_ONCE_S)
        else:
            mount.stop(getattr(signal, way))
            assert watch.within(5)
        ends = readers.ends()
        assert watch.within(DEADLINE_S + 1.5)
        assert {got for got, _ in ends} <= {1000, -errno.EIO, -errno.ENOTCONN, -errno.ECONNABORTED}
        assert not in_state("D", [readers.process.pid])
    assert kernel.waiting(connection) == 0
    if way == "umount -l":
        assert mount.process.wait(60) == 0
        mount.process = None
    assert os.path.ismount(mount.point) is False or way == "SIGKILL"


def test_an_unlisted_folder_stops_no_listed_one(tmp_path):
    """Opening a folder waits for the service; its neighbours answer, also in the same month."""
    day_ms = 86_400_000
    account = flat(*[1000] * 3)
    for item in flat(*[1000] * 3, created_ms=next(iter(account)).created_ms - day_ms):
        account.put(type(item)(**{**item.__dict__, "id": "o" + item.id}))
    with (
        standing(account) as stand_in,
        mounted(stand_in.url, tmp_path, read_deadline=f"{DEADLINE_S}s") as mount,
    ):
        (month,) = at_last(lambda: list(mount.point.glob("*/*")))
        known, unknown = at_last(lambda: sorted(month.iterdir(), reverse=True))
        names = at_last(lambda: os.listdir(known))
        faults = stand_in.faults({"kind": "search", "fail": "stall", "name": "stalled"})
        ls = subprocess.Popen(["ls", unknown], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        until(lambda: faults.fired["stalled"] > 0)
        watch = Stopwatch()
        assert os.listdir(known) == names
        assert len((known / names[0]).read_bytes()) == 1000
        assert sorted(os.listdir(month)) == sorted([known.name, unknown.name])
        assert watch.within(AT_ONCE_S + 1)
        _, said = ls.communicate(timeout=60)
        assert ls.returncode != 0
        assert b"Input/output error" in said
        assert watch.within(DEADLINE_S + 1.5)
        stand_in.faults()
        until(lambda: len(_names(unknown)) == 3)


def _reads(path):
    try:
        return bool(path.read_bytes())
    except OSError:
        return False


def _names(folder):
    try:
        return os.listdir(folder)
    except OSError:
        return []
