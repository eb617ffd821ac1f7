"""Where key and secret are found, in which order, and what is refused."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from phonofs import credentials
from phonofs.config import Secret
from phonofs.credentials import (
    Credentials,
    CredentialSources,
    find,
    read_private,
    store,
    stored_file,
)
from phonofs.errors import UsageError


class KeyringLocked(Exception):
    """What a keyring raises whose owner says no."""


class MemoryKeyring:
    """Stands in for the module keyring, with its entries in a dict."""

    errors = SimpleNamespace(KeyringError=KeyringLocked)

    def __init__(self) -> None:
        self.entries: dict[tuple[str, str], str] = {}
        self.locked = False

    def get_password(self, service: str, username: str) -> str | None:
        self._check()
        return self.entries.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self._check()
        self.entries[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        self._check()
        if self.entries.pop((service, username), None) is None:
            raise KeyringLocked

    def _check(self) -> None:
        if self.locked:
            raise KeyringLocked


@pytest.fixture(autouse=True)
def ring(monkeypatch: pytest.MonkeyPatch) -> MemoryKeyring:
    ring = MemoryKeyring()
    monkeypatch.setattr(credentials, "keyring", ring)
    return ring


@pytest.fixture
def no_keyring(ring: MemoryKeyring) -> None:
    ring.locked = True


def put(path: Path, text: str, mode: int = 0o600) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def places(folder: Path, **fields: Any) -> CredentialSources:
    return CredentialSources(folder, fields.pop("environment", {}), **fields)


def revealed(found: Credentials) -> tuple[str, str]:
    return found.key, found.secret.reveal()


def test_what_login_keeps_is_found_again(tmp_path: Path, ring: MemoryKeyring) -> None:
    """In the keyring; the key by the profile, the secret by profile and key."""
    assert store("work", Credentials("k", Secret("s")), tmp_path) == "the keyring"
    assert revealed(find("work", places(tmp_path))) == ("k", "s")
    assert not stored_file(tmp_path, "work").exists()
    with pytest.raises(UsageError, match="phonofs login"):
        find("other", places(tmp_path))


@pytest.mark.usefixtures("no_keyring")
def test_without_a_keyring_it_is_a_private_file(tmp_path: Path) -> None:
    """0600 in a folder 0700, whatever the umask; a new login replaces the old one."""
    old = os.umask(0)
    try:
        for secret in ("one", "two"):
            where = store("work", Credentials("k", Secret(secret)), tmp_path / "phonofs")
    finally:
        os.umask(old)
    path = Path(where)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert os.listdir(path.parent) == ["work"]
    assert revealed(find("work", places(tmp_path / "phonofs"))) == ("k", "two")


def test_without_the_package_keyring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an extra; everything else works without it."""
    monkeypatch.setattr(credentials, "keyring", None)
    assert store("work", Credentials("k", Secret("s")), tmp_path) == str(
        stored_file(tmp_path, "work")
    )
    assert revealed(find("work", places(tmp_path))) == ("k", "s")


def test_the_order(tmp_path: Path, ring: MemoryKeyring) -> None:
    """systemd, secret_file, login's file, keyring, configuration."""
    config = {"key": "k", "secret": Secret("from config")}
    assert revealed(find("work", places(tmp_path, **config))) == ("k", "from config")
    ring.entries["phonofs:work", "k"] = "from keyring"
    assert revealed(find("work", places(tmp_path, **config)))[1] == "from keyring"
    put(stored_file(tmp_path, "work"), "k\nfrom login\n")
    assert revealed(find("work", places(tmp_path, **config)))[1] == "from login"
    config["secret_file"] = put(tmp_path / "secret", "from file\n")
    assert revealed(find("work", places(tmp_path, **config)))[1] == "from file"
    put(tmp_path / "run/phonofs.secret", "from systemd\n", 0o400)
    put(tmp_path / "run/phonofs.key", "key of systemd", 0o440)
    config["environment"] = {"CREDENTIALS_DIRECTORY": str(tmp_path / "run")}
    assert revealed(find("work", places(tmp_path, **config))) == ("key of systemd", "from systemd")


def test_a_secret_counts_for_its_own_key_only(tmp_path: Path, ring: MemoryKeyring) -> None:
    """Another key in the configuration does not get the secret of the one that was kept."""
    put(stored_file(tmp_path, "work"), "k\ns\n")
    ring.entries["phonofs:work", "k"] = "s"
    with pytest.raises(UsageError, match="no secret"):
        find("work", places(tmp_path, key="other"))
    given = places(tmp_path, key="other", secret=Secret("t"))
    assert revealed(find("work", given)) == ("other", "t")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o644, 0o777])
def test_a_file_that_others_can_get_at_is_refused(tmp_path: Path, mode: int) -> None:
    """With the command that mends it."""
    path = put(tmp_path / "secret", "s", mode)
    with pytest.raises(UsageError, match=f"chmod 600 '{path}'"):
        find("work", places(tmp_path, key="k", secret_file=path))


def test_what_is_no_file_of_ours_is_refused(tmp_path: Path) -> None:
    """Links, folders, pipes (which must not be waited for), files of someone else."""
    target = put(tmp_path / "target", "s")
    (tmp_path / "link").symlink_to(target)
    (tmp_path / "folder").mkdir(mode=0o700)
    os.mkfifo(tmp_path / "pipe", 0o600)
    for name, words in (("link", "symbolic link"), ("folder", "regular"), ("pipe", "regular")):
        with pytest.raises(UsageError, match=words):
            read_private(tmp_path / name)
    assert read_private(tmp_path / "nothing") is None
    if os.geteuid() == 0:
        os.chown(target, 12345, 12345)
        with pytest.raises(UsageError, match="someone else"):
            read_private(target)


@pytest.mark.parametrize("text", ["", "\n", "a\nb", "\x00", "s\x1b[0m"])
def test_a_file_must_hold_one_line(tmp_path: Path, text: str) -> None:
    """And what it holds is not quoted."""
    path = put(tmp_path / "secret", text)
    with pytest.raises(UsageError, match="one line"):
        find("work", places(tmp_path, key="k", secret_file=path))
    with pytest.raises(UsageError, match="does not exist"):
        find("work", places(tmp_path, key="k", secret_file=tmp_path / "nothing"))


def test_systemd_s_credentials(tmp_path: Path) -> None:
    """Group rights are systemd's own business, those of others are not; one may be missing."""
    environment = {"CREDENTIALS_DIRECTORY": str(tmp_path / "run")}
    put(tmp_path / "run/phonofs.secret", "s", 0o440)
    assert revealed(find("work", places(tmp_path, key="k", environment=environment))) == ("k", "s")
    put(tmp_path / "run/phonofs.secret", "s", 0o444)
    with pytest.raises(UsageError, match="LoadCredential"):
        find("work", places(tmp_path, key="k", environment=environment))


def test_a_folder_in_place_of_a_credential_of_systemd(tmp_path: Path) -> None:
    (tmp_path / "run/phonofs.key").mkdir(parents=True, mode=0o700)
    config = {"environment": {"CREDENTIALS_DIRECTORY": str(tmp_path / "run")}}
    with pytest.raises(UsageError, match=r"phonofs\.key cannot be read: Is a directory"):
        find("work", places(tmp_path, **config))


def test_a_locked_keyring_is_no_error(tmp_path: Path, ring: MemoryKeyring) -> None:
    """Its owner said no: what the configuration says counts."""
    ring.locked = True
    found = find("work", places(tmp_path, key="k", secret=Secret("s")))
    assert revealed(found) == ("k", "s")


def test_a_profile_cannot_leave_its_folder(tmp_path: Path) -> None:
    """It names a file."""
    for profile in ("../x", "a/b", "", ".x"):
        with pytest.raises(UsageError):
            find(profile, places(tmp_path))
        with pytest.raises(UsageError):
            store(profile, Credentials("k", Secret("s")), tmp_path)


@pytest.mark.usefixtures("no_keyring")
def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    """One sentence, without the secret."""
    (tmp_path / "credentials").write_text("a file is in the way")
    with pytest.raises(UsageError, match="cannot be written") as caught:
        store("work", Credentials("k", Secret("canary")), tmp_path)
    assert "canary" not in str(caught.value)


def test_a_secret_does_not_show(tmp_path: Path) -> None:
    """Not in the repr of what is found, nor of where to look."""
    assert "canary" not in repr(Credentials("k", Secret("canary")))
    environment = {"PHONOFS_SECRET": "canary"}
    assert "canary" not in repr(places(tmp_path, secret=Secret("canary"), environment=environment))
