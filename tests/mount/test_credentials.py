"""Key and secret that cannot be read while a mount lives."""

import errno
import os
import signal

import pytest

from phonofs.fakeservice.options import DEMO_SECRET
from tests.support.accounts import flat
from tests.support.mounts import Mount, files, standing, until

pytestmark = pytest.mark.fuse


def test_a_secret_that_cannot_be_read_any_more(tmp_path):
    """EACCES, the remedy in the log as a warning without a traceback; mended, it goes on."""
    secret = tmp_path / "secret"
    secret.write_text(DEMO_SECRET)
    secret.chmod(0o600)
    with standing(flat(1000)) as stand_in:
        mount = Mount(
            stand_in.url, tmp_path / "m", tmp_path / "cache", secret_file=str(secret),
            poll_interval="0",
        )  # fmt: skip
        del mount.environment["PHONOFS_SECRET"]
        try:
            mount.start()
            (path,) = files(mount.point)
            secret.chmod(0o644)
            stand_in.service.tokens.revoke()
            with pytest.raises(PermissionError) as caught:
                path.read_bytes()
            assert caught.value.errno == errno.EACCES
            lines = [line for line in mount.log_text().splitlines() if "chmod 600" in line]
            assert lines
            assert all("WARNING" in line for line in lines), lines
            assert "Traceback" not in mount.log_text()
            secret.chmod(0o600)
            assert mount.process is not None
            os.kill(mount.process.pid, signal.SIGHUP)

            def readable() -> bool:
                try:
                    return len(path.read_bytes()) == 1000
                except PermissionError:
                    return False

            until(readable)
        finally:
            mount.clean_up()
