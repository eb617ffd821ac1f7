"""What others can see of a running mount: modes, processes, logs, cache; with canaries."""

import json
import os
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from phonofs.fakeservice.account import Account, change, flat_item
from phonofs.fakeservice.options import Options
from tests.support.accounts import NOON_MS, flat
from tests.support.mounts import Mount, StandIn, files, held_at_once, mounted, standing, until

pytestmark = pytest.mark.fuse

KEY, SECRET = "canary-key-7f31", "canary-secret-9c55e1d2"
HOSTILE = [
    "../../../../etc/passwd",
    "a/b\\c",
    "\x1b]0;owned\x07\x1b[2J",
    "\u202egnp.exe",
    "-rf",
    ".hidden",
    "new\nline",
    "nul\0byte",
    "x" * 400,
    "\udcff\ud800",
    "CON",
    "",
]


@pytest.fixture(scope="module")
def lived(tmp_path_factory) -> Iterator[tuple[Mount, StandIn]]:
    """A mount at debug level, with umask 0, that saw presigned URLs, faults and a bad day."""
    folder = tmp_path_factory.mktemp("security")
    options = Options(content="redirect", key=KEY, secret=SECRET)
    settings = {"key": KEY, "secret": SECRET, "log_level": "debug", "poll_interval": "0.2s"}
    before = os.umask(0)
    try:
        with standing(flat(300_000, 40_000, 7), options) as stand_in:
            faults = stand_in.faults({"probability": 0.2, "fail": "status", "status": 503})
            with mounted(stand_in.url, folder, **settings) as mount:
                for path in files(mount.point):
                    path.read_bytes()
                until(lambda: sum(faults.fired.values()) > 2)
                stand_in.service.tokens.revoke()
                tokens = stand_in.service.counters.tokens
                until(lambda: stand_in.service.counters.tokens > tokens)
                yield mount, stand_in
    finally:
        os.umask(before)


def canaries(stand_in: StandIn) -> list[bytes]:
    """Secret, every token that was used, every signature."""
    seen = stand_in.service.counters.seen
    tokens = {each.headers.get("authorization", "").removeprefix("Bearer ") for each in seen}
    signatures = {value for each in seen for name, value in each.query.items() if "ign" in name}
    found = {SECRET, *tokens, *signatures} - {"", "true", "false"}
    assert len(found) > 3
    return [each.encode() for each in found if len(each) > 7]


def test_modes_are_private_whatever_the_umask(lived):
    """Folders 0700 and files 0600, the socket too."""
    mount, _ = lived
    for top in (mount.cache, mount.cache.parent / "run" / "phonofs"):
        for path in [top, *top.rglob("*")]:
            mode = stat.S_IMODE(path.lstat().st_mode)
            assert mode & 0o077 == 0, f"{path} has mode {mode:o}"


def test_no_secret_lies_anywhere(lived):
    """Not in the log at debug level, the cache, the catalogue, the command line, the status."""
    mount, stand_in = lived
    status = os.getxattr(mount.point, "user.phonofs.status")
    places = {"the log": mount.log.read_bytes(), "the status": status}
    for path in mount.cache.rglob("*"):
        if path.is_file():
            places[str(path)] = path.read_bytes()
    for process in processes_of(mount):
        places[f"cmdline of {process}"] = Path(f"/proc/{process}/cmdline").read_bytes()
    for place, data in places.items():
        for canary in canaries(stand_in):
            assert canary not in data, f"a secret is in {place}"


def processes_of(mount: Mount) -> list[int]:
    assert mount.process is not None
    task = Path(f"/proc/{mount.process.pid}/task")
    children = [each for path in task.glob("*/children") for each in path.read_text().split()]
    return [mount.process.pid, *map(int, children)]


def test_names_of_people_are_not_in_the_log(lived):
    """The log has ids; callers are nobody's business."""
    mount, _ = lived
    assert b"agentName" not in mount.log.read_bytes()
    assert b"filter=" not in mount.log.read_bytes()


def test_the_process_leaves_no_core_and_cannot_be_traced(lived):
    """Its memory has the token: no core dump, and /proc/PID belongs to root."""
    mount, _ = lived
    assert mount.process is not None
    limits = Path(f"/proc/{mount.process.pid}/limits").read_text()
    core = next(line for line in limits.splitlines() if line.startswith("Max core file size"))
    assert core.split()[4:6] == ["0", "0"]


@pytest.mark.skipif(os.geteuid() != 0, reason="to become another user one has to be root")
def test_other_users_get_nowhere(lived):
    """Neither into the mount, nor to the cache, nor to the socket."""
    mount, _ = lived
    sock = next((mount.cache.parent / "run" / "phonofs").glob("*.sock"))
    for command in (["ls", mount.point], ["ls", mount.cache], ["stat", mount.cache / "content"]):
        outcome = subprocess.run(command, user=65534, group=65534, capture_output=True, check=False)
        assert outcome.returncode != 0, command
        assert outcome.stdout == b""
    with socket.socket(socket.AF_UNIX) as ours:
        ours.connect(str(sock))
        ours.sendall(b'{"command": "options"}\n')
        assert json.loads(ours.recv(1 << 20))["api_url"] == mount.environment["PHONOFS_API_URL"]


def test_the_token_went_to_one_origin(lived):
    """No request to the object store carried it."""
    _, stand_in = lived
    there = [each for each in stand_in.service.counters.seen if each.origin == "store"]
    assert there
    assert not [each for each in there if "authorization" in each.headers]


@pytest.mark.promise("names-harmless")
def test_a_hostile_caller_reaches_neither_folder_nor_terminal(tmp_path):
    """Whatever a display name holds, the file is in its day, readable, and its name is plain."""
    tags = [{"callerName": name, "agentName": name, "direction": "INBOUND"} for name in HOSTILE]
    account = Account(
        flat_item(f"{n:08d}", 100, NOON_MS, tags=each, name=f"{each['callerName']}.mp3")
        for n, each in enumerate(tags)
    )
    with standing(account) as stand_in, mounted(stand_in.url, tmp_path) as mount:
        found = files(mount.point)
        assert len(found) == len(HOSTILE)
        assert {path.parent.name for path in found} == {"2026-03-02"}
        for path in found:
            assert path.name.isprintable()
            assert not set(path.name) & set('/\\<>:"|?* ')
            assert path.name[0] not in "-."
            assert len(os.fsencode(path.name)) <= 255
            assert len(path.read_bytes()) == 100
        assert all(each.isprintable() or each in "\n\t" for each in mount.log_text())


@pytest.mark.promise("withdrawn-is-gone")
def test_what_was_revoked_is_gone_from_disk_and_page_cache(tmp_path):
    """Within a poll, also the copy of who read it before."""
    account = flat(300_000, 300_000)
    with (
        standing(account) as stand_in,
        mounted(stand_in.url, tmp_path, poll_interval="0.2s") as mount,
    ):
        gone, stays = files(mount.point)
        plain = gone.read_bytes()
        stays.read_bytes()
        before = content_on_disk(mount)
        with gone.open("rb") as held:
            revoke(stand_in, "00000000")
            until(lambda: not gone.exists())
            with pytest.raises(OSError, match="Stale"):
                os.pread(held.fileno(), 100, 0)
        until(lambda: content_on_disk(mount) < before)
        assert not [path for path in mount.cache.rglob("*") if contains(path, plain[1000:1100])]
        assert len(stays.read_bytes()) == 300_000


def revoke(stand_in: StandIn, id: str) -> None:
    service = stand_in.service
    change(service.account, "us-east", id, service.now_ms() + 1000, state="REVOKED")


def content_on_disk(mount: Mount) -> int:
    return sum(path.stat().st_size for path in (mount.cache / "content").rglob("??/*"))


def contains(path: Path, piece: bytes) -> bool:
    """Whether a file of content begins as the piece's file did; ramps differ by their phase."""
    return path.is_file() and path.parent.parent.name == "content" and _at(path) == piece


def _at(path: Path) -> bytes:
    return path.read_bytes()[1000:1100]


@pytest.mark.promise("cap-is-hard")
def test_cache_size_0_leaves_no_content_on_disk(tmp_path):
    """Only the catalogue is there."""
    with (
        standing(flat(300_000, 5_000_000)) as stand_in,
        mounted(stand_in.url, tmp_path, cache_size="0") as mount,
    ):
        pieces = [path.read_bytes()[5000:5064] for path in files(mount.point)]
        assert mount.stop() == 0
        for path in mount.cache.rglob("*"):
            data = path.read_bytes() if path.is_file() else b""
            assert not any(piece in data for piece in pieces), path


@pytest.mark.promise("cap-is-hard")
def test_a_damaged_index_leaves_no_content_behind(tmp_path):
    """The next mount caches on within its size; one with a size of 0 has nothing on disk."""

    def cached() -> list[Path]:
        return [path for path in (tmp_path / "cache/content").rglob("*/*") if path.is_file()]

    def damage() -> None:
        index = tmp_path / "cache/content/index.sqlite"
        with index.open("r+b") as file:
            for page in range(1, index.stat().st_size // 4096):
                file.seek(page * 4096)
                file.write(bytes(4096))

    with standing(flat(*[40_000] * 60)) as stand_in:
        with mounted(stand_in.url, tmp_path) as mount:
            right = {path.name: path.read_bytes() for path in files(mount.point)}
            assert mount.stop() == 0
        assert len(cached()) == 60
        damage()
        with mounted(stand_in.url, tmp_path, cache_size="1M") as mount:
            assert {path.name: path.read_bytes() for path in files(mount.point)} == right
            said = json.loads(os.getxattr(mount.point, "user.phonofs.status"))["cache"]
            assert said["state"] == "on"
            assert held_at_once(cached()) <= 1 << 20
            assert mount.stop() == 0
        assert 0 < sum(path.stat().st_blocks * 512 for path in cached()) <= 1 << 20
        damage()
        with mounted(stand_in.url, tmp_path, cache_size="0") as mount:
            assert cached() == []
            assert mount.stop() == 0


def test_planted_links_in_the_cache_are_not_followed(tmp_path):
    """Somebody who may write there cannot make phonofs write elsewhere."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    with standing(flat(300_000)) as stand_in:
        with mounted(stand_in.url, tmp_path) as mount:
            (path,) = files(mount.point)
            path.read_bytes()
            assert mount.stop() == 0
        content = [each for each in (mount.cache / "content").rglob("??/*") if each.is_file()]
        assert content
        for each in content:
            each.unlink()
            each.symlink_to(victim)
        with mounted(stand_in.url, tmp_path) as mount:
            (path,) = files(mount.point)
            assert len(path.read_bytes()) == 300_000
    assert victim.read_text() == "precious"


def test_an_encrypted_cache_has_nothing_in_the_clear(tmp_path):
    """Read twice, remounted, read again: right bytes, none of them on disk."""
    with standing(flat(300_000, 5_000_000)) as stand_in:
        for _ in range(2):
            with mounted(stand_in.url, tmp_path, cache_encrypt="session") as mount:
                plain = {path: path.read_bytes() for path in files(mount.point)}
                assert sorted(map(len, plain.values())) == [300_000, 5_000_000]
                for path, data in plain.items():
                    with path.open("rb") as file:
                        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                        assert file.read() == data
                assert mount.stop() == 0
                assert content_on_disk(mount) > 5_000_000
                for path in (each for each in mount.cache.rglob("*") if each.is_file()):
                    found = path.read_bytes()
                    assert not any(data[5000:5064] in found for data in plain.values()), path
