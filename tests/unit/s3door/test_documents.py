"""Botocore reads from the documents what was put in; what clients send stays small."""

import re
from functools import cache
from urllib.parse import unquote, unquote_plus
from xml.etree import ElementTree

import botocore.loaders
import botocore.model
import botocore.parsers
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phonofs.s3door import documents
from phonofs.s3door.documents import BODY_MAX, NAMESPACE, ListedObject, Page
from phonofs.s3door.errors import S3Error
from phonofs.tree.sanitize import clean

MOMENT_MS = 1_700_000_000_123
NAMES = st.text(st.characters(codec="utf-8"), max_size=20)
SAYABLE = re.compile("[\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]*")


@cache
def service() -> botocore.model.ServiceModel:
    return botocore.model.ServiceModel(
        botocore.loaders.Loader().load_service_model("s3", "service-2"), "s3"
    )


def read(operation: str, body: bytes, status: int = 200) -> dict:
    """Return what a client of botocore makes of an answer, without its own unescaping."""
    parser = botocore.parsers.RestXMLParser()
    answer = {"status_code": status, "headers": {}, "body": body}
    return parser.parse(answer, service().operation_model(operation).output_shape)


def page(**fields: object) -> Page:
    plain = {
        "bucket": "work", "prefix": "2024/", "delimiter": "/", "max_keys": 1000,
        "objects": [ListedObject("2024/a b&<c>.mp3", MOMENT_MS, '"abc-2"', 7, "GLACIER")],
        "common_prefixes": ["2024/2024-09/"],
    }  # fmt: skip
    return Page(**(plain | fields))


def test_a_page_of_version_2_is_what_a_client_reads() -> None:
    found = read("ListObjectsV2", documents.list_objects_v2(page(next="t", token="s", after="q")))
    [item] = found["Contents"]
    assert item["Key"] == "2024/a b&<c>.mp3"
    assert item["LastModified"].timestamp() * 1000 == MOMENT_MS
    assert (item["ETag"], item["Size"], item["StorageClass"]) == ('"abc-2"', 7, "GLACIER")
    assert "Owner" not in item
    assert found["CommonPrefixes"] == [{"Prefix": "2024/2024-09/"}]
    assert (found["Name"], found["Prefix"], found["Delimiter"]) == ("work", "2024/", "/")
    assert (found["MaxKeys"], found["KeyCount"], found["IsTruncated"]) == (1000, 2, True)
    assert found["NextContinuationToken"] == "t"
    assert (found["ContinuationToken"], found["StartAfter"]) == ("s", "q")


def test_the_last_page_is_not_truncated_and_an_empty_one_has_nothing() -> None:
    empty = page(objects=[], common_prefixes=[], delimiter="")
    found = read("ListObjectsV2", documents.list_objects_v2(empty))
    assert (found["IsTruncated"], found["KeyCount"]) == (False, 0)
    absent = ("Contents", "CommonPrefixes", "NextContinuationToken", "ContinuationToken",
              "StartAfter", "Delimiter")  # fmt: skip
    assert not set(absent) & found.keys()


def test_a_page_of_version_1_has_markers_and_owners() -> None:
    found = read("ListObjects", documents.list_objects_v1(page(next="2024/x", after="2024/")))
    assert (found["Marker"], found["NextMarker"], found["IsTruncated"]) == ("2024/", "2024/x", True)
    assert found["Contents"][0]["Owner"] == {"ID": "phonofs", "DisplayName": "phonofs"}
    assert "KeyCount" not in found
    owned = documents.list_objects_v2(page(owners=True))
    assert read("ListObjectsV2", owned)["Contents"][0]["Owner"]["ID"] == "phonofs"


@settings(deadline=None)
@given(NAMES, NAMES, NAMES, NAMES)
def test_names_survive_when_they_are_encoded(key: str, prefix: str, after: str, next: str) -> None:
    """Encoded, a name may have what XML cannot say. Some clients read ``+`` as a space."""
    listing = page(
        prefix=prefix, delimiter="é", after=after, next=next, url_encoded=True,
        objects=[ListedObject(key, MOMENT_MS, '"a"', 1)], common_prefixes=[prefix],
    )  # fmt: skip
    first = read("ListObjects", documents.list_objects_v1(listing))
    second = read("ListObjectsV2", documents.list_objects_v2(listing))
    assert first["EncodingType"] == second["EncodingType"] == "url"
    for decode in (unquote, unquote_plus):
        for found in (first, second):
            assert decode(found["Contents"][0]["Key"]) == key
            assert decode(found["CommonPrefixes"][0]["Prefix"]) == prefix
            assert decode(found.get("Prefix", "")) == prefix
            assert decode(found["Delimiter"]) == "é"
        assert decode(first.get("Marker", "")) == after
        assert decode(first.get("NextMarker", "")) == next


@settings(deadline=None)
@given(NAMES)
def test_a_document_is_always_xml_and_names_that_it_can_say_survive(name: str) -> None:
    listing = page(prefix=name, objects=[ListedObject(name, MOMENT_MS, '"a"', 1)])
    root = ElementTree.fromstring(documents.list_objects_v2(listing))
    [key] = root.iter(f"{{{NAMESPACE}}}Key")
    if SAYABLE.fullmatch(name):
        assert (key.text or "") == name
    else:
        assert "\ufffd" in (key.text or "")


@settings(deadline=None)
@given(st.text())
def test_whatever_a_caller_is_called_a_name_of_the_tree_survives(text: str) -> None:
    """Also without ``encoding-type``, which only some clients ask for."""
    name = clean(text)
    document = documents.list_objects_v2(page(objects=[ListedObject(name, MOMENT_MS, '"a"', 1)]))
    [key] = ElementTree.fromstring(document).iter(f"{{{NAMESPACE}}}Key")
    assert (key.text or "") == name


def test_the_other_answers_are_what_a_client_reads() -> None:
    found = read("ListBuckets", documents.list_buckets({"work": MOMENT_MS, "home": 0}))
    assert [each["Name"] for each in found["Buckets"]] == ["work", "home"]
    assert found["Buckets"][0]["CreationDate"].timestamp() * 1000 == MOMENT_MS
    assert found["Owner"]["ID"] == "phonofs"
    root = ElementTree.fromstring(documents.bucket_location("eu-central-1"))
    assert (root.tag, root.text) == (f"{{{NAMESPACE}}}LocationConstraint", "eu-central-1")
    assert not ElementTree.fromstring(documents.bucket_location()).text


def test_an_error_is_what_a_client_reads() -> None:
    failure = S3Error("NoSuchKey", "there is no <such> key\r\x00")
    document = documents.error(failure, "/work/a&b", "4242")
    found = read("GetObject", document, 404)
    assert found["Error"]["Code"] == "NoSuchKey"
    assert found["Error"]["Message"] == "there is no <such> key\ufffd\ufffd"
    assert found["Error"]["Resource"] == "/work/a&b"
    assert ElementTree.fromstring(document).findtext("RequestId") == "4242"


JOB = "<GlacierJobParameters><Tier>{}</Tier></GlacierJobParameters>"


@pytest.mark.parametrize(
    ("inside", "expected"),
    [
        ("", None),
        ("<Days>7</Days>", 7),
        (f"<Days> 7 </Days>{JOB.format('Bulk')}", 7),
        ("<Days>1</Days><Tier>Expedited</Tier>", 1),
        ("<Days>1</Days><Description>x</Description>", 1),
    ],
)
@pytest.mark.parametrize("space", ["", f' xmlns="{NAMESPACE}"'])
@pytest.mark.parametrize("start", ["", "\ufeff", '<?xml version="1.0" encoding="UTF-8"?>\n'])
def test_a_restore_is_read(inside: str, expected: int | None, space: str, start: str) -> None:
    body = f"{start}<RestoreRequest{space}>{inside}</RestoreRequest>"
    assert documents.days_of_restore(body.encode()) == expected


BOMB = '<!DOCTYPE a [<!ENTITY b "bbbbbbbb"><!ENTITY c "&b;&b;&b;&b;">]>'


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"x",
        b"<RestoreRequest>",
        b"<Other/>",
        b"<RestoreRequest xmlns='urn:other'/>",
        b"<RestoreRequest><Days>0</Days></RestoreRequest>",
        b"<RestoreRequest><Days>-1</Days></RestoreRequest>",
        b"<RestoreRequest><Days>1e3</Days></RestoreRequest>",
        b"<RestoreRequest><Days>99999999999</Days></RestoreRequest>",
        "<RestoreRequest><Days>٣</Days></RestoreRequest>".encode(),
        b"<RestoreRequest><Tier>Fast</Tier></RestoreRequest>",
        b"<RestoreRequest>&b;</RestoreRequest>",
        f"{BOMB}<RestoreRequest><Days>&c;</Days></RestoreRequest>".encode(),
        f"{BOMB}<RestoreRequest/>".encode("utf-16"),
        f"{BOMB}<RestoreRequest/>".encode("utf-16-be"),
        f'<?xml version="1.0" encoding="utf-16"?>{BOMB}<RestoreRequest/>'.encode("utf-16-le"),
        b'<?xml version="1.0" encoding="utf-7"?>+ADw-!DOCTYPE a+AD4-<RestoreRequest/>',
        b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><RestoreRequest/>',
        b"<RestoreRequest><!-- --></RestoreRequest>",
        b"\xff<RestoreRequest/>",
        b"<RestoreRequest>\x00</RestoreRequest>",
        b"<a>" * 20_000,
        b"<a>" * 9_000 + b"</a>" * 9_000,
    ],
)
def test_a_body_that_is_no_restore_is_refused(body: bytes) -> None:
    with pytest.raises(S3Error) as caught:
        documents.days_of_restore(body)
    assert caught.value.code == "MalformedXML"


def test_a_restore_is_bounded_and_in_place_only() -> None:
    with pytest.raises(S3Error) as caught:
        documents.days_of_restore(b"<RestoreRequest/>" + b" " * BODY_MAX)
    assert caught.value.code == "EntityTooLarge"
    for inside in ("<Type>SELECT</Type>", "<OutputLocation/>", "<SelectParameters/>"):
        with pytest.raises(S3Error) as caught:
            documents.days_of_restore(f"<RestoreRequest>{inside}</RestoreRequest>".encode())
        assert caught.value.code == "NotImplemented"


@settings(deadline=None, max_examples=300)
@given(
    st.binary(max_size=80)
    | st.lists(
        st.sampled_from(
            ["<RestoreRequest>", "</RestoreRequest>", "<Days>", "</Days>", "1", "&amp;", "<!", "<?",
             "<Tier/>", "]]>", "&#0;", "&#x10FFFF;", " ", "\ufeff"]
        ),
        max_size=12,
    ).map(lambda parts: "".join(parts).encode())
)  # fmt: skip
def test_whatever_is_sent_is_read_or_refused(body: bytes) -> None:
    try:
        found = documents.days_of_restore(body)
    except S3Error as error:
        assert error.code in ("MalformedXML", "NotImplemented")  # noqa: PT017
    else:
        assert found is None or found > 0
