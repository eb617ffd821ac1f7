"""What ``phonofs serve`` refuses before it serves."""

import subprocess
import sys

import pytest
from click.testing import CliRunner

from phonofs.cli import group
from phonofs.errors import UsageError


@pytest.mark.parametrize("idle", ["soon", "", "-1s", "10 parsecs"])
def test_a_time_that_is_none_is_refused(monkeypatch, idle):
    monkeypatch.setenv("PHONOFS_KEY", "key")
    monkeypatch.setenv("PHONOFS_SECRET", "secret")
    done = CliRunner().invoke(group, ["serve", "x", "--idle", idle])
    assert isinstance(done.exception, UsageError)
    assert f"--idle {idle!r}: " in str(done.exception)


def test_nothing_that_serves_imports_fuse():
    """A worker may have neither a compiler nor libfuse."""
    code = (
        "import sys; sys.modules['pyfuse3'] = None;"
        "import phonofs.cli.serve, phonofs.cli.find, phonofs.cli.status, phonofs.cli.watch"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
