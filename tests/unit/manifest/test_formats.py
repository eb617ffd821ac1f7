"""Manifests are read by other programs, and cannot be made to drive them."""

import csv
import io
import json
import re
import unicodedata
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phonofs.manifest.cells import cell
from phonofs.manifest.columns import COLUMNS, Listed
from phonofs.manifest.formats import FORMS
from phonofs.model import Record
from phonofs.service.records import parse_record
from tests.support.catalogue_world import make, ms

NOON = "2024-09-17T12:00:00"
FOLDER = "/m/2024/2024-09/2024-09-17"


def listed(record: Record, name: str = "x.mp3", zone: str = "Europe/London") -> Listed:
    return Listed(f"{FOLDER}/{name}", record, ZoneInfo(zone), "work")


def written(form: str, *records: Record) -> str:
    made = FORMS[form]()
    return made.head() + "".join(made.line(listed(each)) for each in records) + made.tail()


def rows(*records: Record) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(written("csv", *records), newline="")))


def test_csv_has_a_column_for_each_field():
    [row] = rows(
        make(
            "9984564e", NOON, size=722144, checksum="0" * 32,
            agentName="Alex Wilber", agentId="a7", queueName="Level 3", direction="OUTBOUND",
            callerId="+12025550100", calleeId="16695555518", calleeName='Priya "P" Raman, Dr.',
            callId="77", duration="65000", startTime=str(ms("2024-09-17T09:30:12")),
        )
    )  # fmt: skip
    assert [*row] == [name for name, _ in COLUMNS]
    assert {name: text for name, text in row.items() if text} == {
        "name": "x.mp3",
        "path": f"{FOLDER}/x.mp3",
        "id": "9984564e",
        "region": "us-east",
        "type": "callrecording",
        "state": "AVAILABLE",
        "created": "2024-09-17T13:00:00+01:00",
        "updated": "2024-09-17T13:00:00+01:00",
        "start": "2024-09-17T10:30:12+01:00",
        "end": "2024-09-17T10:31:17+01:00",
        "duration_s": "65",
        "direction": "outbound",
        "agent": "Alex Wilber",
        "agent_id": "a7",
        "queue": "Level 3",
        "caller": "+12025550100",
        "callee": "16695555518",
        "callee_name": 'Priya "P" Raman, Dr.',
        "party": "16695555518",
        "call_id": "77",
        "bytes": "722144",
        "mime_type": "audio/mpeg",
        "checksum": "0" * 32,
        "object_name": "9984564e.mp3",
        "fingerprint": "0" * 32,
        "url": "phonofs://work/.id/us-east/9984564e.mp3",
    }


@pytest.mark.promise("manifest-harmless")
@pytest.mark.parametrize(
    "name",
    [
        '=HYPERLINK("http://evil.example/","click")',
        "=cmd|' /C calc'!A0",
        "@SUM(1+1)*cmd|' /C calc'!A0",
        "+1+cmd|' /C calc'!A0",
        "-2+3+cmd|' /C calc'!A0",
        " =1+1",
        "\t=1+1",
        "\r\n=1+1",
        "\u200b=1+1",
        "\ufeff=1+1",
        "＝1+1",
        "\ufe66cmd",
        "\ufe6bSUM(1)",
        "\u2212cmd",
        "\ufe63cmd",
        "x;=1+1",
        'x;"=1+1"',
        "x;\t+A1",
        "x\n=1+1",
    ],
)
def test_a_spreadsheet_cannot_be_made_to_run_a_callers_name(name):
    """Whether it splits at commas, as the file says, or at semicolons, as some countries do."""
    text = written("csv", make("a", NOON, callerName=name, agentName=name, queueName=name))
    [row] = csv.DictReader(io.StringIO(text, newline=""))
    cells = [*row.values()]
    for line in text.splitlines():
        cells += line.split(";")
    for each in cells:
        begin = each.lstrip(' \t"').replace("\u200b", "")[:2]
        assert begin[:1] not in ("=", "@", "＝", "\ufe66", "\ufe6b"), each
        assert begin[:1] not in ("+", "-", "\u2212", "\ufe63") or begin[1:].isdigit(), each
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", text.replace("\r\n", ""))


@pytest.mark.parametrize("number", ["+12025550148", "-5", "+4420", "3.14"])
def test_a_number_stays_a_number(number):
    assert cell(number) == number


@given(st.text())
def test_every_text_is_a_harmless_cell_and_an_ordinary_one_stays(text):
    assert not cell(text).lstrip(' "').startswith(("=", "@", "＝", "＠"))
    assert cell(cell(text)) == cell(text)
    if text.isalnum() and text.isascii():
        assert cell(text) == text


def test_json_lines_are_the_records_as_they_came_with_their_paths():
    source = (
        '{"id": "a",\r\n "storedBytes": "7", "createdTime": 1726574400000,\n"x": "\x9b1m\x7f",'
        '"gpj.exe": "\u202e\u200bé\ufeff\u2066"\n}'
    )
    record = parse_record(source.encode(), "us-east")
    text = written("jsonl", record, make("b", NOON))
    first, second = text.splitlines()
    assert json.loads(first) == json.loads(source) | {"path": f"{FOLDER}/x.mp3"}
    assert json.loads(second)["id"] == "b"
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f]", text)
    assert not any(unicodedata.category(each) in ("Cf", "Zl", "Zp") for each in text)


def test_sums_are_of_plain_md5_and_of_the_others_it_is_said():
    records = [make("a", NOON, checksum="0" * 32), make("b", NOON, checksum="1" * 32 + "-2")]
    assert written("md5", *records, make("c", NOON)).splitlines() == [
        f"{'0' * 32}  {FOLDER}/x.mp3",
        "# 1 object has a checksum in parts, which md5sum cannot check",
        "# 1 object has no checksum",
    ]
    odd = Listed("/a\\b\nc", records[0], ZoneInfo("UTC"), "")
    assert FORMS["md5"]().line(odd) == f"\\{'0' * 32}  /a\\\\b\\nc\n"


def test_a_playlist_has_what_can_be_played_now():
    call = make("a", NOON, duration="65400", agentName="Alex\n#EXTM3U", address="+120255501")
    text = written("m3u8", call, make("b", NOON, state="ARCHIVED"))
    assert text.splitlines() == [
        "#EXTM3U",
        "#EXTINF:65,Alex #EXTM3U - +120255501",
        f"{FOLDER}/x.mp3",
    ]


def test_a_playlist_names_a_mount_point_that_is_not_utf_8():
    played = Listed("/m\udcff/a.mp3", make("a", NOON), ZoneInfo("UTC"), "")
    assert FORMS["m3u8"]().line(played).endswith("\nfile:///m%FF/a.mp3\n")
