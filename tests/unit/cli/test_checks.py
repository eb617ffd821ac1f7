"""What doctor looks at, each finding with its remedy; login; the account made for commands."""

import io
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import trio

from phonofs.cli import checks, doctor, login, run
from phonofs.cli.account import ask
from phonofs.cli.checks import Finding, check_service, check_settings
from phonofs.config import Layer, Secret, Settings, Source, SystemDefaults, merge
from phonofs.credentials import Credentials
from phonofs.errors import UsageError
from phonofs.fakeservice.account import Account, flat_item
from phonofs.fakeservice.options import Options
from tests.support.mounts import StandIn

NOON_MS = int(datetime(2026, 3, 1, 12, tzinfo=UTC).timestamp() * 1000)
GOOD = Credentials("demo-key", Secret("demo-secret"))


def make_settings(folder: Path, **values: object) -> Settings:
    here = SystemDefaults("UTC", 0, 0, folder, folder / "caches")
    return merge([Layer(Source.FILE, values)], "work", here)


def account() -> Account:
    items = [flat_item(f"object-{n}", 1000, NOON_MS + n) for n in range(3)]
    return Account(items, (items[0].region,))


@pytest.fixture
def stand_in(request: pytest.FixtureRequest) -> Iterator[StandIn]:
    serving = StandIn(account(), Options(**getattr(request, "param", {})))
    serving.start()
    yield serving
    serving.stop()


def look(settings: Settings, credentials: Credentials = GOOD) -> dict[str, Finding]:
    found: list[Finding] = []

    async def work(account: Any) -> None:
        found.extend([finding async for finding in check_service(settings, account)])

    ask(settings, credentials, work)
    return {finding.name: finding for finding in found}


def test_a_healthy_account_has_nothing_to_mend(stand_in: StandIn, tmp_path: Path) -> None:
    found = look(make_settings(tmp_path, api_url=stand_in.url))
    assert [finding.error for finding in found.values()] == [None] * len(found)
    region = next(name for name in found if name.startswith("region "))
    assert found[region].text == "3 objects, content by ranges"


@pytest.mark.parametrize("stand_in", [{"total": "pages"}, {"total": "records"}], indirect=True)
def test_objects_are_counted_whatever_total_counts(stand_in: StandIn, tmp_path: Path) -> None:
    """The documents say that it counts pages."""
    for number in range(3, 45):
        stand_in.service.account.put(flat_item(f"object-{number}", 1000, NOON_MS + number))
    found = look(make_settings(tmp_path, api_url=stand_in.url))
    assert found["region us-east"].text == "45 objects, content by ranges"


@pytest.mark.parametrize("number", [1, 150])
@pytest.mark.parametrize(("archived", "more"), [("show", 1), ("hide", 0)])
def test_what_is_counted_is_what_a_mount_shows(
    stand_in: StandIn, tmp_path: Path, number: int, archived: str, more: int
) -> None:
    """Archived objects too, unless they are hidden; and of the types to show."""
    account = stand_in.service.account
    for each in range(number):
        account.put(flat_item(f"mail-{each}", 1000, NOON_MS + each, type="voicemail"))
    account.put(flat_item("cold", 1000, NOON_MS, type="voicemail", state="ARCHIVED"))
    settings = make_settings(tmp_path, api_url=stand_in.url, types=["voicemail"], archived=archived)
    found = look(settings)["region us-east"].text
    count = number + more
    assert found == f"{count} object{'' if count == 1 else 's'}, content by ranges"


@pytest.mark.parametrize("stand_in", [{"content": "presign"}, {"content": "stream"}], indirect=True)
def test_the_way_of_content_is_told(stand_in: StandIn, tmp_path: Path) -> None:
    found = look(make_settings(tmp_path, api_url=stand_in.url))
    way = stand_in.service.options.content
    assert any(checks.METHODS[way] in finding.text for finding in found.values())


@pytest.mark.expected_log("no token")
def test_a_wrong_secret_is_told_from_the_rest(stand_in: StandIn, tmp_path: Path) -> None:
    found = look(
        make_settings(tmp_path, api_url=stand_in.url), Credentials("demo-key", Secret("CANARY"))
    )
    error = found["token"].error
    assert error is not None
    assert error.exit_status == 2
    assert "CANARY" not in found["token"].text


@pytest.mark.expected_log("no token")
@pytest.mark.parametrize("stand_in", [{"products": "meetings"}], indirect=True)
def test_a_key_without_the_storage_product_is_told(stand_in: StandIn, tmp_path: Path) -> None:
    found = look(make_settings(tmp_path, api_url=stand_in.url))
    assert "Call Recordings & Storage" in found["token"].text


def test_a_service_that_is_not_there_is_one_finding(tmp_path: Path) -> None:
    found = look(make_settings(tmp_path, api_url="http://127.0.0.1:1"))
    error = found["service"].error
    assert error is not None
    assert error.exit_status == 3


class FakeTransport:
    """Answers anything with one Date header."""

    def __init__(self, text: str) -> None:
        self.headers = {"date": text} if text else {}

    async def request(self, *_: object, **__: object) -> tuple["FakeTransport", bytes]:
        return self, b""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Thu, 01 Jan 1970 00:10:00 GMT", "agrees"),
        ("Thu, 01 Jan 1970 01:10:00 GMT", "1 h 00 min behind"),
        ("Thu, 01 Jan 1970 00:00:00 GMT", "10 min 00 s ahead"),
        ("", "does not say"),
        ("yesterday", "does not say"),
    ],
)
def test_a_clock_that_is_off_is_told(
    text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks.time, "time", lambda: 600.0)
    account: Any = type("Account", (), {"transport": FakeTransport(text)})
    settings = make_settings(tmp_path)
    try:
        answer = trio.run(checks._clock, settings, account)
    except UsageError as error:
        answer = str(error)
    assert said in answer


def folder_finding(settings: Settings) -> Finding:
    return next(each for each in check_settings(settings) if each.name == "cache folder")


def test_a_cache_folder_that_is_yet_to_be_made_is_well(tmp_path: Path) -> None:
    assert folder_finding(make_settings(tmp_path)).error is None


def test_a_cache_folder_that_others_can_see_gets_the_chmod(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, cache_dir=str(tmp_path / "c"))
    settings.cache_dir.mkdir(mode=0o755)
    assert f"chmod 700 {settings.cache_dir}" in folder_finding(settings).text


def test_a_file_or_link_in_place_of_the_cache_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "c").symlink_to(tmp_path)
    settings = make_settings(tmp_path, cache_dir=str(tmp_path / "c"))
    assert "is not a folder" in folder_finding(settings).text


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    settings = replace(make_settings(tmp_path), cache_min_free=2**62)
    assert "less than cache_min_free" in folder_finding(settings).text


def test_doctor_ends_with_the_status_of_the_first_thing_amiss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setattr(doctor, "check_machine", lambda: iter([Finding("FUSE", "is there")]))
    monkeypatch.setenv("PHONOFS_CAHCE_SIZE", "1")
    assert run(doctor.command, "phonofs doctor", []) == 1
    out = capsys.readouterr().out
    assert "ok    FUSE" in out
    assert "FAIL  settings" in out
    assert "'cache_size'" in out


def test_doctor_finds_nothing_amiss_where_all_is_well(
    stand_in: StandIn,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in {
        "XDG_CONFIG_HOME": str(tmp_path),
        "PHONOFS_API_URL": stand_in.url,
        "PHONOFS_KEY": "demo-key",
        "PHONOFS_SECRET": "demo-secret",
        "PHONOFS_CACHE_DIR": str(tmp_path / "cache"),
        "PHONOFS_CACHE_MIN_FREE": "0",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(doctor, "check_machine", lambda: iter([]))
    assert run(doctor.command, "phonofs doctor", []) == 0
    assert "FAIL" not in capsys.readouterr().out


def log_in(
    text: str, stand_in: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[int, Path]:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("PHONOFS_API_URL", stand_in.url)
    monkeypatch.setattr("phonofs.credentials.keyring", None)
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    return run(login.command, "phonofs login", ["work"]), tmp_path / "phonofs/credentials/work"


def test_login_keeps_what_works_where_only_the_owner_can_read(
    stand_in: StandIn,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    status, path = log_in("demo-key\ndemo-secret\n", stand_in, tmp_path, monkeypatch)
    assert status == 0
    assert path.read_text() == "demo-key\ndemo-secret\n"
    assert path.stat().st_mode & 0o777 == 0o600
    assert "demo-secret" not in capsys.readouterr().out


@pytest.mark.expected_log("no token")
@pytest.mark.parametrize(("text", "wanted"), [("demo-key\nwrong\n", 2), ("demo-key\n", 1)])
def test_login_keeps_nothing_that_does_not_work(
    text: str, wanted: int, stand_in: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, path = log_in(text, stand_in, tmp_path, monkeypatch)
    assert status == wanted
    assert not path.exists()


def differing(*types: str) -> Account:
    """An account whose contents of these types do not match the checksums of their records."""
    kinds = ("callrecording", "voicemail", "transcription")
    items = [
        flat_item(
            f"object-{n}",
            1000 + n,
            NOON_MS + n,
            type=kind,
            checksum="0" * 32 if kind in types else None,
        )
        for n, kind in enumerate(kinds * 2)
    ]
    return Account(items, (items[0].region,))


@pytest.mark.parametrize(
    ("types", "verify", "well", "said"),
    [
        ((), "checksum", True, "callrecording, transcription, voicemail: verify=checksum fits"),
        ((), "length", True, "verify=checksum would fit"),
        (("voicemail",), "checksum", False, "contents of voicemail do not match the checksums"),
        (("voicemail",), "length", True, "voicemail do not match: verify=length fits"),
    ],
)
def test_doctor_says_which_setting_of_verify_fits(
    tmp_path: Path, types: tuple[str, ...], verify: str, well: bool, said: str
) -> None:
    serving = StandIn(differing(*types))
    serving.start()
    try:
        found = look(make_settings(tmp_path, api_url=serving.url, verify=verify))
        assert said in found["checksums"].text
        assert (found["checksums"].error is None) is well
        assert well or "verify=length" in found["checksums"].text
        asked = serving.service.counters.requests["content"]
        assert asked <= 1 + 3 + len(types), "one small content of each type"
    finally:
        serving.stop()


@pytest.mark.expected_log("by way of presign failed")
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"fail": "status", "status": 403}, "a fresh link is answered with status 403"),
        ({"fail": "reset"}, "the connection to 127.0.0.1 broke"),
    ],
)
def test_doctor_says_which_way_of_content_failed(
    tmp_path: Path, fault: dict[str, object], words: str
) -> None:
    """Tried as a reader tries: the second link that cannot be reached is one too many."""
    serving = StandIn(account(), Options(content="presign"))
    serving.start()
    serving.faults({"kind": "store"} | fault)
    try:
        found = look(make_settings(tmp_path, api_url=serving.url))
        region = next(name for name in found if name.startswith("region "))
        assert found[region].error is None
        assert "whole streams" in found[region].text
        assert f"presigned URLs failed: {words}" in found[region].text
    finally:
        serving.stop()
