"""Merges the settings of one mount from layers of raw values.

Pure: ``config/load.py`` reads the files, the environment and the system's values.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from enum import Enum
from pathlib import Path
from typing import Any

from phonofs.config.options import BY_NAME, OPTIONS, Kind, Option
from phonofs.config.values import READERS, Secret, nearest
from phonofs.errors import UsageError
from phonofs.units import Rate


class Source(Enum):
    """Where a layer's values come from; error messages name the place accordingly."""

    SYSTEM = "system"
    FILE = "file"
    ENVIRONMENT = "environment"
    ARGUMENT = "-o"


@dataclass(frozen=True, slots=True)
class Layer:
    """Raw values by option name, and their place (for a file, its path and table)."""

    source: Source
    values: Mapping[str, object] = field(repr=False)
    where: str = ""

    def place(self, name: str) -> str:
        """Return the place of one value, for a message."""
        name = name if re.fullmatch(r"[\w.-]+", name, re.ASCII) else repr(name)
        if self.source is Source.ENVIRONMENT:
            return f"the variable PHONOFS_{name.upper()}"
        if self.source is Source.ARGUMENT:
            return f"the option -o {name}"
        return f"{self.where}: {name}" if self.where else name


@dataclass(frozen=True, slots=True)
class SystemDefaults:
    """The system's values for options that were not given.

    ``timezone`` is empty if the system's time zone cannot be determined.
    """

    timezone: str
    uid: int
    gid: int
    home: Path
    cache_home: Path


@dataclass(frozen=True, slots=True)
class Settings:
    """All options of one mount, parsed and checked. Durations in seconds, sizes in bytes.

    ``archived`` is True if archived objects are shown. ``regions`` is empty if the service is
    to be asked for them; ``types`` is empty if all types are shown; ``views`` is empty if there
    are none; ``max_rate`` is None if there is no limit.
    """

    profile: str
    key: str | None
    secret: Secret | None
    secret_file: Path | None
    api_url: str
    regions: tuple[str, ...]
    timezone: str
    types: tuple[str, ...]
    since: date | None
    cache_dir: Path
    cache_size: int
    cache_min_free: int
    cache_encrypt: str
    poll_interval: float
    index: str
    page_size: int
    max_connections: int
    max_rate: Rate | None
    timeout: float
    read_deadline: float
    verify: str
    name_template: str
    archived: bool
    views: str
    texts: bool
    crawlers: tuple[str, ...]
    journal: Path | None
    journal_sync: float
    journal_full: str
    uid: int
    gid: int
    umask: int
    allow_other: bool
    subtype: str
    metrics: str | None
    log_level: str
    log_file: Path | None


def merge(layers: Sequence[Layer], profile: str, surroundings: SystemDefaults) -> Settings:
    """Merge the layers; later ones override earlier ones.

    Raises UsageError, which names the place, for an unknown option or a value that cannot be
    parsed, even if a later layer overrides it.
    """
    check_profile(profile)
    values: dict[str, Any] = {option.name: _default(option) for option in OPTIONS}
    values |= {
        "timezone": surroundings.timezone,
        "uid": surroundings.uid,
        "gid": surroundings.gid,
        "cache_dir": surroundings.cache_home / "phonofs" / profile,
    }
    for layer in layers:
        for name, raw in layer.values.items():
            values[name] = _value(layer, name, raw, surroundings.home)
    if not values["timezone"]:
        raise UsageError(
            "the system's time zone has no name that can be found; set timezone=, for example "
            "to Europe/London"
        )
    values["archived"] = values["archived"] == "show"
    values["texts"] = values["texts"] == "on"
    return Settings(profile=profile, **values)


def as_texts(settings: Settings) -> dict[str, str]:
    """Return the value of each option but the secret as a text, for comparisons."""
    return {
        option.name: str(getattr(settings, option.name)) for option in OPTIONS if not option.secret
    }


def check_profile(name: str) -> str:
    """Return the name. Raises UsageError if it is not fit for a table and a directory."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}", name):
        raise UsageError(
            f"{name!r} cannot name a profile: letters, digits, '.', '_' and '-' only, "
            "at most 64, not beginning with '.' or '-'"
        )
    return name


def _default(option: Option) -> Any:
    if option.kind is Kind.FLAG:
        return False
    if option.kind is Kind.LIST and not option.default:
        return ()
    return READERS[option.kind](option, option.default) if option.default else None


def _value(layer: Layer, name: str, raw: object, home: Path) -> Any:
    option = BY_NAME.get(name)
    if option is None:
        hint = nearest(name, BY_NAME)
        raise UsageError(f"{layer.place(name)}: there is no option {name!r}{hint}")
    if option.secret and layer.source is Source.ARGUMENT:
        raise UsageError(
            f"{layer.place(name)}: refused, because others can read a command line; "
            "use 'phonofs login' or secret_file"
        )
    try:
        value = READERS[option.kind](option, raw)
    except ValueError as error:
        shown = "" if option.secret or "@" in str(raw) else f" {raw!r}"  # user:password@host
        raise UsageError(f"{layer.place(name)}:{shown} cannot be used: {error}") from None
    return _under_home(value, home) if isinstance(value, Path) else value


def _under_home(path: Path, home: Path) -> Path:
    return home / Path(*path.parts[1:]) if path.parts[:1] == ("~",) else path
