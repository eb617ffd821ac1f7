"""The option table and the merging of layers."""

import copy
import dataclasses
import pickle
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from phonofs.config import (
    OPTIONS,
    Kind,
    Layer,
    Secret,
    Settings,
    Source,
    SystemDefaults,
    check_profile,
    is_loopback,
    merge,
)
from phonofs.errors import UsageError
from phonofs.units import Rate

HERE = SystemDefaults("Europe/Berlin", 1000, 1001, Path("/home/me"), Path("/home/me/.cache"))


def settings(*layers: Layer) -> Settings:
    return merge(layers, "work", HERE)


def from_file(**values: object) -> Layer:
    return Layer(Source.FILE, values, "/etc/phonofs.toml, [work]")


def from_argument(**values: object) -> Layer:
    return Layer(Source.ARGUMENT, values)


def refusal(*layers: Layer) -> str:
    with pytest.raises(UsageError) as caught:
        settings(*layers)
    return str(caught.value)


def test_without_layers_the_defaults_of_the_contract_hold() -> None:
    got = settings()
    assert got.api_url == "https://api.8x8.com"
    assert (got.cache_size, got.cache_min_free) == (10 * 2**30, 2**30)
    assert (got.poll_interval, got.timeout, got.read_deadline) == (60.0, 30.0, 60.0)
    assert (got.page_size, got.max_connections, got.umask) == (100, 16, 0o222)
    assert (got.timezone, got.uid, got.gid) == ("Europe/Berlin", 1000, 1001)
    assert got.cache_dir == Path("/home/me/.cache/phonofs/work")
    assert got.archived is True
    assert got.secret is None
    assert got.since is None
    assert got.regions == ()


def test_every_option_is_a_field_and_every_field_an_option() -> None:
    fields = {field.name for field in dataclasses.fields(Settings)}
    assert fields == {option.name for option in OPTIONS} | {"profile"}


def test_the_later_layer_wins() -> None:
    environment = Layer(Source.ENVIRONMENT, {"cache_size": "2G", "page_size": "50"})
    got = settings(from_file(cache_size="1G", timeout=5), environment, from_argument(page_size="7"))
    assert (got.cache_size, got.timeout, got.page_size) == (2 * 2**30, 5.0, 7)


@pytest.mark.parametrize(
    ("name", "raw", "value"),
    [
        ("regions", ["uk", "us-east"], ("uk", "us-east")),
        ("regions", "uk:us-east:uk", ("uk", "us-east")),
        ("since", date(2024, 9, 17), date(2024, 9, 17)),
        ("since", "2024-09-17", date(2024, 9, 17)),
        ("cache_size", 0, 0),
        ("poll_interval", "0", 0.0),
        ("archived", "hide", False),
        ("views", "views", "views"),
        ("views", "", ""),
        ("texts", "off", False),
        ("crawlers", "", ()),
        ("crawlers", "tumblerd:python3.11", ("tumblerd", "python3.11")),
        ("journal", "/var/log/phonofs", Path("/var/log/phonofs")),
        ("journal_sync", "0", 0.0),
        ("journal_full", "allow", "allow"),
        ("allow_other", True, True),
        ("allow_other", "yes", True),
        ("umask", "0277", 0o277),
        ("cache_dir", "~/calls", Path("/home/me/calls")),
        ("cache_dir", "/var/cache/x", Path("/var/cache/x")),
        ("api_url", "http://127.0.0.1:8080/", "http://127.0.0.1:8080"),
        ("max_rate", "10/min", Rate(10, 60)),
        ("max_rate", "off", None),
        ("metrics", "off", None),
        ("metrics", "[::1]:9188", "[::1]:9188"),
        ("name_template", "{time}_{id8}", "{time}_{id8}"),
        ("log_level", "DEBUG", "debug"),
    ],
)
def test_a_value_is_read_as_its_kind(name: str, raw: object, value: Any) -> None:
    assert getattr(settings(from_file(**{name: raw})), name) == value


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        ("regions", "u k"),
        ("regions", [1]),
        ("since", "yesterday"),
        ("cache_size", "lots"),
        ("cache_size", True),
        ("cache_size", -1),
        ("poll_interval", "-1s"),
        ("timeout", "0"),
        ("page_size", 0),
        ("page_size", "1e2"),
        ("page_size", 10**30),
        ("archived", "maybe"),
        ("views", "2026"),
        ("views", "a/b"),
        ("views", ".."),
        ("views", 5),
        ("texts", "maybe"),
        ("allow_other", "perhaps"),
        ("umask", 222),
        ("umask", "0999"),
        ("cache_dir", "here"),
        ("cache_dir", ""),
        ("api_url", "http://api.example.com"),
        ("api_url", "ftp://api.example.com"),
        ("api_url", "https://api.example.com:port"),
        ("max_rate", "10"),
        ("max_rate", 10),
        ("metrics", "9188"),
        ("name_template", "{nam}"),
        ("name_template", "{time"),
        ("name_template", "{time}/{id8}"),
        ("name_template", "constant"),
        ("subtype", "a b"),
        ("timezone", "Mars/Base"),
        ("timezone", "../../etc/passwd"),
        ("key", "a\nb"),
    ],
)
def test_what_cannot_be_used_is_refused_where_it_stands(name: str, raw: object) -> None:
    assert refusal(from_file(**{name: raw})).startswith(f"/etc/phonofs.toml, [work]: {name}:")


def test_a_bad_value_that_a_later_layer_hides_is_refused_all_the_same() -> None:
    assert "PHONOFS_CACHE_SIZE" in refusal(
        Layer(Source.ENVIRONMENT, {"cache_size": "lots"}), from_argument(cache_size="1G")
    )


@pytest.mark.parametrize(
    ("layer", "place"),
    [
        (from_file(cahce_size="1G"), "/etc/phonofs.toml, [work]: cahce_size"),
        (Layer(Source.ENVIRONMENT, {"cahce_size": "1G"}), "the variable PHONOFS_CAHCE_SIZE"),
        (from_argument(cahce_size="1G"), "the option -o cahce_size"),
    ],
)
def test_an_unknown_name_says_where_it_stands_and_what_was_meant(layer: Layer, place: str) -> None:
    sentence = refusal(layer)
    assert sentence.startswith(place)
    assert sentence.endswith("did you mean 'cache_size'?")


def test_a_misspelt_zone_or_choice_gets_the_nearest_one() -> None:
    assert "'Europe/Berlin'" in refusal(from_file(timezone="Europe/Berln"))
    assert "'hide'" in refusal(from_file(archived="hid"))


def test_a_secret_on_the_command_line_is_refused_without_repeating_it() -> None:
    sentence = refusal(from_argument(secret="CANARY"))
    assert "CANARY" not in sentence
    assert "secret_file" in sentence


@pytest.mark.parametrize(
    "layer",
    [
        from_file(secret="CANARY\x07"),
        from_file(secret=["CANARY"]),
        from_file(api_url="https://user:CANARY@host"),
    ],
)
def test_a_refused_secret_is_not_repeated(layer: Layer) -> None:
    assert "CANARY" not in refusal(layer)


def test_a_secret_never_shows_itself() -> None:
    got = settings(from_file(secret="CANARY"))
    assert got.secret is not None
    assert got.secret.reveal() == "CANARY"
    for text in (repr(got), str(got.secret), repr(got.secret), f"{got.secret}"):
        assert "CANARY" not in text
    assert "CANARY" not in repr(from_file(secret="CANARY"))


def test_a_secret_is_not_pickled() -> None:
    with pytest.raises(TypeError):
        pickle.dumps(Secret("CANARY"))
    with pytest.raises(TypeError):
        copy.copy(Secret("CANARY"))


def test_equal_secrets_are_equal() -> None:
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert len({Secret("a"), Secret("a")}) == 1


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "-x", "a b", "x" * 65, "a\n"])
def test_a_profile_that_could_not_be_a_folder_is_refused(name: str) -> None:
    with pytest.raises(UsageError):
        check_profile(name)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("localhost", True),
        ("127.3.2.1", True),
        ("::1", True),
        ("[::1]", True),
        ("localhost.example.com", False),
        ("10.0.0.1", False),
    ],
)
def test_only_this_machine_is_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


def outcome(layer: Layer) -> str:
    """What is said of a layer; empty where it can be used. Only a UsageError may come out."""
    try:
        settings(layer)
    except UsageError as error:
        return str(error)
    return ""


@given(
    st.sampled_from([option.name for option in OPTIONS]),
    st.one_of(st.text(), st.integers(), st.booleans(), st.floats(), st.lists(st.text()), st.none()),
)
@example("log_file", ".")
def test_any_raw_value_is_read_or_refused_in_a_sentence(name: str, raw: object) -> None:
    assert "\n" not in outcome(from_file(**{name: raw}))


@given(st.text(), st.text())
def test_any_argument_is_refused_in_a_sentence(name: str, raw: str) -> None:
    assert "\n" not in outcome(from_argument(**{name: raw}))


def test_only_the_secret_is_a_secret() -> None:
    assert [option.name for option in OPTIONS if option.secret] == ["secret"]
    assert all(option.choices for option in OPTIONS if option.kind is Kind.CHOICE)
