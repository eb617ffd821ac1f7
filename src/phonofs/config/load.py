"""Reads the layers of the configuration: files, environment, ``-o``; and the system's values."""

import os
import re
import stat
import time
import tomllib
import zoneinfo
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from phonofs.config import (
    DEFAULT_PROFILE,
    OPTIONS,
    Layer,
    Settings,
    Source,
    SystemDefaults,
    check_profile,
    merge,
)
from phonofs.config.folders import CREDENTIALS, home_of, own_folder, xdg_folder
from phonofs.errors import UsageError
from phonofs.trusted_path import check_file, check_trusted

SYSTEM_FILE = Path("/etc/phonofs.toml")
PREFIX = "PHONOFS_"
NO_OPTION = re.compile(
    r"PHONOFS_CHANGE|PHONOFS_(\w+_)?(SERVICE_(HOST|PORT)(_\w+)?|PORT(_\d+_\w+)?)"
)
"""Variables that are not options: the one that ``watch`` sets for its command, and those that
Kubernetes sets in each pod of a namespace with a service called phonofs or phonofs-SOMETHING."""
ZONE_LINK = Path("/etc/localtime")
ZONE_FILE = Path("/etc/timezone")
ZONE_FOLDER = "/zoneinfo/"
HALF_A_YEAR_S = 182 * 86400.0
VARIABLES = frozenset(option.variable for option in OPTIONS)


def load(
    profile: str, options: Sequence[str] = (), *, environment: Mapping[str, str] | None = None
) -> Settings:
    """Return the settings of a profile: both files, the environment, then ``-o`` texts in order.

    Later ones override earlier ones. Raises UsageError.
    """
    environ = os.environ if environment is None else environment
    check_profile(profile)
    here = surroundings(environ)
    return merge(list(_layers(profile, options, environ, here.home)), profile, here)


def places_of(profile: str, names: Sequence[str], options: Sequence[str] = ()) -> list[str]:
    """Return where these options are given; for each, the last place, which is the one used."""
    found: dict[str, str] = {}
    for layer in _layers(profile, options, os.environ, home_of(os.environ)):
        found |= {name: layer.place(name) for name in names if name in layer.values}
    return list(found.values())


def profiles(environment: Mapping[str, str] | None = None) -> list[str]:
    """Return the names of the profiles that have a table or that somebody logged in to, sorted.

    Those that have neither (their key is in the keyring) work too. Raises UsageError.
    """
    environ = os.environ if environment is None else environment
    home = home_of(environ)
    tables = [_tables(path) for path in (SYSTEM_FILE, user_file(environ, home))]
    names = {name for each in tables for name in each if name != DEFAULT_PROFILE}
    if f"{PREFIX}KEY" in environ or any("key" in each.get(DEFAULT_PROFILE, {}) for each in tables):
        names.add(DEFAULT_PROFILE)
    with suppress(OSError):  # nobody logged in, or the key is in the keyring
        names |= {path.name for path in (own_folder(environ, home) / CREDENTIALS).iterdir()}
    return sorted(names)


def user_file(environ: Mapping[str, str], home: Path) -> Path:
    """Return the path of the user's configuration file."""
    return own_folder(environ, home) / "config.toml"


def _layers(
    profile: str, options: Sequence[str], environ: Mapping[str, str], home: Path
) -> Iterator[Layer]:
    for path in (SYSTEM_FILE, user_file(environ, home)):
        tables = _tables(path)
        for name in dict.fromkeys((DEFAULT_PROFILE, profile)):
            if name in tables:
                yield Layer(Source.FILE, tables[name], f"{path}, [{name}]")
    variables = {
        name.removeprefix(PREFIX).lower(): value
        for name, value in environ.items()
        if name.startswith(PREFIX) and not _is_no_option(name)
    }
    yield Layer(Source.ENVIRONMENT, variables)
    for text in options:
        yield Layer(Source.ARGUMENT, split_options(text))


def _is_no_option(name: str) -> bool:
    return name not in VARIABLES and NO_OPTION.fullmatch(name) is not None


def _tables(path: Path) -> dict[str, dict[str, object]]:
    """Return the tables of a file by name; none if there is no file."""
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            check_file(path, "the configuration file", status)
            check_trusted(path, "the configuration file")
            content = tomllib.load(file)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not valid TOML: {error}") from None
    for name, table in content.items():
        if not isinstance(table, dict):
            raise UsageError(f"{path}: {name} is outside of a table; put it below [default]")
        if "secret" in table and stat.S_IMODE(status.st_mode) & 0o077:
            raise UsageError(
                f"{path}, [{name}]: contains a secret that others can read; run `chmod 600 {path}`"
            )
    return content


def split_options(text: str) -> dict[str, object]:
    r"""Split ``a=1,b,c=x\,y`` into names and values; a name without a value is True."""
    options: dict[str, object] = {}
    for part in re.findall(r"(?:\\.|[^,\\]|\\$)+", text):
        name, equals, value = re.sub(r"\\(.)", r"\1", part).partition("=")
        options[name.strip()] = value if equals else True
    return options


def surroundings(environ: Mapping[str, str]) -> SystemDefaults:
    """Return the system's values for options that were not given."""
    home = home_of(environ)
    tz = environ.get("TZ")
    return SystemDefaults(
        timezone=system_zone("UTC" if tz == "" else tz or ""),  # set and empty is UTC: tzset(3)
        uid=os.getuid(),
        gid=os.getgid(),
        home=home,
        cache_home=xdg_folder(environ, "XDG_CACHE_HOME", home / ".cache"),
    )


def system_zone(
    tz: str,
    link: Path = ZONE_LINK,
    file: Path = ZONE_FILE,
    offset_s: Callable[[float], int] | None = None,
) -> str:
    """Return the IANA name of the system's time zone, or '' if it cannot be determined.

    ``tz`` is the variable TZ, which takes precedence as in the C library. The zone found must
    agree with the C library's offset from UTC (``offset_s`` of an epoch time) in summer and
    winter: TZ may be a rule without a name, and the link may be a copy of a file.
    """
    clock = offset_s or _local_offset_s
    candidates = [_name_of(tz.removeprefix(":")), _name_of(os.path.realpath(link))]
    if file.is_file():
        candidates.append(file.read_text(errors="replace").strip())
    zones = [name for name in (*candidates, "UTC") if name]
    return next((name for name in zones if _agrees(name, clock)), "")


def _name_of(text: str) -> str:
    """Return a zone's name; TZ may be a name or the path of a file, the link is always a path."""
    return text.split(ZONE_FOLDER, 1)[1] if ZONE_FOLDER in text else text.removeprefix("/")


def _agrees(name: str, offset_s: Callable[[float], int]) -> bool:
    try:
        zone = zoneinfo.ZoneInfo(name)
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
        return False
    now_s = time.time()
    for at_s in (now_s, now_s + HALF_A_YEAR_S):
        found = datetime.fromtimestamp(at_s, zone).utcoffset()
        if found is None or found.total_seconds() != offset_s(at_s):
            return False
    return True


def _local_offset_s(at_s: float) -> int:
    return time.localtime(at_s).tm_gmtoff
