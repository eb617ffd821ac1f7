"""Bugs that others had, each as a test of ours; the numbers are those of their trackers."""

import os
import subprocess
import sys
from datetime import UTC, datetime

import pytest
import trio

from phonofs.demo.dataset import demo_account
from phonofs.fakeservice.account import Account, change, flat_item
from phonofs.fakeservice.content import Content, Loop
from phonofs.fakeservice.options import Options
from tests.fault.scene import KERNEL, RATE, fast, living, outcome
from tests.fault.scene import standing as serving
from tests.fault.scene import until as happens
from tests.fault.tools import needs
from tests.support.accounts import NOON_MS, content_of, flat
from tests.support.mounts import Mount, files, mounted, standing, until
from tests.support.timing import Stopwatch

MIB = 1 << 20


@pytest.mark.expected_log
@pytest.mark.parametrize("way", ["range", "stream"])
@fast
async def test_hf_mount_12_no_short_read_at_a_boundary(tmp_path, way):
    """Reads across the edges of parts and windows are whole while bodies are cut there."""
    async with (
        serving(flat((9 << 20) + 5), Options(content=way)) as service,
        living(service, tmp_path) as scene,
    ):
        (ino,) = (await scene.tree()).values()
        truth = scene.truth(ino)
        rule = {"kind": "content", "fail": "cut", "every": 2, "name": "cut"}
        faults = scene.faults({**rule, "after": 262_144})
        handle = await scene.vfs.open(ino)
        for edge in (262_144, 524_288, 4 * MIB, 8 * MIB, len(truth)):
            for start in (edge - KERNEL // 2, edge - 1, edge):
                data = await scene.piece(handle, start, KERNEL)
                assert data == truth[start : start + KERNEL]
        scene.vfs.release(handle)
        assert await outcome(scene, ino, 20.0) == "right"
        assert faults.fired["cut"]


@pytest.mark.fuse
def test_mountpoint_581_rewinddir(tmp_path):
    """Going back to the start of an opened folder lists all of it again, nothing twice."""
    with standing(flat(*[10] * 300)) as stand_in, mounted(stand_in.url, tmp_path) as mount:
        (day,) = {path.parent for path in files(mount.point)}
        code = """if 1:
            import ctypes, sys
            libc = ctypes.CDLL(None, use_errno=True)
            libc.opendir.restype = libc.readdir.restype = ctypes.c_void_p
            libc.readdir.argtypes = libc.rewinddir.argtypes = [ctypes.c_void_p]
            libc.telldir.argtypes = [ctypes.c_void_p]; libc.telldir.restype = ctypes.c_long
            libc.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]
            folder = libc.opendir(sys.argv[1].encode())
            def rest(n=10**6):
                names = []
                while n and (entry := libc.readdir(folder)):
                    names.append(ctypes.string_at(entry + 19)); n -= 1
                return names
            begun = rest(7)
            libc.rewinddir(folder)
            first = rest(); assert first[:7] == begun and len(set(first)) == len(first) == 300
            libc.rewinddir(folder)
            head = rest(100); here = libc.telldir(folder); tail = rest()
            assert head + tail == first
            libc.seekdir(folder, here)
            assert rest() == tail
        """
        subprocess.run([sys.executable, "-c", code, str(day)], check=True)


@pytest.mark.expected_log
@fast
async def test_s3fs_15_no_zeros_from_a_cache_file(tmp_path):
    """A cache file that turned into a hole is not served."""
    async with serving(flat(900_000)) as service:
        async with living(service, tmp_path) as scene:
            (ino,) = (await scene.tree()).values()
            assert await outcome(scene, ino, 20.0) == "right"
        (held,) = (tmp_path / "cache/content").glob("??/*")
        size = held.stat().st_size
        os.truncate(held, 0)
        os.truncate(held, size)
        async with living(service, tmp_path) as scene:
            assert await outcome(scene, ino, 20.0) == "right"


@pytest.mark.expected_log
@fast
async def test_rclone_9782_the_size_is_never_that_of_a_part(tmp_path):
    """After reading a few bytes in the middle the file has the size it had."""
    async with serving(flat(30 * MIB, checksum="")) as service, living(service, tmp_path) as scene:
        (ino,) = (await scene.tree()).values()
        handle = await scene.vfs.open(ino)
        assert len(await scene.piece(handle, 20 * MIB, 4096)) == 4096
        assert handle.size == scene.vfs.entry(ino).size == 30 * MIB
        scene.vfs.release(handle)
        assert scene.vfs.entry(ino).size == 30 * MIB


@pytest.mark.fuse
def test_rclone_9617_a_remote_change_is_seen_through_the_kernel(tmp_path):
    """Another content under the same name: new size and bytes within a poll, not the old pages."""
    account = flat(100_000)
    with (
        standing(account) as stand_in,
        mounted(stand_in.url, tmp_path, poll_interval="0.2s") as mount,
    ):
        (path,) = files(mount.point)
        assert path.read_bytes() == content_of(stand_in.service, "00000000")
        inode = path.stat().st_ino
        new = flat_item("00000000x", 70_000, NOON_MS).content
        change(account, "us-east", "00000000", stand_in.service.now_ms(), content=new)
        until(lambda: path.stat().st_size == 70_000)
        until(lambda: path.read_bytes() == new.read(0, 70_000))
        assert path.stat().st_ino == inode


@pytest.mark.fuse
def test_rclone_9830_inodes_outlive_cache_and_kernel(tmp_path):
    """The cache is cleared, dentries are dropped, the process is another: the same inodes."""
    with standing(flat(*[2000] * 5)) as stand_in:
        mount = Mount(stand_in.url, tmp_path / "m", tmp_path / "cache")
        seen = []
        try:
            for _ in range(2):
                mount.start()
                seen.append({path: path.stat().st_ino for path in files(mount.point)})
                [path.read_bytes() for path in seen[-1]]
                mount.stop()
                for held in (tmp_path / "cache/content").glob("??/*"):
                    held.unlink()
        finally:
            mount.clean_up()
        assert seen[0] == seen[1]


@fast
async def test_rclone_4595_no_scan_of_the_cache_at_the_start(tmp_path):
    """Five thousand strange files in the cache folder do not hold a start up."""
    async with serving(flat(1000)) as service:
        async with living(service, tmp_path) as scene:
            await scene.tree()
        for number in range(5_000):
            shard = tmp_path / "cache/content" / f"{number % 256:02x}"
            shard.mkdir(exist_ok=True)
            (shard / f"{number:030x}").touch()
        watch = Stopwatch()
        async with living(service, tmp_path) as scene:
            assert watch.within(1.5)
            (ino,) = (await scene.tree()).values()
            assert await outcome(scene, ino, 20.0) == "right"


@pytest.mark.expected_log
@fast
async def test_mountpoint_1389_the_cap_holds_while_files_are_open(tmp_path):
    """A dozen files open at once, each a third of the cap: the disk never holds more than it."""
    cap = 3_000_000
    async with (
        serving(flat(*[1_000_000] * 12)) as service,
        living(service, tmp_path, cache_size=str(cap)) as scene,
    ):
        handles = [await scene.vfs.open(ino) for ino in (await scene.tree()).values()]
        for offset in range(0, 1_000_000, KERNEL):
            for handle in handles:
                await scene.piece(handle, offset, KERNEL)
                held = (tmp_path / "cache/content").glob("??/*")
                assert sum(path.stat().st_blocks * 512 for path in held) <= cap + 65536
        for handle in handles:
            scene.vfs.release(handle)


@fast
async def test_rclone_8178_what_is_deleted_upstream_leaves_the_disk(tmp_path):
    """Revoked while nothing is mounted: gone from the tree and the disk after the next poll."""
    account = flat(50_000, 60_000)
    async with serving(account) as service:
        async with living(service, tmp_path, poll_interval="1s") as scene:
            for ino in (await scene.tree()).values():
                assert await outcome(scene, ino, 20.0) == "right"
        change(account, "us-east", "00000001", service.now_ms(), state="REVOKED")
        async with living(service, tmp_path, poll_interval="1s") as scene:
            await _until_files(scene, 1)
            held = [path.stat().st_size for path in (tmp_path / "cache/content").glob("??/*")]
            assert held == [50_000]


async def _until_files(scene, count):
    async def reached():
        return len(await scene.tree()) == count

    await happens(reached, 60, 0.5)


@pytest.mark.fuse
def test_rclone_7442_df_does_not_hang(tmp_path):
    """With every request stalled, df answers at once (it opens the folder that it is given)."""
    with standing(flat(1000)) as stand_in, mounted(stand_in.url, tmp_path) as mount:
        assert len(os.listdir(mount.point)) == 1
        stand_in.faults({"fail": "stall"})
        watch = Stopwatch()
        said = subprocess.run(["df", mount.point], capture_output=True, text=True, check=True)
        assert watch.within(1)
        assert "phonofs" in said.stdout


@pytest.mark.expected_log
@fast
async def test_rclone_9899_a_dead_key_is_not_hammered(tmp_path):
    """The key is withdrawn: few tries, ever more slowly, while what is cached can be read."""
    async with (
        serving(flat(1000, 2000), Options(token_life_s=5)) as service,
        living(service, tmp_path, read_deadline="5s") as scene,
    ):
        cached, other = (await scene.tree()).values()
        assert await outcome(scene, cached, 20.0) == "right"
        service.choose(secret="another")
        before = service.counters.requests["token"]
        for _ in range(8):
            assert await outcome(scene, other, 5.0) == "CredentialsRefused"
            assert await outcome(scene, cached, 0.5) == "right"
        assert service.counters.requests["token"] - before <= 12


@pytest.mark.fuse
def test_jellyfin_17609_ffprobe_pulls_little(tmp_path):
    """Probing a recording of 100 MB fetches a few per cent of it."""
    needs("ffprobe", "ffmpeg")
    (tmp_path / "x").mkdir()
    wav = tmp_path / "x/a.wav"
    subprocess.run(
        ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "sine=d=2", "-c:a", "pcm_s16le", wav],
        check=True,
    )
    head = wav.read_bytes()
    size = 100_000_000
    data = (size - 44).to_bytes(4, "little")
    riff = head[:4] + (size - 8).to_bytes(4, "little") + head[8:]
    at = riff.index(b"data")
    riff = riff[: at + 4] + data + riff[at + 8 :]
    account = Account(
        [
            flat_item(
                "a", 0, NOON_MS, name="a.wav", mime_type="audio/x-wav", checksum="",
                content=Content(riff, Loop(bytes(2)), size),
            )
        ]
    )  # fmt: skip
    with standing(account) as stand_in, mounted(stand_in.url, tmp_path) as mount:
        (path,) = files(mount.point)
        said = subprocess.run(
            ["ffprobe", "-v", "error", "-show_entries", "format=duration", "-of", "csv=p=0", path],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert float(said.stdout) > 500
        assert stand_in.service.counters.bytes < 10_000_000


@fast
async def test_rclone_5592_a_player_that_reopens_finds_its_buffer(tmp_path):
    """Closed and opened at another place at once: nothing that was there is fetched again."""
    async with (
        serving(flat(20 * MIB, checksum=""), Options(bytes_per_s=20 * MIB)) as service,
        living(service, tmp_path, cache_size="0") as scene,
    ):
        (ino,) = (await scene.tree()).values()
        handle = await scene.vfs.open(ino)
        for offset in range(0, 4 * MIB, KERNEL):
            await scene.piece(handle, offset, KERNEL)
        scene.vfs.release(handle)
        again = await scene.vfs.open(ino)
        for offset in range(4 * MIB, 6 * MIB, KERNEL):
            await scene.piece(again, offset, KERNEL)
        scene.vfs.release(again)
        assert service.counters.of("us-east", "00000000").twice == 0


@fast
async def test_rclone_4760_the_first_byte_comes_soon(tmp_path):
    """On a line of 1 MB/s the first block of a huge file takes one block's time, not a part's."""
    async with (
        serving(flat(900 * MIB, checksum=""), Options(bytes_per_s=1_000_000)) as service,
        living(service, tmp_path) as scene,
    ):
        (ino,) = (await scene.tree()).values()
        handle = await scene.vfs.open(ino)
        begun = service_time()
        await scene.piece(handle, 0, KERNEL)
        assert service_time() - begun < 1 + 0.15 * RATE
        begun = service_time()
        await scene.piece(handle, 700 * MIB, KERNEL)
        assert service_time() - begun < 1 + 0.15 * RATE
        scene.vfs.release(handle)


def service_time():
    return trio.current_time()


@pytest.mark.fuse
def test_gcsfuse_350_a_large_folder(tmp_path):
    """Three thousand files in a day: each once, also while more come."""
    account = Account(flat_item(f"{n:08d}", 10, NOON_MS + 1000 * n) for n in range(3000))
    with (
        standing(account) as stand_in,
        mounted(stand_in.url, tmp_path, poll_interval="0.3s", page_size="1000") as mount,
    ):
        (year,) = mount.point.iterdir()
        (month,) = year.iterdir()
        (day,) = month.iterdir()
        with os.scandir(day) as entries:
            seen = [next(entries).name for _ in range(1000)]
            account.put(flat_item("new", 5, NOON_MS + 1, updated_ms=stand_in.service.now_ms()))
            until(lambda: any("_new" in name for name in os.listdir(day)))
            seen += [entry.name for entry in entries]
        assert len(seen) == len(set(seen)) >= len(os.listdir(day)) - 1


@pytest.mark.fuse
def test_s3ql_255_no_exception_unmounts(tmp_path):
    """Odd requests of every kind leave the mount alive."""
    account = demo_account(datetime(2026, 3, 2, tzinfo=UTC).date())
    with standing(account) as stand_in, mounted(stand_in.url, tmp_path) as mount:
        for odd in (b"\xff\xfe", b"a" * 255, b"\n", "é".encode("latin-1"), b".git", b"..."):
            with pytest.raises(FileNotFoundError):
                os.stat(os.fsencode(mount.point) + b"/" + odd)
        with pytest.raises(OSError, match=r"too long|No such"):
            os.stat(mount.point / ("a" * 256))
        for name in ("user.", "user.phonofs.tag.", "user.phonofs.tag.\x01", "trusted.x", "x"):
            with pytest.raises(OSError, match=r"No data|not supported"):
                os.getxattr(mount.point, name)
        path = files(mount.point)[-1]
        with path.open("rb") as file:
            assert os.pread(file.fileno(), 10, 1 << 60) == b""
        assert len(files(mount.point)) > 300
        assert "Traceback" not in mount.log_text()
