"""Where key and secret are found, and where ``login`` leaves them.

Used by the composition root and the commands. In order: systemd's credentials, ``secret_file``
and the file that ``login`` writes, the keyring, then what the environment or the configuration
say. A key that is configured chooses: a secret counts only for the key it was kept with. Files
are quick; a keyring may wait for its owner to unlock it, so :func:`find` belongs in a thread where
the event loop runs.
"""

import os
import pwd
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from phonofs.config import Secret, check_profile
from phonofs.errors import UsageError
from phonofs.trusted_path import check_trusted

keyring: Any
try:
    import keyring
    import keyring.errors
except ImportError:  # the extra phonofs[keyring] is not installed
    keyring = None

LARGEST_FILE = 1 << 16
SERVICE = "phonofs"
"""What our entries in the keyring go by."""

CACHE_KEY, CACHE_KEY_BYTES = "key", 32


class Credentials(NamedTuple):
    """Key and secret of one account."""

    key: str
    secret: Secret


@dataclass(frozen=True, slots=True)
class CredentialSources:
    """Where to look, besides the keyring.

    folder       phonofs' configuration folder; ``login`` writes below it
    environment  of the process, for ``CREDENTIALS_DIRECTORY``
    key, secret, secret_file  as configured, ``PHONOFS_KEY`` and ``PHONOFS_SECRET`` included
    """

    folder: Path
    environment: Mapping[str, str] = field(repr=False)
    key: str | None = None
    secret: Secret | None = None
    secret_file: Path | None = None


def home_of(environment: Mapping[str, str]) -> Path:
    """The user's home folder: HOME, else what the system has."""
    try:
        return Path(environment.get("HOME") or pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:
        return Path("/")


def xdg_folder(environment: Mapping[str, str], name: str, otherwise: Path) -> Path:
    """A folder of the XDG base directory specification: a relative path is to be ignored."""
    path = Path(environment.get(name) or otherwise)
    return path if path.is_absolute() else otherwise


def own_folder(environment: Mapping[str, str], home: Path | None = None) -> Path:
    """phonofs' configuration folder, the same for every command and mount of a user."""
    above = (home or home_of(environment)) / ".config"
    return xdg_folder(environment, "XDG_CONFIG_HOME", above) / "phonofs"


def find(profile: str, places: CredentialSources) -> Credentials:
    """Key and secret of a profile. May wait for a keyring.

    Both come from one source, or from two of the configuration: a secret that ``login`` keeps goes
    with the key it was kept with, and one that is configured with the key that is. Raises
    UsageError, with the remedy, where one is missing or a file is open to others.
    """
    check_profile(profile)
    configured = _configured(places)
    if configured.secret is not None:
        if configured.key is None:
            raise UsageError(
                f"a secret is given for the profile {profile} without its key: set key"
            )
        return Credentials(configured.key, configured.secret)
    kept = _from_file(stored_file(places.folder, profile))
    if configured.key is None:
        return kept or _pair_of_keyring(profile, places)
    if kept is not None and kept.key == configured.key:
        return kept
    secret = _from_keyring(profile, configured.key) or places.secret
    if secret is None:
        other = kept is not None or _ask_keyring(SERVICE, profile) is not None
        raise UsageError(
            f"there is no secret for the key that is configured for the profile {profile}: "
            + (
                "what 'phonofs login' keeps is for another key; remove the configured key, or log "
                "in with it"
                if other
                else "run 'phonofs login'"
            )
        )
    return Credentials(configured.key, secret)


class Configured(NamedTuple):
    """What comes before anything that ``login`` keeps: systemd's credentials and secret_file."""

    key: str | None
    secret: Secret | None


def check_nothing_else_is_used(places: CredentialSources, credentials: Credentials) -> None:
    """Raise UsageError where a mount would go on with others than these, were they kept."""
    configured = _configured(places)
    if configured.key not in (None, credentials.key):
        raise UsageError(
            "another key is configured, and would be used instead of this one: remove it, or "
            "change it to this one; nothing was changed"
        )
    if configured.secret not in (None, credentials.secret):
        raise UsageError(
            "another secret is given by secret_file or by systemd, and would be used instead of "
            "this one: put this one there, or remove it; nothing was changed"
        )


def forget(profile: str, folder: Path) -> list[str]:
    """Remove what ``login`` kept of a profile, from the keyring and from its file; say where.

    Raises UsageError where something that is there cannot be removed.
    """
    check_profile(profile)
    path = stored_file(folder, profile)
    places = ["the keyring"] if _forget_in_keyring(profile) else []
    try:
        path.unlink()
        places.append(str(path))
    except FileNotFoundError:
        pass
    except OSError as error:
        raise UsageError(f"{path} cannot be removed: {error.strerror}") from None
    return places


def _configured(places: CredentialSources) -> Configured:
    key, secret = _from_systemd(places.environment)
    return Configured(key or places.key, secret or _from_secret_file(places.secret_file))


def _pair_of_keyring(profile: str, places: CredentialSources) -> Credentials:
    key = _ask_keyring(SERVICE, profile)
    if not key:
        if places.secret is not None:
            raise UsageError(
                f"a secret is given for the profile {profile} without its key: set key"
            )
        raise UsageError(f"there is no API key for the profile {profile}: run 'phonofs login'")
    secret = _from_keyring(profile, key)
    if secret is None:
        raise UsageError(f"there is no secret for the profile {profile}: run 'phonofs login'")
    return Credentials(key, secret)


def stored_file(folder: Path, profile: str) -> Path:
    """The file ``login`` writes where there is no keyring: the key, a line break, the secret."""
    return folder / "credentials" / profile


def store(profile: str, credentials: Credentials, folder: Path) -> str:
    """Keep key and secret in the keyring, else in a file of mode 0600; say where.

    Raises UsageError where neither works.
    """
    check_profile(profile)
    if _into_keyring(profile, credentials):
        _remove(stored_file(folder, profile))
        return "the keyring"
    path = stored_file(folder, profile)
    try:
        # mkdir(parents=True) would give the upper ones the rights that the umask leaves.
        for missing in reversed([each for each in path.parents if not each.exists()]):
            missing.mkdir(mode=0o700, exist_ok=True)
        _write(path, f"{credentials.key}\n{credentials.secret.reveal()}\n".encode())
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from None
    return str(path)


def read_private(path: Path) -> bytes | None:
    """The bytes of a file that nobody else can read; None where it does not exist.

    Not through a link. Raises UsageError where it is not a regular file of ours or root's, or
    where others have any right to it or may replace it, with the command that mends it.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        why = "it is a symbolic link" if path.is_symlink() else error.strerror
        raise UsageError(f"{path} cannot be read: {why}") from None
    try:
        _check(path, os.fstat(descriptor))
        check_trusted(path, "the file")
        return os.read(descriptor, LARGEST_FILE)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    finally:
        os.close(descriptor)


def _check(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise UsageError(f"{path} is refused: it is not a regular file")
    if status.st_uid not in (os.geteuid(), 0):
        raise UsageError(f"{path} is refused: it belongs to someone else")
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise UsageError(f"{path} is refused: others can get at it; run: chmod 600 '{path}'")


def _from_secret_file(path: Path | None) -> Secret | None:
    if path is None:
        return None
    content = read_private(path)
    if content is None:
        raise UsageError(f"secret_file {path} does not exist")
    return Secret(_line(path, content.decode("utf-8", "replace").strip()))


def _line(path: Path, text: str) -> str:
    if not text or not text.isprintable() or "\ufffd" in text:
        raise UsageError(f"{path} must hold one line of text")
    return text


def _from_file(path: Path) -> Credentials | None:
    content = read_private(path)
    if content is None:
        return None
    lines = content.decode("utf-8", "replace").splitlines()
    if len(lines) != 2:
        raise UsageError(f"{path} must hold the key and the secret, a line each")
    key, secret = (_line(path, line.strip()) for line in lines)
    return Credentials(key, Secret(secret))


def _from_systemd(environment: Mapping[str, str]) -> tuple[str | None, Secret | None]:
    """systemd.exec(5), LoadCredential: files in a folder that only the unit can read.

    The folder is systemd's and of mode 0500, its files 0400 (or 0440 with an ACL for the
    user of the unit, which shows as group rights): what it put there is taken as it is.
    """
    folder = environment.get("CREDENTIALS_DIRECTORY")
    if not folder:
        return None, None
    key, secret = (_systemd_text(Path(folder) / f"phonofs.{name}") for name in ("key", "secret"))
    return key, Secret(secret) if secret is not None else None


def _systemd_text(path: Path) -> str | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    try:
        if os.fstat(descriptor).st_mode & 0o007:
            raise UsageError(f"{path} is refused: others can get at it; use LoadCredential=")
        content = os.read(descriptor, LARGEST_FILE)
    finally:
        os.close(descriptor)
    return _line(path, content.decode("utf-8", "replace").strip())


def cache_key(profile: str, how: str) -> bytes | None:
    """The key that content on disk is encrypted with: None for ``off``. May wait for a keyring.

    ``session`` makes one that nobody keeps; ``keyring`` one that is made once and kept there.
    Raises UsageError where there is no keyring that keeps it.
    """
    check_profile(profile)
    if how != "keyring":
        return os.urandom(CACHE_KEY_BYTES) if how == "session" else None
    service = f"{SERVICE}:{profile}:cache"
    kept = _ask_keyring(service, CACHE_KEY) or _new_cache_key(service)
    try:
        key = bytes.fromhex(kept)
    except ValueError:
        key = b""
    if len(key) != CACHE_KEY_BYTES:
        raise UsageError(
            f"the keyring's entry {service!r} is not a key of phonofs; remove it, and the cache "
            "begins anew"
        )
    return key


def _new_cache_key(service: str) -> str:
    made = os.urandom(CACHE_KEY_BYTES).hex()
    if keyring is not None:
        with suppress(keyring.errors.KeyringError, RuntimeError):
            keyring.set_password(service, CACHE_KEY, made)
    if _ask_keyring(service, CACHE_KEY) != made:
        raise UsageError(
            "cache_encrypt=keyring needs a keyring that is unlocked (pip install "
            "'phonofs[keyring]'); without one, cache_encrypt=session takes a key for each mount"
        )
    return made


def _from_keyring(profile: str, key: str) -> Secret | None:
    found = _ask_keyring(f"{SERVICE}:{profile}", key)
    return Secret(found) if found else None


def _ask_keyring(service: str, name: str) -> str | None:
    if keyring is None:
        return None
    try:
        found = keyring.get_password(service, name)
    except (keyring.errors.KeyringError, RuntimeError):  # none here, or its owner said no
        return None
    return found if isinstance(found, str) else None


def _into_keyring(profile: str, credentials: Credentials) -> bool:
    if keyring is None:
        return False
    try:
        before = keyring.get_password(SERVICE, profile)
        if before not in (None, credentials.key):  # the secret of another key is not left behind
            with suppress(keyring.errors.KeyringError):
                keyring.delete_password(f"{SERVICE}:{profile}", before)
        keyring.set_password(f"{SERVICE}:{profile}", credentials.key, credentials.secret.reveal())
        keyring.set_password(SERVICE, profile, credentials.key)
    except (keyring.errors.KeyringError, RuntimeError):
        return False
    return _ask_keyring(f"{SERVICE}:{profile}", credentials.key) is not None


def _forget_in_keyring(profile: str) -> bool:
    """Whether something was there, and is removed."""
    if keyring is None:
        return False
    try:
        key = keyring.get_password(SERVICE, profile)
        if key is None:
            return False
        with suppress(keyring.errors.KeyringError):  # its secret may be gone already
            keyring.delete_password(f"{SERVICE}:{profile}", key)
        keyring.delete_password(SERVICE, profile)
    except RuntimeError:  # there is none here
        return False
    except keyring.errors.KeyringError as error:
        raise UsageError(f"the keyring cannot be changed: {error}; unlock it") from None
    return _ask_keyring(SERVICE, profile) is None


def forget_cache_key(profile: str) -> None:
    """Throw away the keyring's key of an encrypted cache: what is left of it is never read."""
    if keyring is not None:
        with suppress(keyring.errors.KeyringError, RuntimeError):
            keyring.delete_password(f"{SERVICE}:{check_profile(profile)}:cache", CACHE_KEY)


def _write(path: Path, content: bytes) -> None:
    """A new file of mode 0600 in the place of the old one, whatever the umask."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    _remove(new)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(new, flags, 0o600)
    try:
        os.fchmod(descriptor, 0o600)
        os.write(descriptor, content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    new.replace(path)


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
