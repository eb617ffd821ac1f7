"""What the commands believe: files that others can change, variables, the system's time zone."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.accounts import flat
from tests.support.mounts import standing

PHONOFS = (sys.executable, "-m", "phonofs.cli")
REFUSED = 2
"""What a command ends with that got as far as the service, to which all keys here are wrong."""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with standing(flat(1000)) as stand_in:
        yield stand_in.url


@pytest.fixture
def environment(tmp_path: Path, url: str) -> dict[str, str]:
    """A home of its own, without a configuration file yet; the service is in a variable."""
    (tmp_path / "config/phonofs").mkdir(parents=True)
    own = {name: text for name, text in os.environ.items() if not name.startswith("PHONOFS_")}
    return own | {
        "HOME": str(tmp_path),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "PYTHON_KEYRING_BACKEND": "keyring.backends.null.Keyring",
        "TZ": "UTC",
        "PHONOFS_API_URL": url,
        "PHONOFS_KEY": "k",
        "PHONOFS_SECRET": "s",
    }


def phonofs(
    environment: dict[str, str], *words: object, under: tuple[str, ...] = (), said: str = ""
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*under, *PHONOFS, *map(str, words)],
        env=environment,
        input=said,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def config(environment: dict[str, str]) -> Path:
    path = Path(environment["XDG_CONFIG_HOME"]) / "phonofs/config.toml"
    path.write_text("[default]\npage_size = 50\n")
    path.chmod(0o644)
    return path


def refusal(done: subprocess.CompletedProcess[str]) -> str:
    """The one sentence of a configuration that is refused."""
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("FAIL  settings")]
    assert done.returncode == 1
    assert "credentials" not in done.stdout
    return line


@pytest.mark.parametrize("spoilt", ["file", "folder", "folder above", "group"])
def test_a_configuration_that_others_may_change_is_refused(environment, tmp_path, spoilt):
    """Its api_url would be given key and secret; the remedy stands beside it."""
    path = config(environment)
    place = {"file": path, "folder": path.parent, "folder above": tmp_path, "group": path}[spoilt]
    if spoilt == "group":
        os.chown(place, -1, 4242) if os.geteuid() == 0 else pytest.skip("needs root")
    place.chmod(0o775 if spoilt == "group" else 0o777)
    assert f"chmod go-w '{place}'" in refusal(phonofs(environment, "doctor"))
    if spoilt == "file":  # the remedy helps
        place.chmod(0o755)
        assert phonofs(environment, "doctor").returncode == REFUSED


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize("spoilt", ["file", "folder", "link"])
def test_a_configuration_of_another_user_is_refused(environment, tmp_path, spoilt):
    """Also one that a link of his leads to."""
    path = config(environment)
    if spoilt == "link":
        path.rename(tmp_path / "real.toml")
        path.symlink_to(tmp_path / "real.toml")
    place = path.parent if spoilt == "folder" else path
    os.chown(place, 4242, -1, follow_symlinks=False)
    assert "belongs to another user (uid 4242)" in refusal(phonofs(environment, "doctor"))


@pytest.mark.parametrize("what", ["secret_file", "login", "log_file"])
def test_so_are_secrets_and_logs_in_a_folder_that_others_may_write_to(environment, tmp_path, what):
    """Whoever may rename a folder puts another file in its place."""
    folder = tmp_path / "shared"
    folder.mkdir()
    if what == "login":
        folder = tmp_path / "config/phonofs/credentials"
        folder.mkdir()
    secret = folder / "default"
    secret.write_text("k\ns\n" if what == "login" else "s\n")
    secret.chmod(0o600)
    if what == "log_file":
        environment["PHONOFS_LOG_FILE"] = str(folder / "log")
    else:
        del environment["PHONOFS_SECRET"]
    if what == "secret_file":
        environment["PHONOFS_SECRET_FILE"] = str(secret)
    (tmp_path / "m").mkdir()
    folder.chmod(0o777)
    done = phonofs(environment, "mount", tmp_path / "m")
    assert (done.returncode, f"chmod go-w '{folder}'" in done.stderr) == (1, True), done.stderr
    folder.chmod(0o1777)  # as /tmp: only the owner of a file removes it
    assert phonofs(environment, "mount", tmp_path / "m").returncode == REFUSED


@pytest.mark.promise("the-zone-is-the-systems")
@pytest.mark.parametrize("tz", ["EST5EDT,M3.2.0,M11.1.0", "<-03>3", "Nowhere/Atall"])
def test_a_time_zone_without_a_name_is_refused(environment, tz):
    """Recordings would lie in the folder of another day, without a word."""
    environment["TZ"] = tz
    done = phonofs(environment, "doctor")
    if tz == "Nowhere/Atall":  # which the C library takes for UTC
        assert done.returncode == REFUSED
        return
    assert "set timezone=" in refusal(done)
    environment["PHONOFS_TIMEZONE"] = "America/New_York"
    assert phonofs(environment, "doctor").returncode == REFUSED


@pytest.mark.promise("the-zone-is-the-systems")
@pytest.mark.skipif(os.geteuid() != 0, reason="a mount name space needs root")
@pytest.mark.parametrize("noted", ["Etc/UTC", None])
def test_a_copy_of_a_zone_in_etc_localtime_is_refused(environment, tmp_path, noted):
    """As some images have it, with /etc/timezone wrong or missing."""
    del environment["TZ"]
    etc = tmp_path / "etc"
    etc.mkdir()
    zone = Path("/usr/share/zoneinfo/America/New_York").read_bytes()
    (etc / "localtime").write_bytes(zone)
    (etc / "timezone").write_text(f"{noted}\n" if noted else "")
    script = f'mount -t overlay o -o lowerdir={etc}:/etc /etc || exit 77; exec "$@"'
    done = phonofs(environment, "doctor", under=("unshare", "-m", "sh", "-c", script, "sh"))
    if done.returncode == 77:
        pytest.skip("no overlay file system here")
    assert "set timezone=" in refusal(done)


def test_login_and_mount_have_one_idea_of_the_folder(environment, tmp_path):
    """A relative XDG_CONFIG_HOME is to be ignored, by all of them."""
    environment["XDG_CONFIG_HOME"] = "here"
    del environment["PHONOFS_KEY"], environment["PHONOFS_SECRET"]
    file = tmp_path / ".config/phonofs/credentials/default"
    file.parent.mkdir(parents=True)
    file.write_text("k\ns\n")
    file.chmod(0o600)
    assert "a key and a secret were found" in phonofs(environment, "doctor").stdout
    (tmp_path / "m").mkdir()
    assert phonofs(environment, "mount", tmp_path / "m").returncode == REFUSED


def test_variables_that_kubernetes_sets_do_not_matter(environment, tmp_path):
    """A service named phonofs gives them to every pod."""
    environment |= {
        "PHONOFS_SERVICE_HOST": "10.0.0.1",
        "PHONOFS_PORT": "tcp://10.0.0.1:9108",
        "PHONOFS_PORT_9108_TCP_PROTO": "tcp",
        "PHONOFS_CHANGE": "created",
    }
    (tmp_path / "m").mkdir()
    assert phonofs(environment, "mount", tmp_path / "m").returncode == REFUSED
    environment["PHONOFS_CAHCE_SIZE"] = "1G"
    assert phonofs(environment, "mount", tmp_path / "m").returncode == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="another user, and a mount name space, need root")
@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("user_allow_other # for samba\n", "allow_other is on, and allowed"),
        ("# user_allow_other\n", "needs a line"),
        ("mount_max = 9\nuser_allow_other", "has no line end"),
    ],
)
def test_fuse_conf_is_read_as_fusermount3_reads_it(environment, tmp_path, text, outcome):
    """Comments stand behind words, and a last line needs its end."""
    environment |= {
        "PHONOFS_CACHE_DIR": "/tmp/none",
        "HOME": "/nonexistent",
        "XDG_CONFIG_HOME": "/nonexistent",
    }
    (tmp_path / "fuse.conf").write_text(text)
    to_user = "setpriv --reuid=65534 --regid=65534 --clear-groups"
    script = f'mount --bind {tmp_path}/fuse.conf /etc/fuse.conf || exit 77; exec {to_user} "$@"'
    under = ("unshare", "-m", "sh", "-c", script, "sh")
    done = phonofs(environment, "doctor", "-o", "allow_other", under=under)
    if done.returncode == 77 or "No module named" in done.stderr:
        pytest.skip("another user cannot run this Python, or there is no fuse.conf")
    (line,) = [line for line in done.stdout.splitlines() if "other users" in line]
    assert outcome in line
