"""What a person does with a running mount: status, log level, metrics, restore; no secret leaks."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from itertools import count
from pathlib import Path

import pytest

from phonofs.fakeservice.account import flat_item
from phonofs.fakeservice.options import DEMO_KEY, DEMO_SECRET, Options
from tests.support.accounts import content_of, flat
from tests.support.mounts import Mount, at_last, files, mounted, standing, until

pytestmark = pytest.mark.fuse

PHONOFS = (sys.executable, "-m", "phonofs.cli")


def phonofs(mount: Mount, *words: object, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PHONOFS, *map(str, words)],
        env=mount.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **options,
    )


def status(mount: Mount) -> dict:
    return json.loads(os.getxattr(mount.point, "user.phonofs.status"))


def test_status_is_one_fact_for_people_and_programs(tmp_path):
    """--json is what the attribute holds; the page names the same things."""
    with standing(flat(1000)) as stand_in, mounted(stand_in.url, tmp_path) as mount:
        assert len(files(mount.point)) == 1
        told = json.loads(phonofs(mount, "status", "--json", mount.point).stdout)
        assert told.keys() == status(mount).keys()
        assert told["condition"] == "mounted, 1 object known"
        manual = (Path(__file__).parents[2] / "man/phonofs.1").read_text()
        for name in (*told, "followed", "slots", "token", "ways"):
            assert name in manual, name
        page = phonofs(mount, "status", "--all", mount.point).stdout
        for word in ("condition", "token", "objects", "disk"):
            assert word in page
        page = phonofs(mount, "status", mount.point).stdout
        for word in ("condition", "token", "1 object", "disk"):
            assert word in page


def test_the_log_level_of_a_running_mount_can_be_changed(tmp_path):
    """Quiet at first, debug from then on; a level that is none is refused."""
    with standing(flat(1000)) as stand_in, mounted(stand_in.url, tmp_path) as mount:
        assert not (mount.point / "1999").exists()
        assert "ENOENT" not in mount.log_text()
        assert "not in this folder" not in mount.log_text()
        done = phonofs(mount, "status", "--log-level", "debug", mount.point)
        assert done.returncode == 0, done.stderr
        assert not (mount.point / "2000").exists()
        until(lambda: "not in this folder" in mount.log_text())
        assert phonofs(mount, "status", "--log-level", "loud", mount.point).returncode == 1


def test_metrics_are_served_where_asked_for(tmp_path):
    """Counters and gauges by Prometheus' conventions; neither names nor URLs."""
    pytest.importorskip("prometheus_client")
    port = free_port()
    with (
        standing(flat(1000, tags={"agentName": "Canary"})) as stand_in,
        mounted(stand_in.url, tmp_path, metrics=f"127.0.0.1:{port}") as mount,
    ):
        (path,) = files(mount.point)
        path.read_bytes()
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        assert "phonofs_catalogue_objects 1.0" in text
        assert "phonofs_served_bytes_total 1000.0" in text
        assert "# TYPE phonofs_received_bytes_total counter" in text
        assert 'phonofs_requests_total{kind="search"}' in text
        assert "Canary" not in text
        assert "http://" not in text


def test_connections_to_the_metrics_port_are_bounded(tmp_path):
    """600 that say nothing cost neither threads nor descriptors, and no scrape."""
    pytest.importorskip("prometheus_client")
    port = free_port()
    with (
        standing(flat(1000)) as stand_in,
        mounted(stand_in.url, tmp_path, metrics=f"127.0.0.1:{port}") as mount,
        contextlib.ExitStack() as idle,
    ):
        process = Path(f"/proc/{mount.process.pid}")

        def held() -> tuple[int, int]:
            return len(list((process / "fd").iterdir())), len(list((process / "task").iterdir()))

        descriptors, threads = held()
        for _ in range(600):
            idle.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
        for path in ("metrics", "", "metrics"):
            url = f"http://127.0.0.1:{port}/{path}"
            with urllib.request.urlopen(url, timeout=10) as answer:
                assert b"phonofs_catalogue_objects" in answer.read()
        now = held()
        assert now[0] < descriptors + 60
        assert now[1] < threads + 20


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.mark.promise("archived-fails-at-once")
def test_a_restored_object_becomes_readable_by_itself(tmp_path):
    """`status` shows it as pending until then; the stand-in takes half a second."""
    account = flat(1000, 2000, state="ARCHIVED")
    with (
        standing(account, Options(restore_s=0.5)) as stand_in,
        mounted(stand_in.url, tmp_path, poll_interval="0.1s") as mount,
    ):
        path = files(mount.point)[0]
        done = phonofs(mount, "restore", path)
        assert (done.returncode, done.stderr) == (0, "")
        assert status(mount)["restores"]["pending"] == 1
        until(lambda: os.getxattr(path, "user.phonofs.state") == b"AVAILABLE")
        assert path.read_bytes() == content_of(stand_in.service, "00000000")
        assert status(mount)["restores"] == {"pending": 0, "oldest_at": None}


def test_a_key_without_edit_access_gets_a_sentence(tmp_path):
    """Exit status 2, one line, nothing pending."""
    with (
        standing(flat(1000, state="ARCHIVED")) as stand_in,
        mounted(stand_in.url, tmp_path) as mount,
    ):
        stand_in.faults({"kind": "restore", "fail": "status", "status": 403})
        done = phonofs(mount, "restore", mount.point)
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert status(mount)["restores"]["pending"] == 0


def test_more_than_ten_are_only_asked_for_once_a_person_agreed(tmp_path):
    """Without a terminal or --yes nothing is asked of the service."""
    with (
        standing(flat(*[100] * 11, state="ARCHIVED")) as stand_in,
        mounted(stand_in.url, tmp_path) as mount,
    ):
        assert phonofs(mount, "restore", mount.point, input="n\n").returncode == 130
        assert status(mount)["restores"]["pending"] == 0
        assert stand_in.service.counters.requests["restore"] == 0
        assert phonofs(mount, "restore", "--yes", mount.point).returncode == 0
        assert stand_in.service.counters.requests["restore"] == 11


def test_no_secret_and_no_token_is_left_anywhere(tmp_path):
    """Not in argv, a log at debug, the status, the cache folder, nor in a core."""
    canary = "canary-5ecret-0f-this-test"
    with standing(flat(1000), Options(secret=canary)) as stand_in:
        mount = Mount(stand_in.url, tmp_path / "m", tmp_path / "cache", log_level="debug")
        del mount.environment["PHONOFS_KEY"], mount.environment["PHONOFS_SECRET"]
        file = tmp_path / "config/phonofs/credentials/default"
        file.parent.mkdir(parents=True)
        file.write_text(f"{DEMO_KEY}\n{canary}\n")
        file.chmod(0o644)
        try:
            mount.point.mkdir()
            refused = phonofs(mount, "mount", mount.point)
            assert refused.returncode == 1
            assert f"chmod 600 '{file}'" in refused.stderr
            file.chmod(0o600)
            mount.start()
            for path in files(mount.point):
                path.read_bytes()
            phonofs(mount, "doctor")
            tokens = list(stand_in.service.tokens._dies_s)
            said = everything_said(mount)
            assert tokens
            for word in (canary, *tokens):
                assert word.encode() not in said
            limits = Path(f"/proc/{mount.process.pid}/limits").read_text()
            assert limits.split("Max core file size")[1].split()[:2] == ["0", "0"]
            assert Path(f"/proc/{mount.process.pid}/fd").stat().st_uid == 0
            mount.stop()
            assert canary.encode() not in everything_kept(mount)
        finally:
            mount.clean_up()


def test_a_key_that_dies_is_read_again_while_the_mount_lives(tmp_path):
    """It serves what it has, says so in its condition, and takes the new secret by itself."""
    with standing(flat(1000, 2000)) as stand_in:
        mount = Mount(stand_in.url, tmp_path / "m", tmp_path / "cache", read_deadline="1s")
        del mount.environment["PHONOFS_KEY"], mount.environment["PHONOFS_SECRET"]
        file = tmp_path / "config/phonofs/credentials/default"
        file.parent.mkdir(parents=True)
        file.write_text(f"{DEMO_KEY}\n{DEMO_SECRET}\n")
        file.chmod(0o600)
        try:
            second, first = files(mount.start().point)  # reading ahead goes forward only
            at_last(first.read_bytes)
            stand_in.service.choose(secret="another")
            with pytest.raises(OSError, match=r"Permission denied|Input/output"):
                second.read_bytes()
            assert len(first.read_bytes()) == 2000
            until(lambda: status(mount)["condition"].startswith("no token: "))
            file.write_text(f"{DEMO_KEY}\nanother\n")
            mount.process.send_signal(signal.SIGHUP)
            until(lambda: status(mount)["condition"].startswith("mounted"))
            assert len(at_last(second.read_bytes)) == 1000
        finally:
            mount.clean_up()


def test_fetch_says_how_much_goes_on_and_lists_what_failed(tmp_path):
    """--dry-run reads nothing; a second run has nothing to do; a failure is named, status 3."""
    with (
        standing(flat(1000, 2000, 3000)) as stand_in,
        mounted(stand_in.url, tmp_path, read_deadline="1s") as mount,
    ):
        paths = files(mount.point)
        done = phonofs(mount, "fetch", "--dry-run", f"{mount.point}/*/*/*/*.mp3")
        assert (done.returncode, done.stdout) == (0, "3 files, 3 to fetch (5.9 KiB)\n")
        assert stand_in.service.counters.requests["content"] == 0
        assert phonofs(mount, "fetch", paths[0]).returncode == 0
        stand_in.stop()
        done = phonofs(mount, "fetch", mount.point)
        assert done.returncode == 3
        assert str(paths[1]) in done.stderr
        assert "0 of 2 fetched, 2 failed" in done.stdout
        stand_in.start()
        until(lambda: phonofs(mount, "fetch", mount.point).returncode == 0)
        assert "0 to fetch" in phonofs(mount, "fetch", mount.point).stdout


def test_a_command_of_watch_does_not_inherit_the_secret(tmp_path):
    """It gets the path, the record and the kind of the change."""
    account = flat(1000)
    with (
        standing(account) as stand_in,
        mounted(stand_in.url, tmp_path, poll_interval="0.1s") as mount,
    ):
        files(mount.point)
        out = tmp_path / "environment"
        watch = subprocess.Popen(
            [*PHONOFS, "watch", str(mount.point), "--exec", f"sh -c 'env > {out}'"],
            env=mount.environment,
        )
        try:
            n = count(1)

            def told() -> bool:  # until the watcher listens
                now = stand_in.service.now_ms()
                account.put(flat_item(f"new{next(n)}", 30, now, updated_ms=now))
                return out.exists() and "PHONOFS_CHANGE=created" in out.read_text()

            until(told)
            assert "PHONOFS_SECRET" not in out.read_text()
        finally:
            watch.kill()
            watch.wait()


def everything_said(mount: Mount) -> bytes:
    process = Path(f"/proc/{mount.process.pid}")
    return b"".join(
        [
            mount.log_text().encode(),
            (process / "cmdline").read_bytes(),
            environment_of(process),
            json.dumps(status(mount)).encode(),
            everything_kept(mount),
        ]
    )


def environment_of(process: Path) -> bytes:
    """Nobody but root may look: the process is not dumpable."""
    try:
        return (process / "environ").read_bytes()
    except PermissionError:
        assert os.geteuid() != 0
        return b""


def everything_kept(mount: Mount) -> bytes:
    return b"".join(p.read_bytes() for p in mount.cache.rglob("*") if p.is_file())
