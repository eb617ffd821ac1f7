"""Reading through a real mount: each way of giving content, one fetch for all, the cache."""

import json
import os
import random
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from phonofs.fakeservice.options import Options
from tests.support.accounts import content_of, flat
from tests.support.mounts import files, held_at_once, mounted, standing, status_of, until
from tests.support.timing import Stopwatch

pytestmark = pytest.mark.fuse

MIB = 1 << 20


@pytest.mark.parametrize("way", ["range", "presign", "redirect", "stream"])
@pytest.mark.parametrize("cache_size", ["1G", "0"])
def test_every_way_of_giving_content_gives_the_right_bytes(tmp_path, way, cache_size):
    """Whole files and reads at odd places; the bearer token goes to the api's origin alone."""
    account = flat(1, 4095, 300_000, 9 * MIB + 17)
    with (
        standing(account, Options(content=way)) as stand_in,
        mounted(stand_in.url, tmp_path, cache_size=cache_size) as mount,
    ):
        for path, item in zip(files(mount.point), account, strict=True):
            whole = content_of(stand_in.service, item.id)
            with path.open("rb", buffering=0) as file:
                assert (
                    os.pread(file.fileno(), 999, len(whole) // 2) == whole[len(whole) // 2 :][:999]
                )
                assert os.pread(file.fileno(), 77, max(0, len(whole) - 50)) == whole[-50:]
            assert path.read_bytes() == whole
        assert stand_in.service.counters.bearers("store") == 0


@pytest.mark.parametrize(
    ("starts", "again"), [([0] * 8, 0), ([0, 0, 0, 0, MIB, 3 * MIB, 0, 0], 2 * MIB)]
)
def test_a_byte_is_fetched_once_however_many_read_it(tmp_path, starts, again):
    """Eight readers of one file: the service sends each byte once.

    From different places a request in flight may be cut short where another one begins; what
    was on the wire by then is all that comes twice.
    """
    account = flat(24 * MIB)
    with standing(account) as stand_in, mounted(stand_in.url, tmp_path) as mount:
        (path,) = files(mount.point)
        whole = content_of(stand_in.service, "00000000")

        def read(start: int) -> bool:
            with path.open("rb") as file:
                file.seek(start)
                return file.read() == whole[start:]

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(read, starts))
        sent = stand_in.service.counters.of("us-east", "00000000")
        assert sent.twice <= again
        assert sent.ranges.covers(0, 24 * MIB)


def test_a_header_does_not_download_a_film(tmp_path):
    """The first 64 KiB of a large file fetch at most 4 MiB."""
    with (
        standing(flat(400 * MIB, checksum="")) as stand_in,
        mounted(stand_in.url, tmp_path) as mount,
    ):
        (path,) = files(mount.point)
        with path.open("rb", buffering=0) as file:
            assert len(file.read(65536)) == 65536
        assert stand_in.service.counters.bytes <= 4 * MIB


@pytest.mark.parametrize("size", [4096, 65536, MIB // 4])
def test_a_header_takes_a_mebibyte_more_from_the_socket(tmp_path, size):
    """Whatever the size of the header, and though the response has the whole file."""
    with (
        standing(flat(400 * MIB, 400 * MIB, checksum="")) as stand_in,
        mounted(stand_in.url, tmp_path) as mount,
    ):
        first, path = files(mount.point)
        for each in (first, path):  # the second time over a connection that was used before
            before = taken_in_the_end(mount)
            with each.open("rb", buffering=0) as file:
                assert len(file.read(size)) == size
                taken = taken_in_the_end(mount) - before
            assert taken <= size + MIB + 64 * 1024  # the searches of the poll


def taken_in_the_end(mount) -> int:
    """The bytes that the mount took from its sockets, once it has taken no more for 20 looks."""
    seen = []

    def settled() -> bool:
        seen.append(status_of(mount)["service"]["received_bytes"])
        return len(seen) > 20 and len(set(seen[-20:])) == 1

    until(settled)
    return seen[-1]


def test_more_files_are_open_than_there_are_connections(tmp_path):
    """Each is read a little and left open; then each is read on."""
    with (
        standing(flat(*[12 * MIB] * 24)) as stand_in,
        mounted(stand_in.url, tmp_path, max_connections="4") as mount,
        ExitStack() as stack,
    ):
        opened = [stack.enter_context(each.open("rb", buffering=0)) for each in files(mount.point)]
        watch = Stopwatch()
        for _ in range(2):
            for file in opened:
                assert len(file.read(100_000)) == 100_000
        assert watch.within(30)


def test_what_is_cached_survives_a_remount_without_a_request(tmp_path):
    """The same bytes, inodes and times, and nothing asked of the service but a token."""
    account = flat(50_000, 3 * MIB)
    with standing(account) as stand_in:
        with mounted(stand_in.url, tmp_path) as mount:
            first = {p.name: (p.read_bytes(), p.stat()) for p in files(mount.point)}
            assert mount.stop() == 0
        stand_in.service.counters.clear()
        with mounted(stand_in.url, tmp_path, poll_interval="0") as mount:
            again = {p.name: (p.read_bytes(), p.stat()) for p in files(mount.point)}
        assert {n: b for n, (b, _) in first.items()} == {n: b for n, (b, _) in again.items()}
        for name, (_, status) in first.items():
            assert status.st_ino == again[name][1].st_ino
            assert status.st_ctime_ns == again[name][1].st_ctime_ns
        assert stand_in.service.counters.requests["content"] == 0


def test_cache_size_zero_leaves_no_content_on_disk(tmp_path):
    """No file below the cache folder holds a stretch of what was read."""
    account = flat(300_000)
    with (
        standing(account) as stand_in,
        mounted(stand_in.url, tmp_path, cache_size="0") as mount,
    ):
        (path,) = files(mount.point)
        piece = path.read_bytes()[1000:1251]
        held = [p for p in (tmp_path / "cache").rglob("*") if p.is_file()]
        assert held
        assert all(piece not in p.read_bytes() for p in held)


def test_the_cache_stays_below_its_cap(tmp_path):
    """30 MiB read through a cache of 8 MiB never hold more than 8 MiB."""
    account = flat(*[2 * MIB] * 15)
    with (
        standing(account) as stand_in,
        mounted(stand_in.url, tmp_path, cache_size="8M") as mount,
    ):
        for path, item in zip(files(mount.point), account, strict=True):
            assert path.read_bytes() == content_of(stand_in.service, item.id)
            held = held_at_once((tmp_path / "cache/content").rglob("??/*"))
            assert held <= 8 * MIB + 4096 * 16


@pytest.mark.promise("nobody-waits-for-ever")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_reader_of_a_stalled_file_at_once(tmp_path, number):
    """Ctrl-C and kill on a `cat` that waits for bytes return within a second."""
    with standing(flat(3 * MIB)) as stand_in, mounted(stand_in.url, tmp_path) as mount:
        (path,) = files(mount.point)
        faults = stand_in.faults({"kind": "content", "fail": "stall"})
        cat = subprocess.Popen(["cat", str(path)], stdout=subprocess.DEVNULL)
        until(lambda: sum(faults.fired.values()) > 0)
        watch = Stopwatch()
        cat.send_signal(number)
        cat.wait(60)
        assert watch.within(1)


def test_a_reader_that_handles_the_signal_gets_eintr(tmp_path):
    """Python's KeyboardInterrupt comes within a second, although it does not die of SIGINT."""
    code = "import sys\ntry: open(sys.argv[1],'rb').read()\nexcept KeyboardInterrupt: sys.exit(7)"
    with standing(flat(3 * MIB)) as stand_in, mounted(stand_in.url, tmp_path) as mount:
        (path,) = files(mount.point)
        faults = stand_in.faults({"kind": "content", "fail": "stall"})
        reader = subprocess.Popen(["python3", "-c", code, str(path)])
        until(lambda: sum(faults.fired.values()) > 0)
        watch = Stopwatch()
        reader.send_signal(signal.SIGINT)
        assert reader.wait(60) == 7
        assert watch.within(1.5)


@pytest.mark.promise("nobody-waits-for-others")
def test_a_stalled_file_stops_nobody_else(tmp_path):
    """While one file stalls, ls, stat, other files and a clean stop go on."""
    with standing(flat(3 * MIB, 1000)) as stand_in, mounted(stand_in.url, tmp_path) as mount:
        slow, quick = files(mount.point)
        faults = stand_in.faults({"kind": "content", "id": "00000000", "fail": "stall"})
        cats = [subprocess.Popen(["cat", str(slow)], stdout=subprocess.DEVNULL) for _ in range(20)]
        until(lambda: sum(faults.fired.values()) > 0)
        watch = Stopwatch()
        assert quick.read_bytes() == content_of(stand_in.service, "00000001")
        assert len(os.listdir(slow.parent)) == 2
        assert slow.stat().st_size == 3 * MIB
        assert watch.within(1)
        assert mount.stop() == 0
        assert watch.within(5)
        assert not os.path.ismount(mount.point)
        for cat in cats:
            assert cat.wait(60) != 0


def test_a_short_token_life_is_never_felt(tmp_path):
    """With tokens of 3 s, steady reading shows no error and one refresh a life at most."""
    seconds = 9
    with (
        standing(flat(*[40_000] * 40), Options(token_life_s=3)) as stand_in,
        mounted(stand_in.url, tmp_path, cache_size="0") as mount,
    ):
        watch, turn = Stopwatch(), 0
        while watch.seconds < seconds or turn < 2:
            for path in files(mount.point):
                with path.open("rb") as file:
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                    assert len(file.read()) == 40_000
            turn += 1
        assert stand_in.service.counters.tokens <= 1 + watch.seconds / 2.4 + 1
        assert "WARNING" not in mount.log_text()


def test_random_readers_are_soon_answered_by_the_kernel(tmp_path):
    """Small reads get the block around them into the page cache: right bytes, ever fewer
    requests."""
    with standing(flat(MIB)) as stand_in:
        with mounted(stand_in.url, tmp_path) as mount:
            (path,) = files(mount.point)
            whole = path.read_bytes()
            mount.stop()
        with mounted(stand_in.url, tmp_path) as mount, path.open("rb", buffering=0) as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)

            def asked() -> int:
                return json.loads(os.getxattr(mount.point, "user.phonofs.status"))["reader"]["hits"]

            def quiet() -> bool:
                before = asked()
                for offset in random.Random(1).sample(range(MIB - 100), 60):
                    assert os.pread(file.fileno(), 100, offset) == whole[offset : offset + 100]
                return asked() == before

            until(quiet)
            assert asked() < 200


@pytest.mark.parametrize("verify", ["checksum", "length"])
def test_verify_decides_about_contents_with_another_checksum(tmp_path, verify):
    """An error as a rule; with ``length`` the bytes, and one line for each type in the log."""
    account = flat(50_000, 300_000, checksum="0" * 32)
    with (
        standing(account) as stand_in,
        mounted(stand_in.url, tmp_path, verify=verify) as mount,
    ):
        for path, item in zip(files(mount.point), account, strict=True):
            copied = subprocess.run(["cat", path], capture_output=True, check=False)
            if verify == "checksum":
                assert copied.returncode == 1
            else:
                assert copied.stdout == content_of(stand_in.service, item.id)
        status = json.loads(os.getxattr(mount.point, "user.phonofs.status"))
        assert status["reader"]["verify"] == verify
        assert status["reader"]["differing"] == {"callrecording": 2}
        assert mount.log_text().count("verify=length") == (1 if verify == "length" else 0)


@pytest.mark.promise("right-bytes-or-error")
def test_content_streams_where_presigned_urls_are_refused(tmp_path):
    """The store refuses each fresh link; the files are read all the same, and status says why."""
    with (
        standing(flat(50_000, 9 * MIB), Options(content="presign")) as stand_in,
        mounted(stand_in.url, tmp_path) as mount,
    ):
        stand_in.faults({"kind": "store", "fail": "status", "status": 403})
        for path, item in zip(files(mount.point), stand_in.service.account, strict=True):
            assert path.read_bytes() == content_of(stand_in.service, item.id)
        status = json.loads(os.getxattr(mount.point, "user.phonofs.status"))
        assert status["service"]["failed_ways"] == {
            "us-east": {"presign": "a fresh link is answered with status 403"}
        }


def test_an_etag_that_each_node_has_otherwise(tmp_path):
    """Every other answer has another one: what has a checksum can be read, by the third try."""
    with (
        standing(flat(300_000, 9 * MIB)) as stand_in,
        mounted(stand_in.url, tmp_path) as mount,
    ):
        other = {"kind": "content", "fail": "headers", "set": {"ETag": '"other-node"'}, "every": 2}
        stand_in.faults({**other, "name": "etag"})
        for path, item in zip(files(mount.point), stand_in.service.account, strict=True):
            whole = content_of(stand_in.service, item.id)
            copies = [
                subprocess.run(["cat", path], capture_output=True, check=False) for _ in range(3)
            ]
            assert copies[-1].stdout == whole
            assert all(copy.stdout == whole for copy in copies if copy.returncode == 0)
        assert stand_in.service.faults.fired["etag"]
