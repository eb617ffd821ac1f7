"""Reading the layers of the configuration: files, environment, ``-o``; and the system's values."""

import os
import pwd
import re
import stat
import tomllib
import zoneinfo
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from phonofs.config import (
    DEFAULT_PROFILE,
    Layer,
    Settings,
    Source,
    Surroundings,
    check_profile,
    merge,
    nearest,
)
from phonofs.errors import UsageError

SYSTEM_FILE = Path("/etc/phonofs.toml")
PREFIX = "PHONOFS_"
ZONE_LINK = Path("/etc/localtime")
ZONE_FILE = Path("/etc/timezone")
ZONE_FOLDER = "/zoneinfo/"


def load(
    profile: str, options: Sequence[str] = (), *, environment: Mapping[str, str] | None = None
) -> Settings:
    """The settings of a profile: both files, the environment, then ``-o`` texts in order.

    Raises UsageError.
    """
    environ = os.environ if environment is None else environment
    check_profile(profile)
    here = surroundings(environ)
    return merge(list(_layers(profile, options, environ, here.home)), profile, here)


def user_file(environ: Mapping[str, str], home: Path) -> Path:
    """The user's own configuration file."""
    return _xdg(environ, "XDG_CONFIG_HOME", home / ".config") / "phonofs" / "config.toml"


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
        if name.startswith(PREFIX)
    }
    yield Layer(Source.ENVIRONMENT, variables)
    for text in options:
        yield Layer(Source.ARGUMENT, split_options(text))


def _tables(path: Path) -> dict[str, dict[str, object]]:
    """The file's tables by name; none where there is no file."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = tomllib.load(file)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not valid TOML: {error}") from None
    for name, table in content.items():
        if not isinstance(table, dict):
            raise UsageError(
                f"{path}: {name} stands outside of a table; put it below [default]"
                f"{nearest(name, ())}"
            )
        if "secret" in table and stat.S_IMODE(mode) & 0o077:
            raise UsageError(
                f"{path}, [{name}]: holds a secret that others can read; run `chmod 600 {path}`"
            )
    return content


def split_options(text: str) -> dict[str, object]:
    r"""``a=1,b,c=x\,y`` as names and values; a name alone is true."""
    options: dict[str, object] = {}
    for part in re.findall(r"(?:\\.|[^,\\]|\\$)+", text):
        name, equals, value = re.sub(r"\\(.)", r"\1", part).partition("=")
        options[name.strip()] = value if equals else True
    return options


def surroundings(environ: Mapping[str, str]) -> Surroundings:
    """What the system says where an option was not given."""
    home = Path(environ.get("HOME") or _home_of(os.getuid()))
    return Surroundings(
        timezone=system_zone(environ.get("TZ", "")),
        uid=os.getuid(),
        gid=os.getgid(),
        home=home,
        cache_home=_xdg(environ, "XDG_CACHE_HOME", home / ".cache"),
    )


def _xdg(environ: Mapping[str, str], name: str, otherwise: Path) -> Path:
    # The XDG base directory specification: a relative path is invalid and to be ignored.
    path = Path(environ.get(name) or otherwise)
    return path if path.is_absolute() else otherwise


def _home_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_dir
    except KeyError:
        return "/"


def system_zone(tz: str, link: Path = ZONE_LINK, file: Path = ZONE_FILE) -> str:
    """The IANA name of the system's time zone; UTC where none can be found.

    ``tz`` is the variable TZ, which wins as it does in the C library.
    """
    candidates = [tz.removeprefix(":")]
    target = os.path.realpath(link)
    if ZONE_FOLDER in target:
        candidates.append(target.split(ZONE_FOLDER, 1)[1])
    if file.is_file():
        candidates.append(file.read_text(errors="replace").strip())
    return next((name for name in candidates if name and _known_zone(name)), "UTC")


def _known_zone(name: str) -> bool:
    try:
        zoneinfo.ZoneInfo(name)
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
        return False
    return True
