"""login and logout: that what is kept is what a mount uses, and that it can be forgotten."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from phonofs.fakeservice.options import DEMO_KEY, DEMO_SECRET
from tests.support.accounts import flat
from tests.support.mounts import StandIn, standing

PHONOFS = (sys.executable, "-m", "phonofs.cli")

KEYRING = '''
"""A keyring in a file of JSON, for tests."""

import json
import os
from pathlib import Path

import keyring.backend
import keyring.errors

PATH = Path(os.environ["TEST_KEYRING"])


class Keyring(keyring.backend.KeyringBackend):
    priority = 1

    def _entries(self):
        return json.loads(PATH.read_text()) if PATH.exists() else {}

    def get_password(self, service, username):
        if PATH.with_suffix(".locked").exists():
            raise keyring.errors.KeyringLocked("its owner says no")
        return self._entries().get(f"{service} {username}")

    def set_password(self, service, username, password):
        PATH.write_text(json.dumps(self._entries() | {f"{service} {username}": password}))

    def delete_password(self, service, username):
        entries = self._entries()
        if entries.pop(f"{service} {username}", None) is None:
            raise keyring.errors.PasswordDeleteError("not there")
        PATH.write_text(json.dumps(entries))
'''


@pytest.fixture(scope="module")
def stand_in() -> Iterator[StandIn]:
    with standing(flat(1000)) as stand_in:
        yield stand_in


@pytest.fixture
def environment(tmp_path: Path, stand_in: StandIn) -> Iterator[dict[str, str]]:
    own = {name: text for name, text in os.environ.items() if not name.startswith("PHONOFS_")}
    yield own | {
        "HOME": str(tmp_path),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "XDG_RUNTIME_DIR": str(tmp_path / "run"),
        "PYTHON_KEYRING_BACKEND": "keyring.backends.null.Keyring",
        "PHONOFS_API_URL": stand_in.url,
        "PHONOFS_TIMEZONE": "UTC",
    }
    if os.path.ismount(tmp_path / "m"):  # a test that failed left it
        subprocess.run(["umount", "-l", tmp_path / "m"], check=False)


@pytest.fixture
def keyring(environment: dict[str, str], tmp_path: Path) -> Path:
    """The file of a keyring that the commands use."""
    pytest.importorskip("keyring")
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules/keyring_in_a_file.py").write_text(KEYRING)
    environment["PYTHON_KEYRING_BACKEND"] = "keyring_in_a_file.Keyring"
    environment["PYTHONPATH"] = f"{tmp_path}/modules:{os.environ.get('PYTHONPATH', '')}"
    environment["TEST_KEYRING"] = str(tmp_path / "keyring.json")
    return tmp_path / "keyring.json"


def phonofs(
    environment: dict[str, str], *words: object, said: str = ""
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PHONOFS, *map(str, words)],
        env=environment,
        input=said,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def log_in(
    environment: dict[str, str], key: str = DEMO_KEY, secret: str = DEMO_SECRET
) -> subprocess.CompletedProcess[str]:
    return phonofs(environment, "login", "work", said=f"{key}\n{secret}\n")


def config(environment: dict[str, str], text: str) -> Path:
    path = Path(environment["XDG_CONFIG_HOME"]) / "phonofs/config.toml"
    path.parent.mkdir(mode=0o755, exist_ok=True, parents=True)
    path.write_text(text)
    path.chmod(0o600)
    return path


def test_login_refuses_what_a_mount_would_not_use(environment, tmp_path):
    """With the place of what it would use instead; once that is gone it is taken."""
    (tmp_path / "secret").write_text("old\n")
    (tmp_path / "secret").chmod(0o600)
    path = config(environment, '[work]\nkey = "old"\n')
    done = log_in(environment)
    assert done.returncode == 1
    assert f"{path}, [work]: key" in done.stderr
    assert "nothing was changed" in done.stderr
    path.write_text(f'[work]\nkey = "{DEMO_KEY}"\nsecret_file = "{tmp_path}/secret"\n')
    done = log_in(environment)
    assert done.returncode == 1
    assert f"{path}, [work]: secret_file" in done.stderr
    assert not (tmp_path / "config/phonofs/credentials").exists()
    path.unlink()
    environment["PHONOFS_KEY"] = "old"
    done = log_in(environment)
    assert (done.returncode, "the variable PHONOFS_KEY" in done.stderr) == (1, True)
    environment["PHONOFS_KEY"] = DEMO_KEY
    assert log_in(environment).returncode == 0
    assert "granted" in phonofs(environment, "doctor", "work").stdout


def test_key_and_secret_come_from_one_source(environment):
    """A secret without a key beside it is not put to the key of another source."""
    assert log_in(environment).returncode == 0
    environment["PHONOFS_SECRET"] = "of another key"
    assert "granted" in phonofs(environment, "doctor", "work").stdout
    environment["PHONOFS_KEY"] = "another"
    del environment["PHONOFS_SECRET"]
    done = phonofs(environment, "doctor", "work")
    assert done.returncode == 1
    assert "remove the configured key" in done.stdout
    assert phonofs(environment, "logout", "work").returncode == 0
    del environment["PHONOFS_KEY"]
    environment["PHONOFS_SECRET"] = "of another key"
    assert "without its key" in phonofs(environment, "doctor", "work").stdout


def test_logout_forgets_what_login_kept(environment, tmp_path):
    """The file goes, the cache stays; a second time there is nothing, and that is no error."""
    assert log_in(environment).returncode == 0
    (tmp_path / "m").mkdir()
    assert phonofs(environment, "mount", "work", tmp_path / "m").returncode == 0
    assert phonofs(environment, "umount", tmp_path / "m").returncode == 0
    file = tmp_path / "config/phonofs/credentials/work"
    assert file.exists()
    done = phonofs(environment, "logout", "work")
    assert (done.returncode, done.stderr) == (0, "")
    assert str(file) in done.stdout
    assert not file.exists()
    assert "phonofs cache clear work" in done.stdout
    assert (tmp_path / "cache/phonofs/work/content").is_dir()
    done = phonofs(environment, "logout", "work")
    assert (done.returncode, done.stderr) == (0, "")
    assert "No key and no secret were stored" in done.stdout
    assert phonofs(environment, "mount", "work", tmp_path / "m").returncode == 1


def test_logout_says_where_a_key_still_is(environment, tmp_path):
    """It takes nothing out of a configuration."""
    path = config(environment, '[default]\nkey = "k"\n[work]\nsecret = "canary"\n')
    environment["PHONOFS_SECRET_FILE"] = str(tmp_path / "secret")
    done = phonofs(environment, "logout", "work")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{path}, [default]: key" in done.stdout
    assert f"{path}, [work]: secret" in done.stdout
    assert "the variable PHONOFS_SECRET_FILE" in done.stdout
    assert "canary" not in done.stdout
    path.write_text("[work\n")  # a configuration that is wrong keeps nobody logged in
    environment_of_file = tmp_path / "config/phonofs/credentials/work"
    environment_of_file.parent.mkdir(mode=0o700)
    environment_of_file.write_text("k\ns\n")
    assert phonofs(environment, "logout", "work").returncode == 1
    assert not environment_of_file.exists()


def test_logout_with_clear_empties_the_cache_too(environment, tmp_path):
    assert log_in(environment).returncode == 0
    (tmp_path / "m").mkdir()
    assert phonofs(environment, "mount", "work", tmp_path / "m").returncode == 0
    (path,) = (each for each in (tmp_path / "m").rglob("*") if each.is_file())
    path.read_bytes()
    done = phonofs(environment, "logout", "--clear", "work")
    assert done.returncode == 1, "the cache of a mount is in use"
    assert f"Still mounted: {tmp_path}/m" in done.stdout
    assert phonofs(environment, "umount", tmp_path / "m").returncode == 0
    assert kept(tmp_path) > 0
    done = phonofs(environment, "logout", "--clear", "work")
    assert (done.returncode, done.stderr) == (0, "")
    assert "1 object removed" in done.stdout
    assert kept(tmp_path) == 0


def kept(folder: Path) -> int:
    return sum(path.is_file() for path in folder.glob("cache/phonofs/work/content/??/*"))


def test_the_keyring_keeps_nothing_after_logout_nor_of_the_key_before(
    environment, keyring, stand_in
):
    """A new login leaves no secret of the old key behind."""
    assert "the keyring" in log_in(environment).stdout
    assert DEMO_SECRET in keyring.read_text()
    before = stand_in.service.options
    stand_in.service.choose(key="new", secret="other")
    try:
        assert log_in(environment, "new", "other").returncode == 0
    finally:
        stand_in.service.choose(key=before.key, secret=before.secret)
    assert DEMO_SECRET not in keyring.read_text()
    done = phonofs(environment, "logout", "work")
    assert "the keyring" in done.stdout
    assert json.loads(keyring.read_text()) == {}
    assert "No key and no secret" in phonofs(environment, "logout", "work").stdout


def test_logout_with_clear_forgets_the_key_of_a_cache_that_is_gone(environment, keyring):
    """The folder was removed by hand: its key is thrown away all the same."""
    assert log_in(environment).returncode == 0
    entries = json.loads(keyring.read_text())
    keyring.write_text(json.dumps(entries | {"phonofs:work:cache key": "00" * 32}))
    done = phonofs(environment, "logout", "--clear", "work")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(keyring.read_text()) == {}


def test_a_locked_keyring_is_said(environment, keyring):
    """Nobody believes that it was forgotten."""
    assert log_in(environment).returncode == 0
    keyring.with_suffix(".locked").touch()
    done = phonofs(environment, "logout", "work")
    assert (done.returncode, done.stdout) == (1, "")
    assert "unlock" in done.stderr
    assert DEMO_SECRET in keyring.read_text()
