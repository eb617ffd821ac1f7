"""Fixtures for all fault tests."""

from pathlib import Path

import pytest

from tests.fault.tools import kernel

__all__ = ["kernel"]


@pytest.fixture(autouse=True)
def own_runtime_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the control sockets and the configuration into directories of the test."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
