"""Others' clients over a mount whose service and network fail one request in seven.

None of them may see an error: what fails is tried again. Before each test the kernel forgets the
files and the cache holds a fourth of them, so each meets its share of faults.
"""

import contextlib
import json
import os
import socket
import subprocess
from pathlib import Path
from shutil import which

import pytest

from phonofs.fakeservice.account import Account, flat_item
from phonofs.fakeservice.content import plain
from tests.fault.network import networked
from tests.fault.tools import needs
from tests.support.accounts import NOON_MS, content_of
from tests.support.mounts import Mount, files, until

pytestmark = pytest.mark.fuse

SIZES = [1, 4096, 70_000, 300_000, (1 << 20) + 1, (6 << 20) + 5] * 2
RULES = [
    {"kind": ["content", "search"], "probability": 0.12, "fail": "status", "status": 503},
    {"kind": "content", "probability": 0.12, "fail": "cut", "after": 50_000},
    {"kind": "content", "probability": 0.12, "fail": "reset", "after": 9000},
]


FIRST = {"kind": "content", "nth": 2, "fail": "reset", "after": 9000}
"""One that each client meets: who needs few requests may by chance meet none of the others."""

NETWORK = [
    {"fail": "delay", "every": 17, "seconds": 0.3},
    {"fail": "cut", "every": 19, "after": 40_000},
    {"fail": "rst", "every": 23},
    {"fail": "half-close", "every": 29, "after": 20_000},
    {"fail": "flip", "every": 31, "part": "head"},
    {"fail": "hole", "every": 97, "after": 30_000},
]


def run(*words, **options) -> str:
    done = subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, timeout=100, **options
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class Pair:
    """The mount and a plain folder with the same paths, bytes and times."""

    def __init__(self, mount: Mount, stand_in, plain_folder: Path) -> None:
        self.mount = mount
        self.stand_in = stand_in
        self.m = mount.point
        self.o = plain_folder

    def fill(self) -> None:
        for path in files(self.m):
            twin = self.o / path.relative_to(self.m)
            twin.parent.mkdir(parents=True, exist_ok=True)
            id = os.getxattr(path, "user.phonofs.id").decode()
            twin.write_bytes(content_of(self.stand_in.service, id))
            os.utime(twin, ns=(path.stat().st_mtime_ns,) * 2)

    def named(self, word: str) -> tuple[Path, Path]:
        """The same file in both, by its object's name."""
        for path in files(self.m):
            if word in os.getxattr(path, "user.phonofs.object_name").decode():
                return path, self.o / path.relative_to(self.m)
        raise AssertionError(word)

    def forget(self) -> None:
        """Have the kernel drop the files' pages, so that the mount has to answer."""
        for path in files(self.m):
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@pytest.fixture
def pair(shared):
    """The pair, of which nothing is in the kernel; the test must have met faults."""
    shared.forget()
    shared.faults = shared.stand_in.faults(FIRST, *RULES)
    before = fired(shared)
    yield shared
    assert fired(shared) > before


def fired(pair) -> int:
    """Faults of the service and of the network so far."""
    return sum(pair.faults.fired.values()) + pair.stand_in.network.fired.total()


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clients")
    account = Account(
        flat_item(f"{number:08d}", size, NOON_MS + 60_000 * number)
        for number, size in enumerate(SIZES)
    )
    for number, (name, maker) in enumerate(MADE.items()):
        made = maker(folder / name)
        if made:
            account.put(
                flat_item(f"f{number:07d}", 0, NOON_MS - 60_000 * (number + 1), name=name,
                          content=plain(made), mime_type="audio/x-wav")
            )  # fmt: skip
    with networked(account) as stand_in:
        # Too small for the large files, so that each client has them fetched, and meets faults.
        mount = Mount(stand_in.url, folder / "m", folder / "cache", cache_size="6M", timeout="2s")
        try:
            mount.start()
            pair = Pair(mount, stand_in, folder / "o")
            pair.fill()
            pair.faults = stand_in.faults(*RULES)
            stand_in.network.faults(*NETWORK)
            yield pair
            met = sum(stand_in.network.decided.met.values()) // len(NETWORK)
            assert met < 300 or len(stand_in.network.fired) == len(NETWORK)
            assert "Traceback" not in mount.log_text()
        finally:
            mount.clean_up()


def _wav(path: Path) -> bytes:
    if which("ffmpeg") is None:
        return b""
    run("ffmpeg", "-v", "error", "-f", "lavfi", "-i", "sine=frequency=440:duration=40", "-ac", "2",
        "-af", "vibrato", path)  # fmt: skip
    return path.read_bytes()


def _fio(path: Path) -> bytes:
    if which("fio") is None:
        return b""
    run("fio", "--name=v", f"--filename={path}", "--size=8m", "--rw=write", "--bs=16k",
        "--verify=crc32c", "--do_verify=0", cwd=path.parent)  # fmt: skip
    return path.read_bytes()


MADE = {"tone.wav": _wav, "verify.wav": _fio}


def test_rsync_finds_no_difference(pair):
    """By checksums, in both directions of mistake."""
    needs("rsync")
    assert run("rsync", "-rcni", "--delete", f"{pair.o}/", f"{pair.m}/") == ""
    copy = pair.o.with_name("copy")
    run("rsync", "-rt", f"{pair.m}/", f"{copy}/")
    run("diff", "-r", pair.o, copy)


def test_hashdeep_audits_it(pair):
    """Every hash known, nothing new, nothing missing."""
    needs("hashdeep")
    known = pair.o.with_name("known")
    known.write_text(run("hashdeep", "-r", "-c", "sha256", "-l", ".", cwd=pair.o))
    run("hashdeep", "-r", "-a", "-k", known, "-l", ".", cwd=pair.m)


@pytest.mark.promise("right-bytes-or-error")
@pytest.mark.parametrize("engine", ["psync", "mmap", "libaio"])
def test_fio_verifies_random_blocks(pair, engine):
    """Jobs read at random, each block with its own checksum; libaio past the page cache."""
    needs("fio")
    path, _ = pair.named("verify.wav")
    direct = ["--direct=1", "--iodepth=4"] if engine == "libaio" else []
    run("fio", "--name=v", f"--filename={path}", "--size=8m", "--readonly", "--rw=randread",
        "--bs=16k", "--verify=crc32c", "--verify_fatal=1", "--numjobs=4", "--io_size=4m",
        f"--ioengine={engine}", *direct, cwd=pair.o.parent)  # fmt: skip


def test_bsdtar_packs_it(pair):
    """bsdtar, which asks statfs and extended attributes, packs the same tree."""
    needs("bsdtar")
    unpacked = pair.o.with_name("unpacked")
    unpacked.mkdir()
    archive = pair.o.with_name("archive.tar")
    run("bsdtar", "-cf", archive, "--no-xattrs", "-C", pair.m, ".")
    run("bsdtar", "-xf", archive, "-C", unpacked)
    run("diff", "-r", pair.o, unpacked)


def test_ffmpeg_seeks_as_in_a_plain_file(pair):
    """Seeks to several places give the same sound."""
    needs("ffmpeg")
    path, twin = pair.named("tone.wav")
    for second in (0, 31, 12, 38, 5, 22, 17, 27):
        cut = ["-v", "error", "-xerror", "-ss", second, "-t", 1]
        there = run("ffmpeg", *cut[:3], *cut[3:5], "-i", path, *cut[5:], "-f", "md5", "-")
        assert there == run("ffmpeg", *cut[:3], *cut[3:5], "-i", twin, *cut[5:], "-f", "md5", "-")


@pytest.mark.promise("inodes-permanent")
def test_restic_finds_nothing_changed_after_a_remount(pair):
    """Inodes, times and sizes are the same in the next mount, so nothing is read again."""
    needs("restic")
    environment = {
        **os.environ,
        "RESTIC_PASSWORD": "x",
        "RESTIC_REPOSITORY": str(pair.o.with_name("repository")),
        "RESTIC_CACHE_DIR": str(pair.o.with_name("restic")),
    }
    run("restic", "init", env=environment)
    first = backup(pair, environment)
    assert first["files_new"] == len(files(pair.m))
    device = pair.m.stat().st_dev
    assert pair.mount.stop() == 0
    pair.mount.start()
    until(lambda: len(files(pair.m)) == first["files_new"])
    second = backup(pair, environment)
    assert (second["files_new"], second["files_changed"]) == (0, 0)
    assert second["files_unmodified"] == first["files_new"]
    assert (second["dirs_new"], second["data_blobs"]) == (0, 0)
    if pair.m.stat().st_dev == device:  # the kernel's number of the mount, which restic keeps too
        assert second["dirs_changed"] == 0
    run("restic", "check", "--read-data", env=environment)


def backup(pair, environment):
    said = run("restic", "backup", "--json", ".", env=environment, cwd=pair.m)
    return json.loads(said.strip().splitlines()[-1])


SHARE = Path(__file__).parents[2] / "contrib/samba/smb.conf"


def free_port() -> int:
    """Return a port of the loopback interface that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextlib.contextmanager
def smbd(folder: Path, shared: Path):
    """Our smb.conf as it is shipped, but for its path and who may come, on a port of its own."""
    port = free_port()
    places = ("lock directory", "state directory", "cache directory", "pid directory",
              "private dir", "ncalrpc dir")  # fmt: skip
    own = ["map to guest = bad user", "guest account = root", f"smb ports = {port}",
           "interfaces = lo", "bind interfaces only = yes", "load printers = no",
           f"log file = {folder}/log", *(f"{place} = {folder}" for place in places)]  # fmt: skip
    text = SHARE.read_text().replace("map to guest = never", "\n    ".join(own))
    text = text.replace("/mnt/calls", str(shared)).replace("guest ok = no", "guest ok = yes")
    conf = folder / "smb.conf"
    conf.write_text(text)
    # a session of its own: when it ends, smbd signals its whole process group
    server = subprocess.Popen(
        ["smbd", "--foreground", "--no-process-group", f"--configfile={conf}"],
        start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        until(lambda: listens(port) or server.poll() is not None)
        assert server.poll() is None, (folder / "log").read_text()
        yield port, conf
    finally:
        server.terminate()
        server.wait(60)


def listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.promise("right-bytes-or-error")
@pytest.mark.skipif(os.geteuid() != 0, reason="smbd becomes its users, which takes root")
def test_samba_serves_it(pair, tmp_path):
    """smbclient gets the same tree through our smb.conf: a second protocol on top."""
    needs("smbd", "smbclient")
    copy = tmp_path / "copy"
    copy.mkdir()
    with smbd(tmp_path, pair.m) as (port, conf):
        share = ["smbclient", "//127.0.0.1/calls", "-N", "-p", port, f"--configfile={conf}"]
        run(*share, "-c", "recurse on; prompt off; mget *", cwd=copy)
        listed = run(*share, "-c", "recurse on; ls")
        assert all(path.name in listed for path in files(pair.m))
        refused = subprocess.run([*map(str, share), "-c", f"put {conf} new"], capture_output=True)
        assert refused.returncode != 0
    run("diff", "-r", pair.o, copy)
