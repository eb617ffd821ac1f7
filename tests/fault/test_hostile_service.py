"""What a hostile service sends costs it more than the mount: its event loop, its memory, its time.

Each endpoint answers with crumbs and bombs (:mod:`tests.fault.hostile_service`); phonofs runs as a
process of its own whose event loop is watched (:mod:`tests.fault.measured`). No task may hold the
loop for more than 50 ms of its thread's CPU, and memory, memfd files included, may not grow by
more than 64 MiB; whoever waits is answered in time, and what is asked afterwards is served.
"""

import errno
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from io import FileIO
from pathlib import Path

import pytest

from phonofs.fakeservice.account import Account, Item, flat_item
from phonofs.fakeservice.options import Options
from tests.fault.hostile_service import IN_JSON, ON_THE_WIRE, Endpoint, HostileService, hostile
from tests.fault.measured import Report, memory_bytes
from tests.support.accounts import NOON_MS
from tests.support.mounts import START_S, Mount, until
from tests.support.timing import Stopwatch, timely

pytestmark = [
    pytest.mark.fuse,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root sees the memfd files of a mount"),
]

MOST_S = 0.05
"""CPU seconds that one step of a task may take."""
MOST_BYTES = 64 * 1024 * 1024
DEADLINE_S = 2.0
PATIENCE_S = 8 * DEADLINE_S
"""A command may ask more than once, and starts Python; a reader has one deadline."""
HANG_S = 200.0
DAYS = 400
DAY_MS = 86_400_000
SIZE = 3_000_001


def attacks(endpoint: Endpoint, *quick: str) -> list[object]:
    """All attacks on an endpoint: those that are named in every run, the others in the long one."""
    names = [*ON_THE_WIRE, *(() if endpoint == "content" else IN_JSON)]
    return [
        pytest.param(
            endpoint, name, marks=() if name in quick else pytest.mark.slow, id=f"{endpoint}-{name}"
        )
        for name in names
    ]


READ = [
    *attacks("search", "zeros", "few objects", "tags", "nested", "chunks_of_a_byte"),
    *attacks("content", "chunks_of_a_byte", "interim_100"),
    *attacks("restore", "zeros"),
]
ASKED = [
    *attacks("token", "zeros"),
    *attacks("regions", "few arrays"),
    *attacks("record", "tags"),
]


class Watch:
    """Looks after the memory of a process in a thread, until it is stopped."""

    def __init__(self, pid: int, base_bytes: int) -> None:
        self.grown = 0
        self._pid = pid
        self._base = base_bytes
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.wait(0.01):
            with suppress(OSError, KeyError):  # it has ended
                self.grown = max(self.grown, memory_bytes(self._pid) - self._base)

    def stop(self) -> None:
        self._over.set()
        self._thread.join()


def many_days() -> Iterator[Item]:
    """A recording that can be read and one that is archived, on each day."""
    for day in range(DAYS):
        created_ms = NOON_MS + day * DAY_MS
        yield flat_item(f"a{day:07d}", SIZE, created_ms)
        yield flat_item(f"b{day:07d}", 1000, created_ms + 60_000, state="ARCHIVED")


class Target:
    """A watched mount over a hostile service. Each test uses a day that none did before."""

    def __init__(self, service: HostileService, mount: Mount, report: Report) -> None:
        self.service = service
        self.mount = mount
        self.report = report
        self._days = iter(range(1, DAYS, 3))  # reading ahead goes to what lies beside

    def day(self) -> tuple[int, Path]:
        """A day, by its number, and its folder."""
        number = next(self._days)
        date = time.gmtime((NOON_MS + number * DAY_MS) / 1000)
        return number, self.mount.point / time.strftime("%Y/%Y-%m/%Y-%m-%d", date)

    @property
    def pid(self) -> int:
        assert self.mount.process is not None
        return self.mount.process.pid


@contextmanager
def target(folder: Path, content: str) -> Iterator[Target]:
    """A mount that has listed one day and knows how content is had."""
    options = Options(content=content, presign_host="api", total="records")  # type: ignore[arg-type]
    report = Report.create(folder / "report")
    with hostile(Account(many_days()), options) as service:
        mount = Mount(service.url, folder / "m", folder / "cache", **SETTINGS)
        mount.program = ("-m", "tests.fault.measured", str(folder / "report"))
        try:
            mount.start()
            made = Target(service, mount, report)
            number, day = made.day()
            until(lambda: readable(day, content_of(service, number), SIZE // 2))
            yield made
        finally:
            mount.clean_up()


SETTINGS = {
    "read_deadline": f"{DEADLINE_S:g}s",
    "timeout": "1s",
    "poll_interval": "1h",
    "cache_size": "1G",
    "log_level": "error",
}


@pytest.fixture(scope="module")
def mounted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A mount that is attacked by many tests, one after another."""
    with target(tmp_path_factory.mktemp("range"), "range") as made:
        yield made


@pytest.mark.parametrize(("endpoint", "name"), READ)
def test_a_mount_outlives_a_hostile_answer(
    mounted: Target, endpoint: Endpoint, name: str, tmp_path: Path
) -> None:
    """A reader of a folder or of a file, and ``phonofs restore``."""
    outlives(mounted, endpoint, name, tmp_path)


@pytest.mark.parametrize(("endpoint", "name"), attacks("presign", "header_lines"))
def test_a_reader_by_presigned_urls_outlives_a_hostile_answer(
    endpoint: Endpoint, name: str, tmp_path: Path
) -> None:
    """A mount of its own: afterwards content may come another way."""
    with target(tmp_path, "presign") as made:
        outlives(made, endpoint, name, tmp_path)


def outlives(at: Target, endpoint: Endpoint, name: str, scratch: Path) -> None:
    """Attack an endpoint while somebody waits for it; then all must be well again."""
    number, folder = at.day()
    if endpoint != "search":
        until(lambda: listed(folder))
    at.report.begin(memory_bytes(at.pid))
    watch = Watch(at.pid, at.report.base_bytes)
    at.service.attack(endpoint, name)
    stopwatch = Stopwatch()
    try:
        if endpoint == "search":
            with suppress(OSError):
                os.listdir(folder)
        elif endpoint == "restore":
            [archived] = folder.glob("*b0*.mp3")
            command(at.service, scratch, "restore", str(archived))
        else:
            [file] = folder.glob("*a0*.mp3")
            with suppress(OSError):
                assert middle(file) == content_of(at.service, number)[SIZE // 2 :]
        took_s = stopwatch.seconds
    finally:
        at.service.behave()
        watch.stop()
    assert at.service.fired
    assert timely(took_s, PATIENCE_S)
    assert timely(at.report.longest_s, MOST_S), at.report.where
    assert watch.grown < MOST_BYTES
    until(lambda: readable(folder, content_of(at.service, number)))


@pytest.mark.promise("memory-is-bounded")
def test_an_open_file_that_could_not_be_read_holds_no_memory(tmp_path: Path) -> None:
    """A player or an indexer may keep many of them; what went wrong is kept as a sentence."""
    with target(tmp_path, "range") as made:
        folders = [folder for _, folder in (made.day() for _ in range(24))]
        until(lambda: all(listed(folder) for folder in folders))
        files = [next(folder.glob("*a0*.mp3")) for folder in folders]
        made.service.attack("content", "interim_100")
        base_bytes = memory_bytes(made.pid)
        with ExitStack() as opened, ThreadPoolExecutor(8) as pool:
            handles = [opened.enter_context(file.open("rb", buffering=0)) for file in files]
            failures = list(pool.map(failure, handles))
            assert failures == [errno.EIO] * len(files)
            until(lambda: memory_bytes(made.pid) - base_bytes < len(files) * (512 << 10))


def failure(opened: FileIO) -> int | None:
    """Why the first bytes cannot be read."""
    try:
        opened.read(4096)
    except OSError as error:
        return error.errno
    return None


@pytest.mark.parametrize(("endpoint", "name"), ASKED)
def test_a_command_outlives_a_hostile_answer(endpoint: Endpoint, name: str, tmp_path: Path) -> None:
    """``doctor`` asks for a token and the regions before all else."""
    with hostile(Account(many_days()), Options()) as service:
        service.attack(endpoint, name)
        words = ("record", service.url, "a0000000") if endpoint == "record" else ("doctor",)
        command(service, tmp_path, *words)
        assert service.fired


def command(service: HostileService, folder: Path, *words: str) -> None:
    """Run a command, watched."""
    report = Report.create(folder / "report")
    environment = {
        **Mount(service.url, folder / "m", folder / "cache", **SETTINGS).environment,
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.fault.measured", str(folder / "report"), *words],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    watch = Watch(process.pid, 0)
    stopwatch = Stopwatch()
    try:
        process.wait(HANG_S)
        assert stopwatch.within(PATIENCE_S)
    finally:
        process.kill()
        process.wait(START_S)
        watch.stop()
    assert timely(report.longest_s, MOST_S), report.where
    assert watch.grown - report.base_bytes < MOST_BYTES


def middle(file: Path) -> bytes:
    """From the middle to the end: a part, for which a presigned URL may be asked."""
    return from_offset(file, SIZE // 2)


def from_offset(file: Path, offset: int) -> bytes:
    with file.open("rb") as opened:
        opened.seek(offset)
        return opened.read()


def content_of(service: HostileService, number: int) -> bytes:
    item = service.service.account.item("us-east", f"a{number:07d}")
    assert item is not None
    return item.content.read(0, SIZE)


def listed(folder: Path) -> bool:
    """Whether the day is there, which takes longer than the deadline on a busy machine."""
    try:
        return len(os.listdir(folder)) == 2
    except OSError:
        return False


def readable(folder: Path, content: bytes, offset: int = 0) -> bool:
    """Whether the day's recording is there with its bytes, from an offset on."""
    try:
        found = [from_offset(path, offset) for path in folder.glob("*a0*.mp3")]
    except OSError:
        return False
    return found == [content[offset:]]
