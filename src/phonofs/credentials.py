"""Finds the key and the secret of an account, and stores them for ``login``.

Used by ``app.py`` and the commands. The sources are, in order: systemd's credentials,
``secret_file`` and the file that ``login`` writes, the keyring, then the environment or the
configuration. If a key is configured, only a secret that was stored with that key is used. Files
are quick, but a keyring may wait for its owner to unlock it. So if an event loop runs, call
:func:`find` in a thread.
"""

import os
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from phonofs.config import Secret, Settings, check_profile
from phonofs.config.folders import CREDENTIALS, own_folder
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
"""The service name of our entries in the keyring."""

CACHE_KEY, CACHE_KEY_BYTES = "key", 32


class Credentials(NamedTuple):
    """Key and secret of one account."""

    key: str
    secret: Secret


@dataclass(frozen=True, slots=True)
class CredentialSources:
    """Where to look, besides the keyring.

    folder       phonofs' configuration directory; ``login`` writes below it
    environment  the process environment, for ``CREDENTIALS_DIRECTORY``
    key, secret, secret_file  as configured, ``PHONOFS_KEY`` and ``PHONOFS_SECRET`` included
    """

    folder: Path
    environment: Mapping[str, str] = field(repr=False)
    key: str | None = None
    secret: Secret | None = None
    secret_file: Path | None = None

    @classmethod
    def of(cls, settings: Settings, environment: Mapping[str, str]) -> "CredentialSources":
        """Return the sources of a profile with these settings."""
        return cls(
            own_folder(environment),
            environment,
            settings.key,
            settings.secret,
            settings.secret_file,
        )


def find(profile: str, places: CredentialSources) -> Credentials:
    """Return key and secret of a profile. May wait for a keyring.

    A secret that ``login`` stored is used only with the key it was stored with, and a configured
    secret only with the configured key. Raises UsageError, with the remedy, if the key or the
    secret is missing or if others can read a file.
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
    """The configured key, and a secret that overrides what ``login`` stored: from systemd's
    credentials or ``secret_file``.
    """

    key: str | None
    secret: Secret | None


def check_nothing_else_is_used(places: CredentialSources, credentials: Credentials) -> None:
    """Raise UsageError if a mount would use other credentials even after these were stored."""
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
    """Remove what ``login`` stored for a profile, from the keyring and from its file.

    Return the places it was removed from. Raises UsageError if something cannot be removed.
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
    """Return the file that ``login`` writes without a keyring: key, line break, secret."""
    return folder / CREDENTIALS / profile


def store(profile: str, credentials: Credentials, folder: Path) -> str:
    """Store key and secret in the keyring, or else in a file of mode 0600; return the place.

    Raises UsageError if neither works.
    """
    check_profile(profile)
    if _into_keyring(profile, credentials):
        _remove(stored_file(folder, profile))
        return "the keyring"
    path = stored_file(folder, profile)
    try:
        # mkdir(parents=True) would create the parents with the default mode, not with 0700.
        for missing in reversed([each for each in path.parents if not each.exists()]):
            missing.mkdir(mode=0o700, exist_ok=True)
        _write(path, f"{credentials.key}\n{credentials.secret.reveal()}\n".encode())
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from None
    return str(path)


def read_private(path: Path) -> bytes | None:
    """Return the bytes of a file that nobody else can read, or None if it does not exist.

    Raises UsageError, with the remedy, if it is a symbolic link or not a regular file, if it does
    not belong to this user or root, or if others have any permission on it or may replace it.
    """
    return _read(path, _check)


def read_credential(path: Path, environment: Mapping[str, str]) -> bytes | None:
    """Return the bytes of a file with secrets, or None if it does not exist.

    As :func:`read_private`, but the group of a file in systemd's directory of credentials is not
    looked at (see :func:`_from_systemd`). Raises UsageError.
    """
    folder = environment.get("CREDENTIALS_DIRECTORY")
    if folder and path.parent == Path(folder):
        return _read(path, _check_of_systemd)
    return read_private(path)


def _read(path: Path, check: Callable[[Path, os.stat_result], None]) -> bytes | None:
    """Return the bytes of a file that passes ``check``, or None if it does not exist.

    Raises UsageError, also if it is a symbolic link.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        why = "it is a symbolic link" if path.is_symlink() else error.strerror
        raise UsageError(f"{path} cannot be read: {why}") from None
    try:
        check(path, os.fstat(descriptor))
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
    check_trusted(path, "the file")


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
    """Return key and secret that systemd passed to the unit (LoadCredential in systemd.exec(5)).

    They are files in a directory that only the unit can read. systemd owns the directory and
    gives it mode 0500, the files 0400 (or 0440 with an ACL for the unit's user, which shows as
    group permissions). So only the permissions of others are checked. Raises UsageError.
    """
    folder = environment.get("CREDENTIALS_DIRECTORY")
    if not folder:
        return None, None
    key, secret = (_systemd_text(Path(folder) / f"phonofs.{name}") for name in ("key", "secret"))
    return key, Secret(secret) if secret is not None else None


def _systemd_text(path: Path) -> str | None:
    content = _read(path, _check_of_systemd)
    return None if content is None else _line(path, content.decode("utf-8", "replace").strip())


def _check_of_systemd(path: Path, status: os.stat_result) -> None:
    if status.st_mode & 0o007:
        raise UsageError(f"{path} is refused: others can get at it; use LoadCredential=")


def cache_key(profile: str, how: str) -> bytes | None:
    """Return the key that encrypts content on disk; None for ``off``. May wait for a keyring.

    ``session`` makes a new key that is not stored; ``keyring`` makes a key once and stores it in
    the keyring. Raises UsageError if there is no keyring that stores it.
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
    except (keyring.errors.KeyringError, RuntimeError):  # no keyring, or its owner refused
        return None
    return found if isinstance(found, str) else None


def _into_keyring(profile: str, credentials: Credentials) -> bool:
    if keyring is None:
        return False
    try:
        before = keyring.get_password(SERVICE, profile)
        if before not in (None, credentials.key):  # leave no secret of another key
            with suppress(keyring.errors.KeyringError):
                keyring.delete_password(f"{SERVICE}:{profile}", before)
        keyring.set_password(f"{SERVICE}:{profile}", credentials.key, credentials.secret.reveal())
        keyring.set_password(SERVICE, profile, credentials.key)
    except (keyring.errors.KeyringError, RuntimeError):
        return False
    return _ask_keyring(f"{SERVICE}:{profile}", credentials.key) is not None


def _forget_in_keyring(profile: str) -> bool:
    """Remove the entries of a profile; return whether there were any. Raises UsageError."""
    if keyring is None:
        return False
    try:
        key = keyring.get_password(SERVICE, profile)
        if key is None:
            return False
        with suppress(keyring.errors.KeyringError):  # its secret may be gone already
            keyring.delete_password(f"{SERVICE}:{profile}", key)
        keyring.delete_password(SERVICE, profile)
    except RuntimeError:  # there is no keyring
        return False
    except keyring.errors.KeyringError as error:
        raise UsageError(f"the keyring cannot be changed: {error}; unlock it") from None
    return _ask_keyring(SERVICE, profile) is None


def forget_cache_key(profile: str) -> None:
    """Delete the keyring's key of an encrypted cache: nobody can read what is left of the cache."""
    if keyring is not None:
        with suppress(keyring.errors.KeyringError, RuntimeError):
            keyring.delete_password(f"{SERVICE}:{check_profile(profile)}:cache", CACHE_KEY)


def _write(path: Path, content: bytes) -> None:
    """Replace a file by a new one of mode 0600, whatever the umask. Raises OSError."""
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
