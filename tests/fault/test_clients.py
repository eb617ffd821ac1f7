"""Others' clients over a mount whose service fails one request in ten."""

import json
import os
import subprocess
from pathlib import Path
from shutil import which

import pytest

from phonofs.demo.account import ListedAccount, flat_item
from phonofs.demo.content import plain
from tests.fault.tools import needs
from tests.mount.conftest import NOON_MS, content_of
from tests.mounting import Mount, files, standing, until

pytestmark = pytest.mark.fuse

SIZES = [1, 4096, 70_000, 300_000, (1 << 20) + 1, (6 << 20) + 5] * 2
RULES = [
    {"kind": ["content", "search"], "probability": 0.05, "fail": "status", "status": 503},
    {"kind": "content", "probability": 0.05, "fail": "cut", "after": 50_000},
    {"kind": "content", "probability": 0.05, "fail": "reset", "after": 9000},
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


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clients")
    account = ListedAccount(
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
    with standing(account) as stand_in:
        mount = Mount(stand_in.url, folder / "m", folder / "cache", cache_size="8M")
        try:
            mount.start()
            pair = Pair(mount, stand_in, folder / "o")
            pair.fill()
            pair.faults = stand_in.faults(*RULES)
            yield pair
            assert all(pair.faults.fired.values()) or not sum(pair.faults.met.values()) > 100
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


@pytest.mark.parametrize("engine", ["psync", "mmap"])
def test_fio_verifies_random_blocks(pair, engine):
    """Eight jobs read at random, each block with its own checksum."""
    needs("fio")
    path, _ = pair.named("verify.wav")
    run("fio", "--name=v", f"--filename={path}", "--size=8m", "--readonly", "--rw=randread",
        "--bs=16k", "--verify=crc32c", "--verify_fatal=1", "--numjobs=4", "--io_size=4m",
        f"--ioengine={engine}", cwd=pair.o.parent)  # fmt: skip


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
    for second in (0, 31, 12):
        cut = ["-v", "error", "-xerror", "-ss", second, "-t", 1]
        there = run("ffmpeg", *cut[:3], *cut[3:5], "-i", path, *cut[5:], "-f", "md5", "-")
        assert there == run("ffmpeg", *cut[:3], *cut[3:5], "-i", twin, *cut[5:], "-f", "md5", "-")


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
    assert pair.mount.stop() == 0
    pair.mount.start()
    until(lambda: len(files(pair.m)) == first["files_new"])
    second = backup(pair, environment)
    assert (second["files_new"], second["files_changed"]) == (0, 0)
    assert second["files_unmodified"] == first["files_new"]
    # folders may count as changed: restic keeps user.phonofs.cached too, and that one moves
    assert (second["dirs_new"], second["data_blobs"]) == (0, 0)


def backup(pair, environment):
    said = run("restic", "backup", "--json", ".", env=environment, cwd=pair.m)
    return json.loads(said.strip().splitlines()[-1])
