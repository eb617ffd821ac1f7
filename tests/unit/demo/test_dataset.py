"""The made-up account: what is in it, and that its recordings play."""

import hashlib
import json
import shutil
import subprocess
from collections import Counter, defaultdict
from datetime import date, timedelta

import pytest

from phonofs.demo.dataset import demo_account
from phonofs.demo.media import mp3, mp4, wav, whole_frames_ms
from phonofs.demo.sample_data import AWKWARD
from phonofs.fakeservice.fiql import matches, parse

TODAY = date(2026, 3, 15)
TYPES = {
    "callrecording", "callcenterrecording", "screenrecording", "meeting", "voicemail",
    "callcentervoicemail", "voicecommentrecording", "transcription", "agentnotes",
    "postcallsurvey", "sentimentScore", "summary", "calladditionalfields", "chattranscription",
    "cm-report", "meetings_transcriptions", "statehistory", "tcltransactions", "waveform",
}  # fmt: skip


@pytest.fixture(scope="module")
def account():
    return demo_account(TODAY)


def test_it_is_the_same_every_time(account):
    """Seed and day decide everything, checksums included."""
    again = demo_account(TODAY)
    assert [item.record() for item in account] == [item.record() for item in again]
    assert [item.id for item in demo_account(TODAY, seed=9)] != [item.id for item in account]


@pytest.mark.parametrize("today", [TODAY + timedelta(days=ago) for ago in (0, 1, 100, 1000, 3000)])
def test_every_day_gives_three_to_four_hundred_objects_of_every_type(today):
    """About 60 days up to today, every type of the service and one unknown."""
    items = list(demo_account(today))
    assert 300 <= len(items) <= 400
    assert {item.type for item in items} == TYPES | {"chatlog"}
    days = {date(1970, 1, 1) + timedelta(days=item.created_ms // 86_400_000) for item in items}
    assert max(days) <= today
    assert timedelta(days=55) <= today - min(days) < timedelta(days=61)


def test_ids_and_bytes_are_of_one_object_alone(account):
    """No two objects share an id, and no two of different calls share their bytes."""
    items = list(account)
    assert len({item.id for item in items}) == len(items)
    calls = defaultdict(set)
    for item in items:
        calls[item.content.md5].add(item.tags["callId"])
    assert all(len(ids) == 1 for ids in calls.values())


def test_what_belongs_to_a_call_shares_its_id(account):
    """A contact centre call has a recording, transcript, notes, survey, sentiment and summary."""
    kinds = defaultdict(set)
    for item in account:
        kinds[item.tags["callId"]].add(item.type)
    wanted = {"callcenterrecording", "transcription", "agentnotes", "postcallsurvey",
              "sentimentScore", "summary", "voicecommentrecording"}  # fmt: skip
    assert any(wanted <= found for found in kinds.values())


def test_transcripts_can_be_searched_for_what_was_said(account):
    """Some transcript speaks of an invoice, in clear text."""
    spoken = [i.content.read(0, 9999).decode() for i in account if i.type == "transcription"]
    assert any("invoice" in each for each in spoken)
    assert all(json.loads(each)["language"] == "en-US" for each in spoken)


def test_the_documents_example_of_a_filter_finds_transcripts(account):
    """Of the channels of a Work call, by a tag."""
    wanted = parse("type==transcription;sourceObjectType==callrecordingchannel")
    found = [item for item in account if matches(wanted, item.fields)]
    assert found
    assert {item.tags["speaker"] for item in found} == {"owner", "external"}


def test_tags_that_public_clients_know_are_there(account):
    """Each on some object."""
    known = {tag for item in account for tag in item.tags}
    assert known >= {
        "pbxname", "relativePath", "sessionId", "meetingUrl", "callSnippetId", "originalCallId",
        "billingTelephoneNumber", "pcsQuestionNumber", "media-processed",
    }  # fmt: skip


def test_states_and_awkward_names_are_there(account):
    """Several archived objects, each state that is not listed, every awkward name."""
    states = Counter(item.state for item in account)
    assert states["ARCHIVED"] >= 5
    assert {"PENDING", "REVOKED", "DELETED", "FAILED", "QUARANTINED"} <= set(states)
    names = {item.tags.get("callerName") for item in account}
    assert set(AWKWARD) <= names


def test_a_day_has_objects_at_both_its_edges(account):
    """The first and the last second of a day, and those beside them."""
    seconds = Counter(item.created_ms % 86_400_000 for item in account)
    assert {0, 1000, 86_399_000} <= set(seconds)


def test_regions_share_the_calls():
    """Two regions hold something each, and a call lies in one of them."""
    regions = defaultdict(set)
    for item in demo_account(TODAY, regions=("us-east", "uk")):
        regions[item.tags["callId"]].add(item.region)
    assert {region for each in regions.values() for region in each} == {"us-east", "uk"}
    assert all(len(each) == 1 for each in regions.values())


def test_nothing_is_there_before_it_was_made():
    """``until_ms`` leaves out what is still to come today."""
    until_ms = max(item.created_ms for item in demo_account(TODAY)) - 1
    assert all(item.created_ms <= until_ms for item in demo_account(TODAY, until_ms=until_ms))


def test_sizes_and_checksums_are_those_of_the_bytes(account):
    """``storedBytes`` and MD5 (or the multipart sum) hold for every object."""
    for item in account:
        body = item.content.read(0, item.content.size + 1)
        record = item.record()
        assert len(body) == record["storedBytes"]
        plain = hashlib.md5(body)
        multipart = hashlib.md5(plain.digest()).hexdigest() + "-1"
        assert record["checksum"] in (plain.hexdigest(), multipart)


def test_records_have_the_fields_of_the_vendors_examples(account):
    """The same fields in the same order, tags as a list of key and value, times without zone."""
    fields = [
        *("id", "type", "mimeType", "objectName", "checksumType", "checksum", "customerId"),
        *("userId", "storedBytes", "createdTime", "updatedTime", "objectState", "bucketId"),
        *("tags", "shared"),
    ]
    for item in account:
        record = item.record()
        assert list(record) == fields
        assert all(set(tag) == {"key", "value"} for tag in record["tags"])
        assert len(record["createdTime"]) == len("2022-11-01T21:22:22")


MEDIA = {
    "a.mp3": (mp3("int-1 é", "A", whole_frames_ms(183_000), stereo=False), 182_988),
    "b.mp3": (mp3("x", "Bé", whole_frames_ms(1), stereo=True), 360),
    "c.wav": (wav("hello", 7_777), 7_777),
    "d.mp4": (mp4("id", 61), 61_000),
    "e.mp4": (mp4("id", 1), 1_000),
}


@pytest.mark.skipif(not shutil.which("ffprobe"), reason="ffmpeg is not installed")
@pytest.mark.parametrize("name", MEDIA)
def test_recordings_play_and_last_as_long_as_they_say(name, tmp_path):
    """ffprobe gives the duration to the millisecond, ffmpeg decodes without a complaint."""
    content, duration_ms = MEDIA[name]
    path = tmp_path / name
    path.write_bytes(content.read(0, content.size))
    shown = subprocess.run(
        ["ffprobe", "-v", "error", "-show_entries", "format=duration", "-of", "csv=p=0", path],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert round(float(shown.stdout) * 1000) == duration_ms
    decoded = subprocess.run(
        ["ffmpeg", "-v", "error", "-xerror", "-i", path, "-f", "null", "-"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert (decoded.returncode, decoded.stderr) == (0, "")


def test_another_customer_has_the_same_calls():
    """Every record of an account names its customer."""
    [customer] = {item.record()["customerId"] for item in demo_account(TODAY, customer_id="other")}
    assert customer == "other"
