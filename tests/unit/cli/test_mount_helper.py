"""mount.phonofs: what mount(8) passes on is taken, ignored or refused."""

from collections.abc import Callable
from pathlib import Path

import pytest

from phonofs.cli import mount_helper, run
from phonofs.cli.mount import profile_and_path
from phonofs.cli.mount_helper import command, ours, source_profile
from phonofs.config import Settings
from phonofs.errors import UsageError

Again = Callable[[], Settings]

OF_MOUNT = (
    "rw,ro,nosuid,nodev,noexec,dev,suid,exec,user,users,owner,nofail,_netdev,auto,noauto,"
    "noatime,relatime,defaults,x-systemd.automount,x-gvfs-hide,X-mount.mkdir,comment=x"
)


def test_the_options_of_mount_are_ignored() -> None:
    assert ours([OF_MOUNT], sloppy=False) == ""


def test_our_own_options_stay() -> None:
    text = r"ro,cache_size=1G,allow_other,name_template={time}\,{id8}"
    assert ours([text, "uid=3"], sloppy=False) == (
        r"cache_size=1G,allow_other,name_template={time}\,{id8},uid=3"
    )


def test_what_nobody_knows_stays_to_be_refused_unless_sloppy() -> None:
    assert ours(["cahce_size=1G"], sloppy=False) == "cahce_size=1G"
    assert ours(["cahce_size=1G"], sloppy=True) == ""


@pytest.mark.parametrize(
    ("source", "profile"),
    [
        ("work", "work"),
        ("phonofs#work", "work"),
        ("/work", "work"),  # mount(8) in /, where there is a folder of that name
        ("none", "default"),
        ("phonofs", "default"),
    ],
)
def test_the_source_names_the_profile(source: str, profile: str) -> None:
    assert source_profile(source) == profile


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[Settings, str]]:
    """What would have been mounted."""
    calls: list[tuple[Settings, str]] = []

    def start(settings: Settings, mountpoint: str, *, again: Again, foreground: bool) -> int:
        assert not foreground
        assert again() == settings
        calls.append((settings, mountpoint))
        return 0

    monkeypatch.setattr(mount_helper, "start", start)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return calls


def test_the_flags_of_mount_are_taken_in_any_order(started: list[tuple[Settings, str]]) -> None:
    arguments = ["work", "/mnt/calls", "-sv", "-n", "-t", "phonofs", "-o", "rw,cache_size=0"]
    assert run(command, "mount.phonofs", arguments) == 0
    ((settings, mountpoint),) = started
    assert (settings.profile, settings.cache_size, mountpoint) == ("work", 0, "/mnt/calls")


def test_a_fake_mount_checks_the_options_and_mounts_nothing(
    started: list[tuple[Settings, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(command, "mount.phonofs", ["work", "/mnt/calls", "-f"]) == 0
    assert run(command, "mount.phonofs", ["work", "/mnt/calls", "-f", "-o", "cahce_size=0"]) == 1
    assert "did you mean 'cache_size'" in capsys.readouterr().err
    assert started == []


def test_the_profile_may_be_left_out_of_mount() -> None:
    assert profile_and_path(["/mnt"]) == ("default", "/mnt")
    assert profile_and_path(["work", "/mnt"]) == ("work", "/mnt")
    with pytest.raises(UsageError, match="one argument too many"):
        profile_and_path(["work", "/mnt", "x"])


def test_a_unit_may_ask_for_the_foreground(
    monkeypatch: pytest.MonkeyPatch, started: list[tuple[Settings, str]]
) -> None:
    """An option of the helper alone; phonofs' own do not have it."""
    asked: list[bool] = []

    def start(settings: Settings, mountpoint: str, *, again: Again, foreground: bool) -> int:
        asked.append(foreground)
        return 0

    monkeypatch.setattr(mount_helper, "start", start)
    assert run(command, "mount.phonofs", ["work", "/dev/fd/3", "-o", "ro,foreground"]) == 0
    assert asked == [True]


def test_a_mount_handed_over_needs_its_permission_checks(
    started: list[tuple[Settings, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    """With allow_other the kernel must look at modes; whoever mounted has to have said so."""
    assert run(command, "mount.phonofs", ["work", "/dev/fd/3", "-o", "allow_other"]) == 1
    assert "default_permissions" in capsys.readouterr().err
    options = "allow_other,default_permissions"
    assert run(command, "mount.phonofs", ["work", "/dev/fd/3", "-o", options]) == 0
