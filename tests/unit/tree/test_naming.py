"""The names of files: what the design promises, and what an attacker tries."""

import sys
import time
import unicodedata
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from phonofs.config import DEFAULT_TEMPLATE, TEMPLATE_FIELDS
from phonofs.errors import UsageError
from phonofs.model import Record
from phonofs.tree.extensions import extension
from phonofs.tree.naming import FIELDS, Template, file_name
from phonofs.tree.sanitize import clean, cut
from tests.support.timing import timely

SAMPLE = Record(
    id="9984564e-557c-42bf-9b7c-40c7b909d489",
    region="us-west",
    type="callrecording",
    mime_type="audio/mpeg",
    object_name="ipbx:acmecorp:callrecording:users:117209:1667337742543-1-+16695555518_E.mp3",
    size=28224,
    created_ms=1667337742000,
    updated_ms=1667337752000,
    state="AVAILABLE",
    checksum="c03f27f4b1ca0aefea989f1c1b432d9e",
    tags={
        "address": "+16695555518",
        "userName": "Alex Wilber",
        "direction": "OUTBOUND",
        "startTime": "1667337742543",
    },
    source=b"{}",
)

TEXT = st.text(max_size=40) | st.text(
    st.sampled_from('aA-_. /\\\0\n\x1b\u202e\u200b\udcffé\u0301\U0001f600:*?"<>|+'), max_size=12
)
LONG = st.text(max_size=400)
TAGS = st.dictionaries(
    st.sampled_from(
        ["direction", "startTime", "agentName", "userName", "callerId", "callerName", "calleeId"]
    )
    | st.sampled_from(["calleeName", "address", "queueName"]),
    TEXT | LONG | st.sampled_from(["INBOUND", "OUTBOUND", "1667337742543", "", "  "]),
)
TEMPLATES = st.sampled_from(
    [DEFAULT_TEMPLATE, "{id8}", "-{name}.{party}={id}", "{name}{party}{id8} x", ".{id8}{type}"]
)


def record(**changes) -> Record:
    values = {name: getattr(SAMPLE, name) for name in SAMPLE.__struct_fields__}
    return Record(**(values | changes))


RECORDS = st.builds(
    record,
    id=st.uuids().map(str) | TEXT | LONG,
    type=TEXT,
    mime_type=TEXT | st.sampled_from(["audio/mpeg", "text/plain"]),
    object_name=TEXT | LONG,
    tags=TAGS,
    created_ms=st.integers(0, 253_000_000_000_000),
)


def named(template: str = DEFAULT_TEMPLATE, zone=UTC, **changes) -> str:
    return file_name(record(**changes), template, zone)


def tagged(**tags) -> str:
    return named("{name}_{party}_{id8}", tags=tags)


def test_the_published_example_comes_out_as_the_design_says():
    """The vendor's first sample record has the name the documentation shows."""
    expected = "212222_callrecording_outbound_Alex-Wilber_+16695555518_9984564e.mp3"
    assert named() == expected


def test_time_is_that_of_the_call_in_the_zone():
    """The tag startTime counts where plausible, else createdTime; both in the zone given."""
    assert named("{time}_{id8}", ZoneInfo("Asia/Kolkata")).startswith("025222_")
    for odd in ("", "soon", "-5", "9" * 15, "9" * 400, "12", "¹²³"):
        assert named("{time}_{id8}", tags={"startTime": odd}).startswith("212222_")


@pytest.mark.parametrize(
    ("tags", "party"),
    [
        ({"direction": "INBOUND", "callerId": "123", "callerName": "Bob", "calleeId": "9"}, "123"),
        ({"direction": "INBOUND", "callerId": " ", "callerName": "Bob", "address": "DEF"}, "Bob"),
        ({"direction": "INBOUND", "callerName": "Bob", "address": "+1 (669) 5"}, "+1-(669)-5"),
        ({"direction": "OUTBOUND", "calleeId": "456", "callerId": "9"}, "456"),
        ({"direction": "outbound ", "calleeName": "Eve"}, "Eve"),
        ({"callerId": "9", "address": "Cell Phone   CA"}, "Cell-Phone-CA"),
        ({"direction": "SIDEWAYS", "address": "x"}, "x"),
    ],
)
def test_party_is_the_other_side(tags, party):
    """Inbound the caller, outbound the callee, else the address; a number before a name."""
    assert tagged(**tags) == f"{party}_9984564e.mp3"


def test_name_is_the_agent_or_the_user():
    """agentName goes before userName; blanks do not count."""
    assert tagged(agentName="A", userName="U") == "A_9984564e.mp3"
    assert tagged(agentName="  ", userName="U") == "U_9984564e.mp3"


def test_an_empty_field_goes_with_its_separator():
    """No two separators side by side, none at the edge."""
    assert named(tags={}) == "212222_callrecording_9984564e.mp3"
    assert named("{name}_{direction}--{id8}", tags={}) == "9984564e.mp3"
    assert named("{id8}_{name}", tags={}) == "9984564e.mp3"
    assert named("x{name}~{id8}!", tags={}) == "x9984564e!.mp3"


@pytest.mark.parametrize(
    ("mime", "name", "expected"),
    [
        ("audio/mpeg", "a.mp3", "mp3"),
        ("audio/mpeg", "a.MP3", "mp3"),
        ("audio/mpeg", "a.exe", "mp3"),
        ("audio/mpeg; charset=x", "a", "mp3"),
        ("text/plain", "int-1.agentnotes", "txt"),
        ("text/plain", "a.log", "log"),
        ("application/json", "postcallsurvey", "json"),
        ("AUDIO/WAV", "q1.wav", "wav"),
        ("", "a.opus", "opus"),
        ("application/x-new", "v1.2", "bin"),
        ("application/octet-stream", "a.DaT", "dat"),
        ("", "a.b/c", "bin"),
        ("", "a.muchtoolong", "bin"),
        ("", "", "bin"),
    ],
)
def test_extension_is_unambiguous(mime, name, expected):
    """That of the object's name where plausible for the type, else that of the type."""
    assert extension(mime, name) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("../../etc/passwd", "etc-passwd"),
        ("..", ""),
        ("-rf", "rf"),
        ("a\x1b[31mb", "a[31mb"),
        ("a\r\nb", "a-b"),
        ("evil\u202e3pm.exe", "evil3pm.exe"),
        ("a\u200bb\ufeffc\u2060", "abc"),
        ("a\udcffb", "ab"),
        ("e\u0301", "é"),
        ("K", "K"),
        ('a<b>c:d"e|f?g*h\\i', "a-b-c-d-e-f-g-h-i"),
        ("  Cell Phone   CA ", "Cell-Phone-CA"),
        ("M,DENNIS", "M,DENNIS"),
        ("\u2028x\u00a0y\u3000", "x-y"),
        ("a\U000e0041\ufe0f\uffff", "a"),
        ("+1669", "+1669"),
    ],
)
def test_what_others_wrote_is_made_harmless(text, expected):
    """Separators, control, bidi, invisible and reserved characters never reach a name."""
    assert clean(text) == expected


@given(TEXT | LONG)
@example("a\u0301" * 100)
def test_cleaning_twice_changes_nothing(text):
    once = clean(text)
    assert clean(once) == once


@given(TEXT, st.integers(0, 60))
def test_a_cut_ends_at_a_code_point(text, size):
    text = clean(text)
    short = cut(text, size)
    assert text.startswith(short)
    assert len(short.encode()) <= size


@pytest.mark.promise("names-harmless")
@given(RECORDS, TEMPLATES, st.sampled_from(["UTC", "Asia/Kolkata"]), st.integers(0, 3))
def test_every_record_has_a_good_name(made, template, zone, variant):
    """Total: 1 to 255 bytes of NFC, no separator, nothing unseen, no bad edge, an extension."""
    name = file_name(made, template, ZoneInfo(zone), variant)
    assert 0 < len(name.encode()) <= 255
    assert name == unicodedata.normalize("NFC", name)
    assert not set(name) & set('/\\<>:"|?* \0')
    assert not {unicodedata.category(c) for c in name} & {"Cc", "Cf", "Cs", "Zs", "Zl", "Zp"}
    assert name[0] not in "-. "
    assert name[-1] not in "-. "
    assert "." in name[1:]
    assert name == file_name(made, template, ZoneInfo(zone), variant)


@given(st.lists(RECORDS, min_size=2, max_size=6, unique_by=lambda r: r.id), TEMPLATES)
def test_different_objects_never_share_the_last_variant(records, template):
    """Injective with the id, whatever else two records have in common."""
    names = {file_name(made, template, UTC, 2).casefold() for made in records}
    assert len(names) == len(records)


@given(RECORDS, st.uuids(), st.uuids())
def test_the_id_survives_any_length(made, first, second):
    """Long fields are cut, the id and the extension are not; case and form do not collide."""
    pair = [record(id=str(i), tags=made.tags, type=made.type) for i in (first, second)]
    names = [file_name(one, DEFAULT_TEMPLATE, UTC, 1) for one in pair]
    assert all(name.endswith(f"{one.id}.mp3") for name, one in zip(names, pair, strict=True))
    assert (names[0].casefold() == names[1].casefold()) == (first == second)


def test_windows_devices_are_not_names():
    """A name Windows takes for a device gets a mark in front."""
    assert named("{name}.{id8}", tags={"userName": "CON"}).startswith("_CON.")
    assert named("{name}.{id8}", tags={"userName": "Lpt1"}).startswith("_Lpt1.")
    assert named("{name}.{id8}", tags={"userName": "contact"}).startswith("contact.")


@pytest.mark.parametrize(
    ("template", "hint"),
    [
        ("{tiem}_{id8}", "{time}"),
        ("{zzzz}_{id8}", "party"),
        ("{name}", "{id8} or {id}"),
        ("{id8", "not understood"),
        ("{id8!r}", "there is no field"),
        ("{}", "there is no field"),
        ("a/{id8}", "'/'"),
        ("x" * 200 + "{id8}", "too long"),
        ("{id}{id}{id}{id}", "too long"),
    ],
)
def test_a_bad_template_is_refused_with_the_remedy(template, hint):
    """An unknown field suggests the nearest; the id and room for it are demanded."""
    with pytest.raises(UsageError, match="name_template") as caught:
        Template.parse(template)
    assert hint in str(caught.value)


def test_every_field_may_be_named():
    """Each field that the option accepts, and no other."""
    assert set(FIELDS) == set(TEMPLATE_FIELDS)
    for field in FIELDS:
        assert Template.parse(f"{{{field}}}_{{id8}}")
    assert named("{{{id8}}}") == "{9984564e}.mp3"


SOME_ZONES = ["UTC", "Europe/London", "Asia/Kolkata", "Asia/Kathmandu", "Australia/Lord_Howe",
              "America/St_Johns", "Africa/Monrovia", "Pacific/Apia", "Europe/Dublin"]  # fmt: skip


@given(st.sampled_from(SOME_ZONES), st.integers(86_400, 4_102_444_800))
@example("Africa/Monrovia", 63_593_069)  # half a minute before the clock is set, within an hour
@example("Africa/Monrovia", 63_593_070)
@example("Australia/Lord_Howe", 1_728_142_200)  # put forward by half an hour
@example("Pacific/Apia", 1_325_239_200)  # a whole day left out
def test_the_time_is_that_of_a_clock_on_the_wall(zone, second):
    """In every zone, also in the hour in which the clocks are changed."""
    expected = datetime.fromtimestamp(second, ZoneInfo(zone)).strftime("%H%M%S")
    name = named("{time}_{id8}", ZoneInfo(zone), created_ms=second * 1000 + 999, tags={})
    assert name.startswith(f"{expected}_")


@pytest.mark.skipif(sys.gettrace() is not None, reason="the time is the tracer's")
def test_ten_thousand_names_take_a_quarter_of_a_second():
    """Naming a large day costs at most 25 µs a name (best of three)."""
    records = [record(id=f"{n:08x}-557c-42bf-9b7c-40c7b909d489") for n in range(10_000)]
    zone, best = ZoneInfo("Europe/Berlin"), 1e9
    for _ in range(3):
        start = time.process_time()
        names = {file_name(made, DEFAULT_TEMPLATE, zone) for made in records}
        best = min(best, time.process_time() - start)
    assert len(names) == 10_000
    assert timely(best, 0.25)
