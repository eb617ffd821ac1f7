"""Opens files with a journal, and kills itself at one point of it: killed_open.py FOLDER SYNC_S.

Run as a process of its own. For each number on standard input it forks a child, which opens some
files through the vfs and is killed (SIGKILL) at that line of our code, counted from the first open.
The answer is one line of JSON: the ids of the objects of which bytes were given, and whether the
child was killed. A child begins with the journal that the one before left.
"""

import json
import os
import signal
import sys
import threading
from pathlib import Path

import trio

import phonofs
from phonofs.access import Access, Opener
from phonofs.journal.journal import Journal
from phonofs.vfs import Vfs
from tests.support.catalogue_world import FakeService, make, uuid, world
from tests.support.reader_world import checksum_of, plain
from tests.support.reader_world import world as reader_world

DAY = "2024/2024-09/2024-09-03"
FILES = 3
SIZE = 1000

PACKAGE = Path(phonofs.__file__).parent
TRACED = tuple(str(PACKAGE / name) for name in ("access.py", "proc.py", "vfs.py", "journal/"))


class Killer:
    """Counts lines of our code in all threads, and kills this process at one of them."""

    def __init__(self, at: int) -> None:
        self._at = at
        self._lock = threading.Lock()
        self.lines = 0

    def begin(self) -> None:
        threading.settrace(self._enter)
        sys.settrace(self._enter)

    def _enter(self, frame, event, argument):
        return self._line if frame.f_code.co_filename.startswith(TRACED) else None

    def _line(self, frame, event, argument):
        with self._lock:
            self.lines += 1
            if self.lines == self._at:
                os.kill(os.getpid(), signal.SIGKILL)
        return self._line


async def opens(folder: Path, sync_s: float, at: int, answer: int) -> None:
    records = [
        make(uuid(n), f"2024-09-03T10:00:0{n}Z", size=SIZE, checksum=checksum_of(SIZE))
        for n in range(FILES)
    ]
    killer = Killer(at)
    journal = Journal.open(folder / "journal", sync_s=sync_s, allow=False)
    service = FakeService(latency_s=0)
    async with world(folder / "world", records, service=service) as here, reader_world() as reading:
        reading.service.latency_s = 0
        vfs = Vfs(
            here.catalogue,
            here.lister,
            reading.reader,
            cached_bytes=lambda record: 0,
            status=dict,
            access=Access(journal, ["a-crawler"]),
        )
        day = await here.open(DAY)
        entries = here.catalogue.children(day)
        async with trio.open_nursery() as nursery:
            await nursery.start(journal.run)
            killer.begin()
            for entry in entries:
                handle = await vfs.open(entry.ino, Opener(1000, os.getpid()))
                data = await vfs.read(handle, 0, 10)
                assert data == plain(0, 10)
                id = vfs.attribute(entry.ino, "user.phonofs.id")
                os.write(answer, id + b"\n")
                vfs.release(handle)
            sys.settrace(None)
            threading.settrace(None)
            nursery.cancel_scope.cancel()
        journal.close()
        os.write(answer, f"lines {killer.lines}\n".encode())
        os._exit(0)


def child(folder: Path, sync_s: float, at: int) -> dict[str, object]:
    """Run one child; return what it gave, and how it ended."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(read)
            (folder / "world").mkdir(exist_ok=True)
            trio.run(opens, folder, sync_s, at, write)
            os._exit(0)
        except BaseException as error:  # noqa: BLE001 - the child must end here
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        said = pipe.read().decode().split("\n")
    _, status = os.waitpid(pid, 0)
    return {
        "given": [line for line in said if line and not line.startswith("lines")],
        "lines": next((int(line.split()[1]) for line in said if line.startswith("lines")), 0),
        "killed": os.WIFSIGNALED(status),
        "failed": os.WIFEXITED(status) and os.WEXITSTATUS(status) != 0,
    }


def main() -> None:
    folder, sync_s = Path(sys.argv[1]), float(sys.argv[2])
    for line in sys.stdin:
        print(json.dumps(child(folder, sync_s, int(line))), flush=True)


if __name__ == "__main__":
    main()
