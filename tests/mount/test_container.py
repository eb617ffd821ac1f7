"""A mount made in one mount name space and read in others, as contrib/container does it."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from phonofs.fakeservice.options import DEMO_KEY, DEMO_SECRET
from tests.support.accounts import flat
from tests.support.manifest import parse
from tests.support.mounts import START_S, standing, until
from tests.support.name_spaces import NameSpace, name_space, why_no_name_space

CONTAINER = Path(__file__).resolve().parents[2] / "contrib/container"


pytestmark = [
    pytest.mark.fuse,
    pytest.mark.skipif(bool(why_no_name_space()), reason=why_no_name_space()),
]


class Pod:
    """The container of the DaemonSet on a node. Owns its process."""

    def __init__(self, node: NameSpace, url: str, credentials: Path, log: Path) -> None:
        manifest = parse((CONTAINER / "daemonset.yaml").read_text())
        pod = manifest["spec"]["template"]["spec"]
        [container] = pod["containers"]
        [self.mountpoint] = container["args"]
        [self.volume] = [
            each["mountPath"] for each in container["volumeMounts"]
            if each.get("mountPropagation") == "Bidirectional"
        ]  # fmt: skip
        variables = {each["name"]: each["value"] for each in container["env"]}
        del variables["PHONOFS_METRICS"]  # an extra, and a fixed port
        self._environment = {
            **os.environ,
            **variables,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PHONOFS_API_URL": url,
            "PHONOFS_CACHE_MIN_FREE": "0",
            "CREDENTIALS_DIRECTORY": str(credentials),
            "XDG_CONFIG_HOME": str(credentials),
            "XDG_RUNTIME_DIR": str(credentials),
        }
        self._node = node
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until the node sees its mount; Bidirectional is ``unchanged`` here."""
        command = [
            "unshare",
            "--mount",
            "--propagation",
            "unchanged",
            str(CONTAINER / "entrypoint"),
        ]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._node.entering(), *command, self.mountpoint],
                env=self._environment,
                stdout=log,
                stderr=log,
            )
        process = self._process
        until(lambda: process.poll() is not None or self._answers())
        assert process.poll() is None, self._log.read_text()

    def _answers(self) -> bool:
        """Whether it is mounted and alive: statfs of a dead mount fails, unlike its stat."""
        type = self._node.run("stat", "--file-system", "--format=%T", self.mountpoint).stdout
        return type.startswith(b"fuse")

    def end(self, number: int) -> int:
        assert self._process is not None
        self._process.send_signal(number)
        return self._process.wait(START_S)

    def clean_up(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(START_S)


@pytest.fixture
def node() -> Iterator[NameSpace]:
    """A node: what is below /var/lib and /var/cache is its own, and shared as systemd has it."""
    script = """
        umount --all --lazy --types fuse.phonofs  # a copy here would keep another's mount alive
        mount -t tmpfs tmpfs /var/lib
        mount -t tmpfs tmpfs /var/cache
        mkdir /var/lib/phonofs
        mount --make-shared /var/lib"""
    with name_space("private", script) as made:
        yield made


def test_other_pods_read_on_after_a_crash_and_a_new_mount(node: NameSpace, tmp_path: Path) -> None:
    """Whether they were started before the mount or after it; and see it go when it ends."""
    credentials = tmp_path / "credentials"
    credentials.mkdir(mode=0o700)
    for name, value in (("phonofs.key", DEMO_KEY), ("phonofs.secret", DEMO_SECRET)):
        (credentials / name).write_text(value)
        (credentials / name).chmod(0o600)
    with contextlib.ExitStack() as stack:
        stand_in = stack.enter_context(standing(flat(100_000)))
        pod = Pod(node, stand_in.url, credentials, tmp_path / "log")
        stack.callback(pod.clean_up)

        def reader(source: str) -> NameSpace:
            """A pod with this folder of the node at /mnt: HostToContainer is ``slave``."""
            script = f"mount --rbind {source} /mnt && mount --make-rslave /mnt"
            return stack.enter_context(name_space("slave", script, node))

        def read(by: NameSpace, folder: str) -> subprocess.CompletedProcess[bytes]:
            return by.run("sh", "-c", f"cat {folder}/*/*/*/*.mp3")

        item = stand_in.service.account.item("us-east", "00000000")
        assert item is not None
        content = item.content.read(0, 100_000)
        below = f"/mnt/{Path(pod.mountpoint).name}"

        before = reader(pod.volume)
        assert before.mounts() == []
        pod.start()
        after, bound = reader(pod.volume), reader(pod.mountpoint)
        assert read(before, below).stdout == content
        assert read(after, below).stdout == content
        assert read(bound, "/mnt").stdout == content

        pod.end(signal.SIGKILL)
        for each in (before, after):
            assert b"endpoint is not connected" in each.run("ls", below).stderr
        pod.start()
        assert len(node.mounts()) == 1
        assert read(before, below).stdout == content
        assert read(after, below).stdout == content
        # This one was given the mount, not the folder above it: what the manifest must not do.
        assert b"endpoint is not connected" in bound.run("ls", "/mnt").stderr

        assert pod.end(signal.SIGTERM) == 0
        assert [each.mounts() for each in (node, before, after)] == [[], [], []]
