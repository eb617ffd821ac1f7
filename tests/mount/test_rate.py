"""A mount over a service that allows few requests."""

import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from phonofs.fakeservice.options import Options
from tests.support.accounts import flat
from tests.support.mounts import Mount, files, mounted, standing, status_of, until

pytestmark = pytest.mark.fuse

FILES = 80
WINDOW_S = 2
ALLOWED = 20
"""Requests that the service allows in a window."""


def read_all(mount: Mount) -> None:
    """Read every file, several side by side, and compare them with what the account has."""
    found = files(mount.point)
    assert len(found) == FILES
    with ThreadPoolExecutor(8) as pool:
        sizes = [len(content) for content in pool.map(Path.read_bytes, found)]
    assert sizes == [30_000] * FILES


@pytest.mark.promise("rate-is-kept")
def test_a_429_is_learned_from(tmp_path: Path) -> None:
    """Without an option: everything is read, and few requests are in vain."""
    options = Options(most_requests=ALLOWED, window_s=WINDOW_S)
    with (
        standing(flat(*[30_000] * FILES), options) as stand_in,
        mounted(stand_in.url, tmp_path) as mount,
    ):
        read_all(mount)
        counters, rate = stand_in.service.counters, status_of(mount)["service"]["rate"]
        assert 0 < counters.statuses[429] == rate["throttled"] <= FILES // 2
        assert rate["limit_per_s"] is not None


@pytest.mark.promise("rate-is-kept")
def test_with_max_rate_the_service_never_has_to_refuse(tmp_path: Path) -> None:
    options = Options(most_requests=ALLOWED, window_s=WINDOW_S)
    with (
        standing(flat(*[30_000] * FILES), options) as stand_in,
        mounted(stand_in.url, tmp_path, max_rate=f"{ALLOWED - 1}/{WINDOW_S}s") as mount,
    ):
        read_all(mount)
        counters, rate = stand_in.service.counters, status_of(mount)["service"]["rate"]
        assert counters.statuses[429] == rate["throttled"] == 0
        assert rate["max_per_s"] == rate["limit_per_s"] == 9.5


def test_a_hangup_has_max_rate_read_again(tmp_path: Path) -> None:
    """Those that wait for the former rate go on at once; a faulty file changes nothing."""
    config = tmp_path / "config/phonofs/config.toml"
    config.parent.mkdir(parents=True, mode=0o700)
    with standing(flat(*[30_000] * 3)) as stand_in:
        mount = Mount(stand_in.url, tmp_path / "m", tmp_path / "cache")

        def configure(text: str) -> None:
            config.write_text(f"[default]\n{text}\n")
            config.chmod(0o600)

        configure('max_rate = "6/min"')
        try:
            mount.start()
            with subprocess.Popen(["du", "-a", str(mount.point)], stdout=subprocess.PIPE) as du:
                until(lambda: status_of(mount)["service"]["rate"]["waiting"] > 0)
                assert mount.process is not None
                configure("max_rate = 7")
                mount.process.send_signal(signal.SIGHUP)
                until(lambda: "could not be read again" in mount.log_text())
                assert status_of(mount)["service"]["rate"]["limit_per_s"] == 0.1
                configure("")
                mount.process.send_signal(signal.SIGHUP)
                said, _ = du.communicate(timeout=60)
                assert said.count(b".mp3") == 3
            rate = status_of(mount)["service"]["rate"]
            assert (rate["max_per_s"], rate["limit_per_s"], rate["waiting"]) == (None, None, 0)
        finally:
            mount.clean_up()
