"""The folders of a user: home, those of the XDG Base Directory Specification, and ours."""

import os
import pwd
from collections.abc import Mapping
from pathlib import Path

CREDENTIALS = "credentials"
"""In our configuration directory, the directory of the files that ``login`` writes."""


def home_of(environment: Mapping[str, str]) -> Path:
    """Return the user's home directory: HOME, else the one in the user database."""
    try:
        return Path(environment.get("HOME") or pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:
        return Path("/")


def xdg_folder(environment: Mapping[str, str], name: str, otherwise: Path) -> Path:
    """Return an XDG base directory; as its specification demands, a relative path is ignored."""
    path = Path(environment.get(name) or otherwise)
    return path if path.is_absolute() else otherwise


def own_folder(environment: Mapping[str, str], home: Path | None = None) -> Path:
    """Return phonofs' configuration directory, which all commands and mounts of a user share."""
    above = (home or home_of(environment)) / ".config"
    return xdg_folder(environment, "XDG_CONFIG_HOME", above) / "phonofs"
