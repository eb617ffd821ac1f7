"""What all fault tests need."""

from pathlib import Path

import pytest

from tests.fault.tools import kernel

__all__ = ["kernel"]


@pytest.fixture(autouse=True)
def own_runtime_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Control sockets and configuration in a place of the test's own."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
