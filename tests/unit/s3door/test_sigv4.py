"""What botocore signs is accepted as it is, and refused if anything about it is changed."""

import string
from dataclasses import replace
from datetime import timedelta
from unittest import mock
from urllib.parse import unquote, urlencode

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from phonofs.s3door.errors import STATUSES, S3Error
from phonofs.s3door.request import Request
from phonofs.s3door.sigv4 import verify
from tests.unit.s3door.signers import HOST, KEY, KEYS, NOW, SECRET, signed

REFUSED = {"AccessDenied", "SignatureDoesNotMatch", "InvalidAccessKeyId", "RequestTimeTooSkewed"}
WORDS = st.text(st.characters(codec="utf-8"), max_size=20)
TOKEN = st.text(string.ascii_letters + string.digits + "-", min_size=1, max_size=12)
# What clients send: no control characters, and of white space that of HTTP only.
VALUES = st.text(
    st.characters(codec="utf-8", exclude_categories=("C", "Z"), include_characters=" ")
)
UNSIGNED_BY_BOTOCORE = {
    "authorization", "baggage", "connection", "content-length", "date", "expect", "host",
    "keep-alive", "te", "traceparent", "tracestate", "trailer", "upgrade", "user-agent",
}  # fmt: skip
HEADERS = st.dictionaries(
    TOKEN.map(str.lower).filter(
        lambda name: (
            name not in UNSIGNED_BY_BOTOCORE
            and not name.startswith(("x-amz", "proxy-", "transfer-"))
        )
    ),
    VALUES,
    max_size=4,
)
METHODS = st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"])
FORMS = st.sampled_from([None, 1, 3600, 604_800])


@st.composite
def requests(draw: st.DrawFn) -> Request:
    """Requests of any shape, in both forms."""
    expires_s = draw(FORMS)
    parameters = draw(st.dictionaries(WORDS.filter(bool), WORDS, max_size=4))
    assume(not any(name.lower().startswith("x-amz-") for name in parameters))
    assume(not {"AWSAccessKeyId", "Signature"} & parameters.keys())
    return signed(
        draw(METHODS),
        "/" + draw(WORDS),
        parameters,
        draw(HEADERS),
        draw(st.binary(max_size=40)) if expires_s is None else b"",
        expires_s=expires_s,
        region=draw(TOKEN),
        scheme=draw(st.sampled_from(["http", "https"])),
    )


def refusal(request: Request, find=KEYS.find, now=NOW) -> str:
    with pytest.raises(S3Error) as caught:
        verify(request, find, now)
    assert SECRET not in str(caught.value)
    return caught.value.code


def with_header(request: Request, name: str, value: str | None) -> Request:
    """Return the request with another value of a header, or without it."""
    fields = [field for field in request.headers if field[0] != name]
    return replace(request, headers=tuple(fields if value is None else [*fields, (name, value)]))


def signature_of(request: Request) -> str:
    text = request.header("authorization") or request.query
    return text.rpartition("Signature=")[2][:64]


def with_signature(request: Request, signature: str) -> Request:
    before = signature_of(request)
    authorization = request.header("authorization")
    if authorization is None:
        return replace(request, query=request.query.replace(before, signature))
    return with_header(request, "authorization", authorization.replace(before, signature))


@settings(deadline=None)
@given(requests())
def test_what_botocore_signs_is_accepted(request: Request) -> None:
    assert verify(request, KEYS.find, NOW) is KEY


@settings(deadline=None)
@given(requests(), st.integers(0, 255))
def test_a_signature_with_one_bit_changed_is_refused(request: Request, bit: int) -> None:
    changed = int(signature_of(request), 16) ^ 1 << bit
    assert refusal(with_signature(request, f"{changed:064x}")) == "SignatureDoesNotMatch"


@settings(deadline=None)
@given(requests(), st.data())
def test_one_changed_character_of_the_head_is_refused(
    request: Request, data: st.DataObject
) -> None:
    """Of method, path, query or a signed header: whatever then is wrong, no key comes out."""
    names = ["method", "path", *(["query"] if request.query else [])]
    name = data.draw(st.sampled_from(names))
    text: str = getattr(request, name)
    place = data.draw(st.integers(1 if name == "path" else 0, len(text)))
    other = data.draw(st.sampled_from("aZ9/%&=;"))
    changed = replace(request, **{name: text[:place] + other + text[place:]})
    assume(meaning(changed) != meaning(request))
    refusal(changed)


def meaning(request: Request) -> object:
    """Return what a request says to S3; the same in other escapes is the same request."""
    try:
        return request.method, request.decoded_path, request.parameters
    except S3Error as error:
        return error.code


@settings(deadline=None)
@given(requests(), st.data())
def test_a_signed_header_that_is_changed_or_dropped_is_refused(
    request: Request, data: st.DataObject
) -> None:
    sent = [name for name, _ in request.headers if name != "authorization"]
    name = data.draw(st.sampled_from(sent))
    assert refusal(with_header(request, name, None))
    if name != "x-amz-date":
        value = request.header(name) or ""
        assert refusal(with_header(request, name, f"{value}x"))
        twice = replace(request, headers=(*request.headers, (name, value)))
        assert refusal(twice)


@settings(deadline=None)
@given(requests())
def test_another_key_or_secret_or_host_is_refused(request: Request) -> None:
    another = replace(KEY, secret_key=type(KEY.secret_key)(SECRET[::-1]))
    assert refusal(request, lambda _: another) == "SignatureDoesNotMatch"
    assert refusal(request, lambda _: None) == "InvalidAccessKeyId"
    elsewhere = with_header(request, "host", "other.example")
    assert refusal(elsewhere) == "SignatureDoesNotMatch"


@settings(deadline=None)
@given(requests(), st.integers(-(10**6), 10**6))
def test_a_signature_is_good_for_its_time_only(request: Request, later_s: int) -> None:
    expires = request.parameters.get("X-Amz-Expires")
    last_s = 900 if expires is None else int(expires)
    now = NOW + timedelta(seconds=later_s)
    if -900 <= later_s <= last_s:
        assert verify(request, KEYS.find, now) is KEY
    else:
        expected = "RequestTimeTooSkewed" if expires is None else "AccessDenied"
        assert refusal(request, now=now) == expected


@pytest.mark.parametrize(("expires_s", "last_s"), [(None, 900), (60, 60)])
def test_the_last_second_counts(expires_s: int | None, last_s: int) -> None:
    request = signed(expires_s=expires_s)
    for second in (-900, last_s):
        assert verify(request, KEYS.find, NOW + timedelta(seconds=second)) is KEY
    for second in (-901, last_s + 1):
        assert refusal(request, now=NOW + timedelta(seconds=second))


def test_a_signed_header_without_a_value_is_not_the_same_as_none() -> None:
    request = signed(headers={"If-Match": ""})
    assert verify(request, KEYS.find, NOW) is KEY
    assert refusal(with_header(request, "if-match", None)) == "SignatureDoesNotMatch"


@pytest.mark.parametrize("method", ["HEAD", "PUT", "POST", "DELETE", "get"])
def test_a_presigned_url_is_for_one_method(method: str) -> None:
    presigned = signed(expires_s=60)
    assert refusal(replace(presigned, method=method)) == "SignatureDoesNotMatch"


def test_a_presigned_url_cannot_be_prolonged() -> None:
    presigned = signed(expires_s=60)
    longer = replace(presigned, query=presigned.query.replace("Expires=60", "Expires=600"))
    assert refusal(longer) == "SignatureDoesNotMatch"


@pytest.mark.parametrize("expires", ["0", "604801", "-1", "1.5", "", "99999999999999999999", "٣"])
def test_a_presigned_url_lasts_a_second_to_a_week(expires: str) -> None:
    presigned = signed(expires_s=60)
    changed = replace(presigned, query=presigned.query.replace("Expires=60", f"Expires={expires}"))
    assert refusal(changed) in ("AuthorizationQueryParametersError", "InvalidURI")


@pytest.mark.parametrize(
    "name", ["Algorithm", "Credential", "Date", "Expires", "SignedHeaders", "Signature"]
)
def test_a_presigned_url_needs_all_its_parameters(name: str) -> None:
    presigned = signed(expires_s=60)
    fields = [each for each in presigned.query.split("&") if not each.startswith(f"X-Amz-{name}=")]
    changed = replace(presigned, query="&".join(fields))
    assert refusal(changed) == "AuthorizationQueryParametersError"


def test_a_presigned_url_has_one_algorithm() -> None:
    presigned = signed(expires_s=60)
    for other in ("AWS4-HMAC-SHA1", "AWS4-ECDSA-P256-SHA256", ""):
        changed = replace(presigned, query=presigned.query.replace("AWS4-HMAC-SHA256", other))
        assert refusal(changed) == "AuthorizationQueryParametersError"


def test_a_header_of_amazon_that_is_not_signed_is_refused() -> None:
    """Else whoever sits between could add one, such as a token or another hash of the body."""
    for request in (signed(), signed(expires_s=60)):
        assert refusal(with_header(request, "x-amz-request-payer", "requester")) == "AccessDenied"
        assert verify(with_header(request, "x-amzn-trace-id", "1"), KEYS.find, NOW) is KEY
        assert verify(with_header(request, "range", "bytes=0-1"), KEYS.find, NOW) is KEY


def test_the_date_header_will_do_if_it_is_signed() -> None:
    request = signed(headers={"Date": "any"})
    assert request.header("x-amz-date") is None
    assert verify(request, KEYS.find, NOW) is KEY
    assert refusal(request, now=NOW + timedelta(minutes=16)) == "RequestTimeTooSkewed"
    undated = with_header(signed(), "x-amz-date", None)
    assert refusal(with_header(undated, "date", "Fri, 27 Nov 2026 16:50:00 GMT")) == "AccessDenied"


@pytest.mark.parametrize(
    "date", ["", "20261127T165000", "20261327T165000Z", "2026-11-27T16:50:00Z", "٢٠٢٦١١٢٧T165000Z"]
)
def test_a_date_that_is_none_is_refused(date: str) -> None:
    assert refusal(with_header(signed(), "x-amz-date", date)) == "AccessDenied"


@pytest.mark.parametrize("date", ["Fri, 31 Dec 9999 23:59:59 -2359", "x"])
def test_a_date_beyond_the_calendar_is_refused(date: str) -> None:
    undated = with_header(signed(), "x-amz-date", None)
    assert refusal(with_header(undated, "date", date)) == "AccessDenied"


def test_the_credential_must_be_of_the_day_and_of_s3() -> None:
    request = signed()
    text = request.header("authorization") or ""
    for old, new in [("/20261127/", "/20261126/"), ("/s3/", "/sts/"), ("aws4_request", "x")]:
        changed = with_header(request, "authorization", text.replace(old, new))
        assert refusal(changed) == "AuthorizationHeaderMalformed"
    presigned = signed(expires_s=60)
    other = replace(presigned, query=presigned.query.replace("%2F20261127%2F", "%2F20261126%2F"))
    assert refusal(other) == "AuthorizationQueryParametersError"


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("AWS4-HMAC-SHA256", "AWS4-HMAC-SHA1", "InvalidRequest"),
        ("AWS4-HMAC-SHA256 ", "AWS4-ECDSA-P256-SHA256 ", "InvalidRequest"),
        ("AWS4-HMAC-SHA256 ", "AWS AKIAIOSFODNN7EXAMPLE:", "InvalidRequest"),
        ("SignedHeaders=host;", "SignedHeaders=", "AuthorizationHeaderMalformed"),
        ("SignedHeaders=host;", "SignedHeaders=host;host;", "AuthorizationHeaderMalformed"),
        ("SignedHeaders=host;", "SignedHeaders=Host;", "AuthorizationHeaderMalformed"),
        ("host;x-amz-content-sha256", "x-amz-content-sha256;host", "AuthorizationHeaderMalformed"),
        ("Signature=", "Signature=A", "AuthorizationHeaderMalformed"),
        ("Signature=", "Signature=" + "0" * 100_000, "AuthorizationHeaderMalformed"),
        ("Credential=", "Credential=a/", "AuthorizationHeaderMalformed"),
        (", Signature", ", Credential=x, Signature", "AuthorizationHeaderMalformed"),
        (", Signature", " Signature", "AuthorizationHeaderMalformed"),
        ("Credential=", "Credential =", "AuthorizationHeaderMalformed"),
    ],
)
def test_a_malformed_authorization_is_refused(old: str, new: str, code: str) -> None:
    request = signed()
    text = request.header("authorization") or ""
    assert old in text
    assert refusal(with_header(request, "authorization", text.replace(old, new))) == code


def test_the_fields_of_an_authorization_come_in_any_order() -> None:
    request = signed()
    algorithm, _, fields = (request.header("authorization") or "").partition(" ")
    turned = f"{algorithm} {','.join(reversed(fields.split(', ')))}"
    assert verify(with_header(request, "authorization", turned), KEYS.find, NOW) is KEY


def test_what_is_not_signed_or_twice_signed_or_by_version_2_is_refused() -> None:
    assert refusal(Request.of(b"GET", b"/work/a", [(b"Host", b"h")])) == "AccessDenied"
    twice = signed(expires_s=60)
    assert refusal(with_header(twice, "authorization", "AWS4-HMAC-SHA256 x")) == "InvalidArgument"
    old = Request.of(b"GET", b"/work/a?AWSAccessKeyId=A&Signature=B&Expires=1", [])
    assert refusal(old) == "InvalidRequest"
    again = signed()
    authorization = ("authorization", again.header("authorization") or "")
    doubled = replace(again, headers=(*again.headers, authorization))
    assert refusal(doubled) == "AuthorizationHeaderMalformed"


@pytest.mark.parametrize("expires_s", [None, 60])
def test_a_session_token_is_refused(expires_s: int | None) -> None:
    assert refusal(signed(token="T", expires_s=expires_s)) == "InvalidToken"


def signed_with_hash(value: str, body: bytes = b"") -> Request:
    """Return a request whose signed x-amz-content-sha256 is ``value``, whatever the body is."""
    with mock.patch("botocore.auth.S3SigV4Auth.payload", return_value=value):
        return signed("POST", "/work/a", {"restore": ""}, body=body)


@pytest.mark.parametrize(
    ("value", "body", "code"),
    [
        ("UNSIGNED-PAYLOAD", b"any", None),
        ("STREAMING-AWS4-HMAC-SHA256-PAYLOAD", b"", None),
        ("STREAMING-AWS4-HMAC-SHA256-PAYLOAD", b"0;chunk-signature=", "NotImplemented"),
        ("STREAMING-UNSIGNED-PAYLOAD-TRAILER", b"0\r\n", "NotImplemented"),
        ("0" * 64, b"any", "XAmzContentSHA256Mismatch"),
        ("A" * 64, b"any", "InvalidArgument"),
        ("", b"", "InvalidArgument"),
        ("none", b"", "InvalidArgument"),
    ],
)
def test_the_hash_of_the_body_has_its_forms(value: str, body: bytes, code: str | None) -> None:
    request = signed_with_hash(value, body)
    if code is None:
        assert verify(request, KEYS.find, NOW) is KEY
    else:
        assert refusal(request) == code


def test_another_body_is_refused_and_so_is_no_hash() -> None:
    request = signed("POST", body=b"<RestoreRequest/>")
    assert refusal(replace(request, body=b"<RestoreRequest />")) == "XAmzContentSHA256Mismatch"
    assert refusal(with_header(request, "x-amz-content-sha256", None)) == "InvalidRequest"
    other = with_header(request, "x-amz-content-sha256", "UNSIGNED-PAYLOAD")
    assert refusal(other) == "SignatureDoesNotMatch"


@pytest.mark.parametrize(
    ("sent", "signed_as"),
    [
        ("/work/a(1)~'.mp3", "/work/a(1)~'.mp3"),
        ("/work/a%281%29%7e%27.mp3", "/work/a(1)~'.mp3"),
        ("/work/%61+b", "/work/a+b"),
    ],
)
def test_a_path_may_be_escaped_otherwise_than_it_was_signed(sent: str, signed_as: str) -> None:
    assert verify(replace(signed(path=signed_as), path=sent), KEYS.find, NOW) is KEY


@pytest.mark.parametrize("value", ["a   b", "  a", "a  ", " a\tb ", "a \t b", "\ta"])
def test_white_space_in_a_signed_header_counts_as_one_space(value: str) -> None:
    """Botocore signs it so; clients send the header as it was."""
    request = signed(headers={"x-amz-meta-a": value})
    sent = dict(request.headers)["x-amz-meta-a"]
    assert sent == value
    assert verify(request, KEYS.find, NOW) is KEY


ESCAPES = st.integers(0, 127).flatmap(lambda n: st.sampled_from([f"%{n:02X}", f"%{n:02x}"]))


@settings(deadline=None, max_examples=300)
@given(st.lists(ESCAPES | st.sampled_from([*map(chr, range(33, 127)), "%C3%A9", "%c3%A9"])))
def test_however_a_path_is_escaped_it_is_the_one_that_was_signed(pieces: list[str]) -> None:
    path = "/work/" + "".join(piece for piece in pieces if piece not in "%?#")
    assert verify(replace(signed(path=unquote(path)), path=path), KEYS.find, NOW) is KEY


@settings(deadline=None, max_examples=300)
@given(
    st.binary(max_size=60),
    st.lists(
        st.tuples(
            st.sampled_from([b"Authorization", b"Host", b"X-Amz-Date", b"x-amz-content-sha256"]),
            st.binary(max_size=60) | st.sampled_from([b"AWS4-HMAC-SHA256 ", b"20261127T165000Z"]),
        ),
        max_size=6,
    ),
    st.binary(max_size=60),
)
def test_whatever_comes_is_refused_in_a_sentence(
    path: bytes, headers: list[tuple[bytes, bytes]], query: bytes
) -> None:
    with pytest.raises(S3Error) as caught:
        verify(Request.of(b"GET", b"/" + path + b"?" + query, headers), KEYS.find, NOW)
    assert caught.value.code in STATUSES


@settings(deadline=None, max_examples=300)
@given(st.dictionaries(
    st.sampled_from(["Algorithm", "Credential", "Date", "Expires", "SignedHeaders", "Signature",
                     "Content-Sha256", "Security-Token"]),
    WORDS | st.sampled_from(["AWS4-HMAC-SHA256", f"{KEY.access_key}/20261127/é/s3/aws4_request",
                             "20261127T165000Z", "60", "host", "0" * 64]),
))  # fmt: skip
def test_whatever_a_query_says_is_refused_in_a_sentence(parameters: dict[str, str]) -> None:
    named = {f"X-Amz-{name}": value for name, value in parameters.items()}
    presigned = signed(expires_s=60, parameters={"a": "b"}).parameters | named
    assume(named.items() - signed(expires_s=60).parameters.items())
    target = f"/work/2024/a.mp3?{urlencode(presigned)}".encode()
    assert refusal(Request.of(b"GET", target, [(b"Host", HOST.encode())])) in STATUSES
