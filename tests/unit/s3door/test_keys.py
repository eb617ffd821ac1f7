"""A key opens what its table says, and a file with any doubt in it opens nothing."""

import os
import pickle
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phonofs.config import Secret
from phonofs.errors import UsageError
from phonofs.s3door.keys import Key, Keys, load_keys

SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
TABLE = f"""
[[key]]
name = "batch"
access_key = "BATCH"
secret_key = "{SECRET}"
"""
NAMES = st.sampled_from(["2024", "2024-09", "2024-0", "us", "us-east", "a", ".views"])
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "keys.toml"
    path.touch(mode=0o600)
    return path


def loaded(file: Path, text: str) -> Keys:
    file.write_text(text, encoding="utf-8")
    return load_keys(file)


def refusal(file: Path, text: str) -> str:
    with pytest.raises(UsageError) as caught:
        loaded(file, text)
    message = str(caught.value)
    assert SECRET not in message
    assert SECRET[:8] not in message
    assert "\n" not in message
    assert str(file) in message
    return message


def key(*prefixes: str, types: frozenset[str] = frozenset()) -> Key:
    return Key("k", "K", Secret(SECRET), prefixes, types)


def test_a_file_gives_its_keys(file: Path) -> None:
    more = TABLE.replace("batch", "player").replace("BATCH", "PLAYER")
    keys = loaded(file, TABLE + more + 'prefixes = ["2024/2024-09/", "us-east"]\ntypes = ["x"]\n')
    assert len(keys) == 2
    assert keys.find("BATCH") == Key("batch", "BATCH", Secret(SECRET))
    player = keys.find("PLAYER")
    assert player is not None
    assert player.prefixes == ("2024/2024-09", "us-east")
    assert (player.name, player.types) == ("player", {"x"})
    assert player.secret_key.reveal() == SECRET
    assert keys.find("batch") is None


def test_a_key_without_limits_opens_everything() -> None:
    assert key().covers("us-east/2024/x.mp3")
    assert key().opens_type("anything")
    assert key().reaches("")
    assert key().reaches("zzz")


def test_a_prefix_is_a_whole_name_of_a_folder() -> None:
    """Were it any text, a key for 2024-1 would open October to December too."""
    limited = key("2024/2024-1", "us")
    assert limited.covers("2024/2024-1/a")
    assert limited.covers("2024/2024-1")
    assert not limited.covers("2024/2024-10/a")
    assert not limited.covers("us-east/a")
    assert not limited.covers("2024")
    assert limited.reaches("2024/")
    assert limited.reaches("2024/2024-1")
    assert not limited.reaches("2024/2024-10")
    assert not limited.reaches("us-")


@pytest.mark.parametrize(
    "path", ["2024/../2023/a", "/2024/a", "2024", "2024//a/../../2023", "2024\\a", "２０２４/a", ""]
)
def test_no_spelling_leads_out_of_a_prefix(path: str) -> None:
    """Paths are compared as text; one that begins well and climbs names no object of the tree."""
    assert not key("2024/2024-09").covers(path)


@settings(deadline=None)
@given(st.lists(PATHS, min_size=1, max_size=3), PATHS, st.integers(0, 30))
def test_a_listing_reaches_whatever_may_be_opened(prefixes: list[str], path: str, cut: int) -> None:
    limited = key(*prefixes)
    if limited.covers(path):
        assert limited.reaches(path[:cut])
    if not limited.reaches(path):
        assert not limited.covers(path)
        assert not limited.covers(f"{path}/x")


@settings(deadline=None)
@given(st.lists(PATHS, min_size=1, max_size=3), PATHS)
def test_a_listing_reaches_nothing_else(prefixes: list[str], start: str) -> None:
    limited = key(*prefixes)
    openable = [f"{each}{below}" for each in prefixes for below in ("", f"/{start}")]
    openable.append(start)
    if limited.reaches(start):
        assert any(
            limited.covers(path) and path.startswith(start) for path in openable
        ) or limited.covers(f"{start}x")


def test_types_limit_what_is_opened() -> None:
    limited = key("2024", types=frozenset({"callrecording"}))
    assert limited.opens_type("callrecording")
    assert not limited.opens_type("voicemail")
    assert not limited.opens_type("")


def test_a_secret_is_shown_nowhere(file: Path) -> None:
    keys = loaded(file, TABLE)
    key = keys.find("BATCH")
    assert "BATCH" in repr(key)
    assert SECRET not in repr(key) + str(key) + repr(keys)
    with pytest.raises(TypeError):
        pickle.dumps(keys)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("name =", "nmae =", "'nmae' is unknown; did you mean 'name'?"),
        ('name = "batch"', "", "name is missing"),
        ('"batch"', "7", "name must be a text"),
        ('"batch"', '"a b"', "name must be"),
        ('"batch"', '"a\\u001b[2J"', "name must be"),
        ('"BATCH"', '"A/B"', "access_key must be"),
        ('"BATCH"', '"Ａ１２３"', "access_key must be"),
        (SECRET, SECRET[8:32], "secret_key must have"),
        (SECRET, SECRET + " ", "printable ASCII"),
        (f'"{SECRET}"', f'["{SECRET}"]', "secret_key must be a text"),
        ("[[key]]", "[key]", "two brackets"),
        ("[[key]]", "[[keys]]", "'keys' is unknown"),
        ("[[key]]", 'key = ["x"]\n[a]', "'a' is unknown"),
        (f'"{SECRET}"', f'"{SECRET}', "not valid TOML: there is an error at line 5"),
        (f'"{SECRET}"', SECRET, "not valid TOML"),
        ("[[key]]", f"[[key]]\n{'x = [' + '[' * 5000}", "not valid TOML"),
        (TABLE, "", "there is no key in it"),
        (TABLE, "key = []", "there is no key in it"),
    ],
)
def test_a_table_with_a_mistake_is_refused(file: Path, old: str, new: str, words: str) -> None:
    assert old in TABLE
    assert words in refusal(file, TABLE.replace(old, new))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('prefixes = "2024"', "a list of texts"),
        ("prefixes = [2024]", "a list of texts"),
        ("prefixes = []", "leave it out"),
        ("types = []", "leave it out"),
        ('types = [""]', "a list of texts"),
        *(
            (f'prefixes = ["{each}"]', "is not a path of the tree")
            for each in ("/", "/2024", "2024//09", "..", "2024/../x", "./2024", "2024//")
        ),
    ],
)
def test_a_limit_that_means_nothing_is_refused(file: Path, line: str, words: str) -> None:
    assert words in refusal(file, TABLE + line)


def test_two_keys_of_one_name_are_refused(file: Path) -> None:
    assert "two keys have the name batch" in refusal(file, TABLE + TABLE.replace("BATCH", "B2C"))
    assert "the access_key BATCH" in refusal(file, TABLE + TABLE.replace('"batch"', '"b2"'))


def test_a_file_that_others_can_read_is_refused(file: Path) -> None:
    file.write_text(TABLE)
    for mode in (0o640, 0o604, 0o602):
        file.chmod(mode)
        with pytest.raises(UsageError, match="chmod 600"):
            load_keys(file)
    file.chmod(0o600)
    link = file.with_name("link")
    link.symlink_to(file)
    with pytest.raises(UsageError, match="symbolic link"):
        load_keys(link)


def test_a_credential_of_systemd_may_be_read_by_its_group(file: Path) -> None:
    """systemd grants it to the user of the unit by an ACL, which shows as the group's right."""
    file.write_text(TABLE)
    file.chmod(0o440)
    assert len(load_keys(file, {"CREDENTIALS_DIRECTORY": str(file.parent)})) == 1
    with pytest.raises(UsageError):
        load_keys(file, {"CREDENTIALS_DIRECTORY": str(file.parent.parent)})
    file.chmod(0o444)
    with pytest.raises(UsageError):
        load_keys(file, {"CREDENTIALS_DIRECTORY": str(file.parent)})


def test_a_file_that_is_none_is_refused(file: Path) -> None:
    assert "too large" in refusal(file, TABLE + "#" * 70_000)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="not UTF-8"):
        load_keys(file)
    os.unlink(file)
    with pytest.raises(UsageError, match="does not exist"):
        load_keys(file)
