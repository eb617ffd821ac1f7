"""Commands to a running mount: who may give them, and that the mount outlives its socket."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from phonofs.fakeservice.account import flat_item
from tests.support.accounts import flat
from tests.support.mounts import Mount, files, mounted, standing, until

pytestmark = pytest.mark.fuse

PHONOFS = (sys.executable, "-m", "phonofs.cli")
NOBODY = 65534


def phonofs(mount: Mount, *words: object, **options: object) -> subprocess.CompletedProcess[str]:
    options.setdefault("env", mount.environment)
    return subprocess.run(
        [*PHONOFS, *map(str, words)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **options,
    )


def without_key(mount: Mount) -> dict[str, str]:
    """The environment of somebody who knows nothing of the account."""
    own = ("PHONOFS_KEY", "PHONOFS_SECRET", "PHONOFS_API_URL")
    return {name: text for name, text in mount.environment.items() if name not in own}


def status(mount: Mount) -> dict:
    return json.loads(os.getxattr(mount.point, "user.phonofs.status"))


def test_the_mount_restores_with_its_own_key(tmp_path):
    """Who asks needs neither key nor configuration, as with a unit that holds the secret."""
    with (
        standing(flat(1000, 2000, state="ARCHIVED")) as stand_in,
        mounted(stand_in.url, tmp_path) as mount,
    ):
        done = phonofs(mount, "restore", *files(mount.point), env=without_key(mount))
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == "2 of 2 requested, for 7 days\n"
        assert stand_in.service.counters.requests["restore"] == 2
        assert stand_in.service.counters.requests["token"] == 1
        assert status(mount)["restores"]["pending"] == 2


def test_one_that_is_there_already_keeps_no_other_from_being_restored(tmp_path):
    """Until the next poll it looks archived; what is wrong with it is said."""
    with (
        standing(flat(1000, 2000, state="ARCHIVED")) as stand_in,
        mounted(stand_in.url, tmp_path) as mount,
    ):
        first, second = files(mount.point)
        assert phonofs(mount, "restore", first).returncode == 0
        done = phonofs(mount, "restore", first, second)
        assert (done.returncode, done.stdout) == (3, "1 of 2 requested, for 7 days\n")
        assert "00000000" in done.stderr
        assert stand_in.service.counters.requests["restore"] == 3


def test_restore_works_on_the_demo(tmp_path):
    """It shows archived objects on purpose."""
    point = tmp_path / "calls"
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path / "run")}
    demo = subprocess.Popen(
        [*PHONOFS, "demo", point], env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        assert "is mounted on" in demo.stdout.readline()
        archived = [
            path for path in files(point) if os.getxattr(path, "user.phonofs.state") == b"ARCHIVED"
        ]
        done = subprocess.run(
            [*PHONOFS, "restore", archived[0]],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
    finally:
        demo.send_signal(signal.SIGINT)
        demo.communicate(timeout=60)


def as_user(user: int, *words: object) -> list[str]:
    """The words of a command that another user runs; skips where it cannot be."""
    to_user = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("becoming another user needs root and setpriv (package util-linux)")
    tried = [*to_user, sys.executable, "-c", "import phonofs.cli.restore"]
    if subprocess.run(tried, stderr=subprocess.DEVNULL, check=False).returncode:
        pytest.skip("another user cannot run this Python")
    return [*to_user, *map(str, words)]


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that every user can reach."""
    folder = Path(tempfile.mkdtemp(prefix="phonofs-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


ASK = """
import json, socket, sys
sock = socket.socket(socket.AF_UNIX)
sock.connect("\\0" + sys.argv[1].removeprefix("@"))
sock.sendall(sys.argv[2].encode() + b"\\n")
print(sock.makefile().readline())
"""


def asked_as(user: int, name: str, **request: object) -> dict:
    """The answer of a mount's socket for others."""
    done = subprocess.run(
        as_user(user, sys.executable, "-c", ASK, name, json.dumps(request)),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return json.loads(done.stdout)


def test_other_users_restore_what_they_may_read_and_nothing_else(public, tmp_path):
    """With allow_other; the log level and the changes stay the owner's."""
    with (
        standing(flat(1000, 2000, state="ARCHIVED")) as stand_in,
        mounted(stand_in.url, public, allow_other="yes") as mount,
    ):
        path, _ = files(mount.point)
        environment = {**without_key(mount), "HOME": "/nonexistent"}
        done = subprocess.run(
            as_user(NOBODY, *PHONOFS, "restore", path),
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert stand_in.service.counters.requests["restore"] == 1
        name = status(mount)["control_shared"]
        request = {"command": "restore", "region": "us-east", "ids": ["00000001"], "days": 1}
        assert asked_as(NOBODY, name, **request) == {"restored": 1, "failures": []}
        assert "may not" in asked_as(NOBODY, name, **{**request, "ids": ["another"]})["error"]
        for command in ("log_level", "watch", "status", "options"):
            assert "owner" in asked_as(NOBODY, name, command=command, level="debug")["error"]
        public.chmod(0o700)
        assert "may not" in asked_as(NOBODY, name, **request)["error"]
        public.chmod(0o755)
        assert stand_in.service.counters.requests["restore"] == 2


@pytest.mark.parametrize("umask", ["0277", "0227"])
def test_who_may_not_read_the_files_restores_none(public, umask):
    """By the bits that umask leaves: here the owner's alone, or those of a group too."""
    with (
        standing(flat(1000, state="ARCHIVED")) as stand_in,
        mounted(stand_in.url, public, allow_other="yes", umask=umask, gid="4242") as mount,
    ):
        files(mount.point)
        name = status(mount)["control_shared"]
        request = {"command": "restore", "region": "us-east", "ids": ["00000000"], "days": 1}
        assert "may not" in asked_as(NOBODY, name, **request)["error"]
        of_group = asked_as(4242, name, **request)
        assert ("restored" in of_group) == (umask == "0227")


def test_a_mount_for_its_owner_alone_has_no_socket_for_others(tmp_path):
    with standing(flat(1000)) as stand_in, mounted(stand_in.url, tmp_path) as mount:
        assert status(mount)["control_shared"] is None


@pytest.mark.promise("the-socket-is-not-the-mount")
def test_without_a_runtime_folder_there_is_a_mount_without_a_socket(tmp_path):
    """As in a container whose file system is read-only: said by status and each command."""
    with standing(flat(1000, state="ARCHIVED")) as stand_in:
        mount = Mount(stand_in.url, tmp_path / "m", tmp_path / "cache")
        mount.environment |= {"XDG_RUNTIME_DIR": "/proc/none", "TMPDIR": "/proc/none"}
        try:
            (path,) = files(mount.start().point)
            assert status(mount)["control"] is None
            assert "/proc/none" in status(mount)["control_error"]
            for words in (["watch"], ["status", "--log-level", "debug"]):
                done = phonofs(mount, *words, mount.point)
                assert done.returncode == 1
                assert "accepts no commands: the control socket /proc/none" in done.stderr
            assert phonofs(mount, "restore", path).returncode == 0  # with the profile's own key
            assert stand_in.service.counters.requests["restore"] == 1
        finally:
            mount.clean_up()


@pytest.mark.promise("the-socket-is-not-the-mount")
def test_a_socket_that_was_removed_at_logout_comes_back(tmp_path):
    """Until then nobody is told that he is not the owner; who watches goes on watching."""
    account = flat(1000)
    with (
        standing(account) as stand_in,
        mounted(stand_in.url, tmp_path, poll_interval="0.1s") as mount,
    ):
        files(mount.point)
        watch = subprocess.Popen(
            [*PHONOFS, "watch", str(mount.point)], env=mount.environment, stdout=subprocess.PIPE
        )
        try:
            n = count()
            os.set_blocking(watch.stdout.fileno(), False)

            def told() -> bool:
                now = stand_in.service.now_ms()
                account.put(flat_item(f"new{next(n)}", 30, now, updated_ms=now))
                return bool(watch.stdout.read())

            until(told)
            shutil.rmtree(tmp_path / "run")
            done = phonofs(mount, "status", "--log-level", "info", mount.point)
            assert "owner" not in done.stderr
            assert done.returncode == 0 or "does not exist" in done.stderr
            until(
                lambda: phonofs(mount, "status", "--log-level", "info", mount.point).returncode == 0
            )
            until(told)
        finally:
            watch.kill()
            watch.communicate()


def test_each_mount_has_a_socket_of_its_own(tmp_path):
    """Also where the mount point does not tell two mounts apart, as /dev/fd/3 does not."""
    with standing(flat(1000)) as stand_in:
        names = set()
        for _ in range(2):
            with mounted(stand_in.url, tmp_path) as mount:
                path = Path(status(mount)["control"])
                assert str(mount.process.pid) in path.name
                assert path.is_socket()
                names.add(path.name)
                mount.stop(signal.SIGKILL)
        assert len(names) == 2
        with mounted(stand_in.url, tmp_path) as mount:
            until(lambda: status(mount)["door"]["path"])
            left = {path.name for path in (tmp_path / "run/phonofs").iterdir()}
            own = {
                Path(path).name
                for path in (status(mount)["control"], status(mount)["door"]["path"])
            }
            assert left == own, "what was killed left a socket"


@pytest.mark.slow
def test_changes_that_were_missed_run_no_command(tmp_path):
    """Joined to the mount point, an event without a path would be the whole account."""
    account = flat(1000)
    with (
        standing(account) as stand_in,
        mounted(stand_in.url, tmp_path, poll_interval="0.1s", page_size="1000") as mount,
    ):
        files(mount.point)
        gate = tmp_path / "gate"
        hook = tmp_path / "hook"
        hook.write_text(
            f'#!/bin/sh\necho "$1" >>{tmp_path}/paths\nwhile [ ! -e {gate} ]; do sleep 0.1; done\n'
        )
        hook.chmod(0o755)
        with (tmp_path / "errors").open("wb") as errors:
            watch = subprocess.Popen(
                [*PHONOFS, "watch", str(mount.point), "--exec", str(hook)],
                env=mount.environment,
                stderr=errors,
            )
        try:
            n = count()
            until(lambda: _put(account, stand_in, n, 1) or (tmp_path / "paths").exists())
            known = status(mount)["catalogue"]["objects"]
            stand_in.stop()  # nobody looks at the account while it changes
            _put(account, stand_in, n, 13_000)
            stand_in.start()
            until(lambda: status(mount)["catalogue"]["objects"] >= known + 13_000)
            _put(account, stand_in, n, 1)
            gate.touch()  # from now on the hook does not wait
            until(lambda: "were missed" in (tmp_path / "errors").read_text(), 120)
            assert str(mount.point) not in (tmp_path / "paths").read_text().splitlines()
            assert f"{mount.point}/" not in (tmp_path / "paths").read_text().splitlines()
        finally:
            watch.kill()
            watch.wait()


def _put(account, stand_in, n, many):
    now = stand_in.service.now_ms()
    for _ in range(many):
        account.put(flat_item(f"new{next(n)}", 30, now, updated_ms=now))
