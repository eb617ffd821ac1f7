"""A daemon in one mount name space and programs in others, as contrib/container has them."""

import contextlib
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from phonofs.fakeservice.options import DEMO_KEY, DEMO_SECRET
from tests.support.accounts import flat
from tests.support.kubernetes import manifest_of
from tests.support.mounts import START_S, standing, until
from tests.support.name_spaces import NameSpace, name_space, why_no_name_space

CONTAINER = Path(__file__).resolve().parents[2] / "contrib/container"
FILES, SIZE = 3, 50_000

pytestmark = pytest.mark.skipif(bool(why_no_name_space()), reason=why_no_name_space())


def readable_python() -> str:
    """A script that lets every user run this Python, wherever its folders are."""
    places = {Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve(), CONTAINER.parents[1]}
    closed = {
        above for place in places for above in place.parents if not above.stat().st_mode & 0o001
    }
    lines = ["mkdir -p /run/open"]
    for number, place in enumerate(sorted(places)):
        hidden = [above for above in place.parents if above in closed]
        if hidden:
            kept, top = shlex.quote(f"/run/open/{number}"), shlex.quote(str(hidden[-1]))
            lines += [
                f"mkdir {kept}",
                f"mount --bind {shlex.quote(str(place))} {kept}",
                f"mountpoint -q {top} || mount -t tmpfs -o mode=755 tmpfs {top}",
                f"mkdir -p {shlex.quote(str(place))}",
                f"mount --bind {kept} {shlex.quote(str(place))}",
            ]
    return "\n".join(lines)


class Container:
    """A container of a manifest, in a mount name space of its own. Owns its process."""

    def __init__(
        self, node: NameSpace, stack: contextlib.ExitStack, pod: dict[str, Any], name: str
    ) -> None:
        """It sees the folders of the node that it mounts, as private mounts (no propagation)."""
        containers = [*pod.get("initContainers", []), *pod["containers"]]
        self._container = next(each for each in containers if each["name"] == name)
        self._security = {**pod["securityContext"], **self._container["securityContext"]}
        folders = {each["name"]: each.get("hostPath") for each in pod["volumes"]}
        read_only = self._security["readOnlyRootFilesystem"]
        script = ["mount -o remount,bind,ro /"] if read_only else []
        for mount in self._container["volumeMounts"]:
            if folder := folders[mount["name"]]:
                assert folder["path"] == mount["mountPath"]
                script.append(f"mount --bind {folder['path']} {folder['path']}")
                if mount.get("readOnly"):
                    script.append(f"mount -o remount,bind,ro {folder['path']}")
        self._sees = stack.enter_context(name_space("private", "\n".join(script), node))
        self._environment = {
            **{each["name"]: each["value"] for each in self._container.get("env", [])},
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        self.process: subprocess.Popen[bytes] | None = None
        stack.callback(self.kill)

    def words(self, *command: str, user: int | None = None) -> list[str]:
        """A command as it runs in here: as its user, with its capabilities, and no others."""
        kept = self._security["capabilities"].get("add", [])
        bounding = ",".join(["-all", *(f"+{name.lower()}" for name in kept)])
        user = self._security["runAsUser"] if user is None else user
        identity = [] if user == 0 else [f"--reuid={user}", f"--regid={user}", "--clear-groups"]
        limits = [f"--bounding-set={bounding}", "--no-new-privs"]
        return [*self._sees.entering(), "setpriv", *identity, *limits, *command]

    def run(self, *command: str, user: int | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command in here; without one, what the container is for."""
        return subprocess.run(
            self.words(*(command or self._command()), user=user),
            env=self._environment, capture_output=True, text=True, timeout=3 * START_S,
        )  # fmt: skip

    def _command(self) -> list[str]:
        return [*self._container["command"], *self._container.get("args", [])]

    def ready(self) -> bool:
        return self.run(*self._container["startupProbe"]["exec"]["command"]).returncode == 0

    def alive(self) -> subprocess.CompletedProcess[str]:
        return self.run(*self._container["livenessProbe"]["exec"]["command"])

    def start(self, log: Path, **environment: str) -> None:
        """Start what it is for, and wait until it is ready."""
        self._environment |= environment
        del self._environment["PHONOFS_METRICS"]  # an extra, and a fixed port
        with log.open("ab") as written:
            self.process = subprocess.Popen(
                self.words(*self._command()), env=self._environment, stdout=written, stderr=written
            )
        process = self.process
        until(lambda: process.poll() is not None or self.ready())
        assert process.poll() is None, log.read_text()

    def end(self, number: int) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(START_S)

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.end(signal.SIGKILL)


@pytest.fixture
def node() -> Iterator[NameSpace]:
    """A node with the folders that it makes for the pods, and with the key of the account."""
    script = f"""
        mount -t tmpfs -o mode=755 tmpfs /var/cache
        mount -t tmpfs -o mode=755 tmpfs /run
        mkdir /var/cache/phonofs-serve /run/phonofs-serve /run/phonofs-credentials
        echo {DEMO_KEY} > /run/phonofs-credentials/phonofs.key
        echo {DEMO_SECRET} > /run/phonofs-credentials/phonofs.secret
        chmod 440 /run/phonofs-credentials/*
        chgrp 10001 /run/phonofs-credentials/*
        {readable_python()}"""
    with name_space("private", script) as made:
        yield made


def test_pods_of_one_user_read_through_the_daemon_of_their_node(
    node: NameSpace, tmp_path: Path
) -> None:
    """Whether they were started before it or after it, and after a crash; another user may not."""
    serving, reading = (
        manifest_of((CONTAINER / name).read_text())
        for name in ("serve-daemonset.yaml", "serve-reader.yaml")
    )
    pod = serving["spec"]["template"]["spec"]
    with contextlib.ExitStack() as stack:
        stand_in = stack.enter_context(standing(flat(*[SIZE] * FILES)))
        sent = stand_in.service.counters
        service = {"PHONOFS_API_URL": stand_in.url, "PHONOFS_CACHE_MIN_FREE": "0"}
        before = Container(node, stack, reading["spec"], "reader")
        asked = before.run()
        assert asked.returncode != 0
        assert asked.stdout == ""

        for _ in range(2):  # a new pod finds the folders that are the user's already
            folders = Container(node, stack, pod, "folders").run()
            assert folders.returncode == 0, folders.stderr
        for folder in ("/var/cache/phonofs-serve", "/run/phonofs-serve"):
            assert node.run("stat", "--format=%u:%g %a", folder).stdout == b"10001:10001 700\n"

        daemon = Container(node, stack, pod, "phonofs")
        daemon.start(tmp_path / "log", **service)
        assert daemon.alive().returncode == 0, daemon.alive().stderr
        after = Container(node, stack, reading["spec"], "reader")
        for reader in (before, after):
            done = reader.run()
            assert done.returncode == 0, done.stderr
            found = [line.split() for line in done.stdout.splitlines()]
            assert [int(size) for size, _ in found] == [SIZE] * FILES
        assert sent.requests["content"] == FILES
        other = after.run(user=10002)
        assert other.returncode != 0
        assert other.stdout == ""
        places = ("/run/phonofs-serve/x", "/var/cache/phonofs-serve/x", "/x")
        assert after.run("touch", *places).stderr.count("Read-only file system") == len(places)

        daemon.end(signal.SIGKILL)
        again = Container(node, stack, pod, "phonofs")
        assert "ConnectionError" in after.run().stderr
        again.start(tmp_path / "log", **service)
        for reader in (before, after):
            assert len(reader.run().stdout.splitlines()) == FILES
        assert sent.requests["content"] <= 2 * FILES, "once for each daemon, at most"
        assert again.end(signal.SIGTERM) == 0
        assert not again.ready()
