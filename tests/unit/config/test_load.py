"""Reading the layers: files, environment, -o, the system's time zone."""

import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from phonofs.config import load as files
from phonofs.config.load import load, profiles, split_options, surroundings, system_zone
from phonofs.errors import UsageError


@pytest.fixture
def environ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """An environment whose system and user files lie in a folder of the test's own."""
    monkeypatch.setattr(files, "SYSTEM_FILE", tmp_path / "etc.toml")
    (tmp_path / "config" / "phonofs").mkdir(parents=True)
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Europe/Berlin")  # the C library's clock belongs to the process
        time.tzset()
        yield {
            "HOME": str(tmp_path),
            "XDG_CONFIG_HOME": str(tmp_path / "config"),
            "TZ": "Europe/Berlin",
        }
    time.tzset()


def write(path: Path, text: str, mode: int = 0o644) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def test_the_layers_win_in_the_order_of_the_contract(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    """System file, user file, environment, -o; in a file the profile wins over [default]."""
    write(
        tmp_path / "etc.toml",
        '[default]\ncache_size = "1G"\ntimeout = "1s"\nsubtype = "a"\npage_size = 1\nkey = "k"\n'
        '[work]\ncache_size = "2G"\ntimeout = "2s"\nsubtype = "b"\npage_size = 2\n',
    )
    write(
        tmp_path / "config/phonofs/config.toml",
        '[work]\ncache_size = "3G"\ntimeout = "3s"\nsubtype = "c"\n',
    )
    environ |= {"PHONOFS_CACHE_SIZE": "4G", "PHONOFS_TIMEOUT": "4s"}
    got = load("work", ["cache_size=5G"], environment=environ)
    assert (got.cache_size, got.timeout, got.subtype) == (5 * 2**30, 4.0, "c")
    assert (got.page_size, got.key) == (2, "k")


def test_the_default_table_is_the_profile_when_none_is_named(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    write(tmp_path / "etc.toml", '[default]\nkey = "k"\n[work]\nkey = "w"\n')
    assert load("default", environment=environ).key == "k"


def test_without_any_file_the_defaults_hold(tmp_path: Path, environ: dict[str, str]) -> None:
    got = load("work", environment=environ)
    assert got.cache_dir == tmp_path / ".cache/phonofs/work"
    assert got.timezone == "Europe/Berlin"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[work]\ncahce_size = "1G"\n', ["etc.toml, [work]: cahce_size", "'cache_size'"]),
        ("cache_size = 1\n", ["cache_size is outside of a table", "[default]"]),
        ("[work\n", ["etc.toml is not valid TOML", "line 1"]),
    ],
)
def test_what_is_wrong_in_a_file_is_named_with_its_place(
    tmp_path: Path, environ: dict[str, str], text: str, words: list[str]
) -> None:
    write(tmp_path / "etc.toml", text)
    with pytest.raises(UsageError) as caught:
        load("work", environment=environ)
    assert all(word in str(caught.value) for word in words)


def test_an_unknown_variable_is_an_error(environ: dict[str, str]) -> None:
    environ["PHONOFS_CAHCE_SIZE"] = "1G"
    with pytest.raises(UsageError, match=r"the variable PHONOFS_CAHCE_SIZE.*'cache_size'"):
        load("work", environment=environ)


def test_a_file_with_a_secret_that_others_can_read_is_refused_with_the_remedy(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    path = write(tmp_path / "etc.toml", '[work]\nsecret = "CANARY"\n', 0o640)
    with pytest.raises(UsageError, match="chmod 600") as caught:
        load("work", environment=environ)
    assert "CANARY" not in str(caught.value)
    path.chmod(0o600)
    got = load("work", environment=environ)
    assert got.secret is not None
    assert got.secret.reveal() == "CANARY"


def test_a_file_that_cannot_be_read_says_so(tmp_path: Path, environ: dict[str, str]) -> None:
    (tmp_path / "etc.toml").mkdir()
    with pytest.raises(UsageError, match=r"etc\.toml cannot be read: Is a directory"):
        load("work", environment=environ)


def test_a_relative_xdg_folder_is_ignored(environ: dict[str, str], tmp_path: Path) -> None:
    environ["XDG_CACHE_HOME"] = "here"
    assert surroundings(environ).cache_home == tmp_path / ".cache"


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("", {}),
        ("allow_other", {"allow_other": True}),
        ("cache_size=1G,allow_other", {"cache_size": "1G", "allow_other": True}),
        (r"name_template={time}\,{id8},uid=3", {"name_template": "{time},{id8}", "uid": "3"}),
        ("a=b=c,,", {"a": "b=c"}),
        (r"a=x\\,b", {"a": "x\\", "b": True}),
    ],
)
def test_options_are_taken_apart_at_commas(text: str, options: dict[str, object]) -> None:
    assert split_options(text) == options


def offset_of(name: str) -> Callable[[float], int]:
    """The clock of a C library in this zone."""
    zone = ZoneInfo(name)

    def offset_s(at_s: float) -> int:
        offset = datetime.fromtimestamp(at_s, zone).utcoffset()
        assert offset is not None
        return int(offset.total_seconds())

    return offset_s


def test_the_zone_is_that_of_tz_then_of_the_link_then_of_the_file(tmp_path: Path) -> None:
    link, file = tmp_path / "localtime", tmp_path / "timezone"

    def found(tz: str, clock: str) -> str:
        return system_zone(tz, link, file, offset_of(clock))

    assert found("", "UTC") == "UTC"
    file.write_text("Asia/Tokyo\n")
    assert found("", "Asia/Tokyo") == "Asia/Tokyo"
    link.symlink_to("/usr/share/zoneinfo/America/New_York")
    assert found("", "America/New_York") == "America/New_York"
    assert found(":Europe/Paris", "Europe/Paris") == "Europe/Paris"
    assert found("/usr/share/zoneinfo/Asia/Tokyo", "Asia/Tokyo") == "Asia/Tokyo"


def test_a_zone_that_disagrees_with_the_clock_is_none(tmp_path: Path) -> None:
    """A rule in TZ, a link that is a copy: better no zone than a wrong one."""
    link, file = tmp_path / "localtime", tmp_path / "timezone"
    file.write_text("Etc/UTC\n")
    assert system_zone("EST5EDT,M3.2.0,M11.1.0", link, file, offset_of("America/New_York")) == ""
    link.write_bytes(b"a copy")
    assert system_zone("", link, file, offset_of("America/New_York")) == ""
    # London's and UTC's winters are alike, its summers are not.
    assert system_zone("", link, file, offset_of("Europe/London")) == ""


@pytest.mark.parametrize(
    "name",
    [
        "PHONOFS_SERVICE_HOST",
        "PHONOFS_SERVICE_PORT_METRICS",
        "PHONOFS_PORT",
        "PHONOFS_PORT_9108_TCP_ADDR",
        "PHONOFS_METRICS_SERVICE_HOST",
        "PHONOFS_METRICS_PORT",
        "PHONOFS_CHANGE",
    ],
)
def test_variables_of_kubernetes_and_of_watch_are_no_options(
    environ: dict[str, str], name: str
) -> None:
    assert load("work", environment={**environ, name: "tcp://10.0.0.1:9108"}).profile == "work"


def test_the_profiles_are_those_with_a_table_or_a_login(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    assert profiles(environ) == []
    write(tmp_path / "etc.toml", '[default]\ncache_size = "1G"\n[work]\nkey = "k"\n')
    (tmp_path / "config/phonofs/credentials").mkdir()
    write(tmp_path / "config/phonofs/credentials/home", "key\nsecret", 0o600)
    assert profiles(environ) == ["home", "work"]
    assert profiles({**environ, "PHONOFS_KEY": "k"}) == ["default", "home", "work"]
    write(tmp_path / "config/phonofs/config.toml", '[default]\nkey = "k"\n')
    assert profiles(environ) == ["default", "home", "work"]
