"""A real mount whose calls into the disk fail by libfiu: right bytes or an error, and it lives on.

Which calls: libfiu fails a function of the C library wherever the process calls it. ``pwrite``,
``pread``, ``fsync``, ``fdatasync`` and ``ftruncate`` are called for the cache and the catalogue
alone (also by SQLite), ``write`` for the log and the cache's probe; ``read`` is left out, since
the requests of the kernel come by it too. What is kept in memory while the disk fails is written
by ``pwrite`` as well: where every call fails, there is neither disk nor memory for any but small
contents.
"""

import errno
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.fault.scene import thinned
from tests.fault.tools import needs, quiet, reading, status
from tests.support.accounts import content_of, flat
from tests.support.mounts import Mount, files, standing, until

pytestmark = pytest.mark.fuse

DEADLINE_S = 1.5
SIZES = [1, 4095, 70_000, 300_000, 1_300_000, (5 << 19) + 3] * 4
DISK = ("rw/pwrite", "rw/pread", "rw/write", "rw/ftruncate", "sync/fsync", "sync/fdatasync")


class Fiu:
    """A mount below ``fiu-run``, and the remote control of what fails in it."""

    def __init__(self, stand_in, folder, *enabled, **options):
        self.stand_in = stand_in
        self._pipes = str(folder / "fiu")
        options = {"read_deadline": f"{DEADLINE_S}s", **options}
        self.mount = Mount(stand_in.url, folder / "m", folder / "cache", **options)
        given = [word for each in enabled for word in ("-c", each)]
        self.mount.under = ("fiu-run", "-x", "-f", self._pipes, *given)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.mount.clean_up()

    def say(self, *commands):
        """Switch points on and off while it runs."""
        prefix = f"{self._pipes}-{self.mount.process.pid}"
        words = [word for each in commands for word in ("-c", each)]
        done = subprocess.run(
            ["fiu-ctrl", "-f", self._pipes, *words, prefix], capture_output=True, timeout=20
        )
        assert done.returncode == 0, done
        assert not done.stdout + done.stderr

    def disk(self, command, extra=""):
        self.say(*(f"{command} name=posix/io/{point}{extra}" for point in DISK))

    def start(self):
        self.mount.start()
        self.paths = files(self.mount.point)
        assert len(self.paths) == len(SIZES)

    def again(self):
        """The next run, without libfiu, over the same cache: every byte is right."""
        assert self.mount.stop() == 0
        self.mount.under = ()
        self.mount.start()
        assert set(self.read_all()) == {"right"}
        assert status(self.mount)["cache"]["state"] == "on"
        assert self.mount.stop() == 0
        assert "Traceback" not in self.mount.log_text()

    def read_all(self):
        """How reading each file ended, out of the kernel's page cache."""
        with ThreadPoolExecutor(len(SIZES)) as pool:
            return list(pool.map(self._read, range(len(SIZES)), self.paths))

    def _read(self, number, path):
        try:
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                data = file.read()
        except OSError as error:
            return errno.errorcode[error.errno]
        assert data == content_of(self.stand_in.service, f"{number:08d}"), "wrong bytes"
        return "right"

    @property
    def troubles(self):
        """How often the cache met a failing disk."""
        return status(self.mount)["cache"]["errors"]


@pytest.fixture
def stand_in():
    needs("fiu-run", "fiu-ctrl")
    with standing(flat(*SIZES)) as stand_in:
        yield stand_in


def cold(cache):
    """Have the disk asked for what is cached: its pages leave the kernel's cache."""
    for path in cache.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def test_no_room_for_any_write(stand_in, tmp_path):
    """ENOSPC for every write: read through memory, and said once; cached when there is room."""
    with Fiu(stand_in, tmp_path) as fiu:
        fiu.start()
        fiu.say("enable name=posix/io/rw/pwrite,failinfo=28")
        assert set(fiu.read_all()) == {"right"}
        assert fiu.troubles >= 3
        assert fiu.mount.log_text().count("the disk cache is off") == 1
        fiu.say("disable name=posix/io/rw/pwrite")
        until(lambda: set(fiu.read_all()) == {"right"})
        until(lambda: quiet(fiu.mount))
        fiu.again()


@pytest.mark.promise("disk-trouble-is-not-the-readers")
@pytest.mark.parametrize("share", [0.3, pytest.param(0.02, marks=pytest.mark.slow)])
def test_the_disk_fails_now_and_then(stand_in, tmp_path, share):
    """EIO for a part of the calls, while a small cache fills, evicts and is read again."""
    with Fiu(stand_in, tmp_path, cache_size="6M") as fiu:
        fiu.start()
        fiu.disk("enable_random", f",probability={share},failinfo=5")
        for _ in range(2 if share > 0.1 else 20):
            with reading((path, 0, 1 << 20) for path in fiu.paths) as readers:
                assert set(fiu.read_all()) <= {"right", "EIO"}
                assert all(got >= 0 or got == -errno.EIO for got, _ in readers.ends())
            cold(tmp_path / "cache")
        assert fiu.troubles > 0
        fiu.disk("disable")
        until(lambda: set(fiu.read_all()) == {"right"})
        until(lambda: quiet(fiu.mount))
        fiu.again()


@pytest.mark.promise("disk-trouble-is-not-the-readers")
def test_cached_bytes_that_cannot_be_read(stand_in, tmp_path):
    """EIO for every read of the disk: the cache goes off, and all is right when it can be read."""
    with Fiu(stand_in, tmp_path) as fiu:
        fiu.start()
        assert set(fiu.read_all()) == {"right"}
        assert fiu.mount.stop() == 0
        fiu.start()
        cold(tmp_path / "cache")
        fiu.say("enable name=posix/io/rw/pread,failinfo=5")
        assert set(fiu.read_all()) <= {"right", "EIO"}
        assert status(fiu.mount)["cache"]["state"] == "off"
        assert fiu.troubles > 0
        fiu.say("disable name=posix/io/rw/pread")
        until(lambda: set(fiu.read_all()) == {"right"})
        fiu.again()


@pytest.mark.parametrize(
    "point", thinned(["rw/pwrite", "rw/pread", "sync/fsync", "rw/ftruncate", "rw/write"], 3)
)
def test_a_disk_that_fails_from_the_start(stand_in, tmp_path, point):
    """The mount begins on a failing disk: it serves through memory, or says why it cannot."""
    with Fiu(stand_in, tmp_path, f"enable name=posix/io/{point},failinfo=5") as fiu:
        fiu.mount.start(wait=False)
        ended = fiu.mount.process.poll
        until(lambda: os.path.ismount(fiu.mount.point) or ended() is not None)
        if ended() is None:
            fiu.paths = files(fiu.mount.point)
            assert set(fiu.read_all()) <= {"right", "EIO"}
        else:
            assert ended() in (1, 3, 32)
            assert fiu.mount.log_text().count("\n") == 1
        assert "Traceback" not in fiu.mount.log_text()
