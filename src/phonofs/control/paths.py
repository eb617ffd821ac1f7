"""Paths of sockets."""

import os
import secrets
import tempfile
from pathlib import Path


def control_path(profile: str) -> Path:
    """Return a path for the control socket of this process; two mounts never share one."""
    # The path of a socket has at most 107 bytes; a profile name can have 64.
    return runtime_directory() / f"{profile[:32]}-{os.getpid()}-{secrets.token_hex(4)}.sock"


def door_path(profile: str) -> Path:
    """Return a path for the door of this process, likewise."""
    return control_path(profile).with_suffix(".door")


def runtime_directory() -> Path:
    """Return our directory in the runtime directory of systemd or the user, else below TMPDIR."""
    of_unit = os.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]  # systemd.exec(5): a list
    given = of_unit or os.environ.get("XDG_RUNTIME_DIR")
    if given:
        return Path(given) / "phonofs"
    if os.geteuid() == 0:
        return Path("/run/phonofs")
    own = Path(f"/run/user/{os.getuid()}")
    return (own if own.is_dir() else Path(tempfile.gettempdir())) / f"phonofs-{os.getuid()}"
