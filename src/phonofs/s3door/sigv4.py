"""Verifies the signature of a request: AWS Signature Version 4, as S3 uses it. Pure.

Used by the server, for every request. A signature stands in the ``Authorization`` header, or in the
query of a presigned URL. It is over the method, the path, the query, the headers that it names and
the hash of the body. Sources: "Authenticating Requests (AWS Signature Version 4)" in the Amazon S3
API Reference. Where that is silent, real S3 servers and clients decide:

- Path and query are decoded and encoded again, since clients escape more or less than they sign.
- Every ``x-amz-`` header must be signed, and so must ``host``: nobody can add one, or take a
  signature to another host.
- The region is what the client says. The service must be ``s3``.
- A read can be repeated within 15 minutes by whoever saw it, as with Amazon; TLS hides it.
"""

import hashlib
import hmac
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from urllib.parse import quote

import msgspec

from phonofs.http_dates import http_date_s
from phonofs.s3door.errors import S3Error
from phonofs.s3door.keys import Key
from phonofs.s3door.request import Request

ALGORITHM = "AWS4-HMAC-SHA256"
SKEW = timedelta(minutes=15)
EXPIRES_MAX_S = 7 * 86400

NAMES_KEPT = 1000
"""The most characters of a list of signed headers whose names are remembered."""

UNSIGNED = "UNSIGNED-PAYLOAD"
STREAMING = "STREAMING-"
BODY_HASH = "x-amz-content-sha256"
"""The header; its value is a SHA-256 in hex, or one of the words above."""

_DATE = re.compile(r"[0-9]{8}T[0-9]{6}Z")
_HEX = re.compile(r"[0-9a-f]{64}")
_BODY_HASH = re.compile(r"[0-9a-f]{64}|UNSIGNED-PAYLOAD|STREAMING-[A-Z0-9-]{1,64}")
_FIELD = r"\s*(Credential|SignedHeaders|Signature)=([!-+\--~]+)\s*"
_FIELDS = re.compile(",".join(3 * [_FIELD]))
_CREDENTIAL = re.compile(r"([!-.0-~]{1,128})/([0-9]{8})/([!-.0-~]{1,64})/s3/aws4_request")
_SPACES = re.compile(r"[ \t]+")
_ENCODED = re.compile(
    r"(?:[A-Za-z0-9_.~/-]|%(?:[01][0-9A-F]|2[0-9A-C]|3[A-F]|40|5[B-E]|60|7[B-DF]))*"
)
"""A path that is as its signature has it: decoded and encoded again it would be the same."""
_QUERY_FIELDS = ("Algorithm", "Credential", "Date", "Expires", "SignedHeaders", "Signature")
_QUERY_SIGNATURE = "X-Amz-Signature"
_VERSION_2 = ("AWSAccessKeyId", "Signature")


class _Signature(msgspec.Struct, frozen=True):
    """What a request says of its own signature.

    access_key, day, region  from the credential; ``day`` as ``20261127``
    headers     the names of the signed headers, sorted
    hex         the signature itself
    at          when it was made
    body_hash   as signed: the hash of the body, or a word in place of it
    parameters  those of the query that are signed
    expires     how long it is valid; None in the header form
    """

    access_key: str
    day: str
    region: str
    headers: tuple[str, ...]
    hex: str
    at: datetime
    body_hash: str
    parameters: Mapping[str, str]
    expires: timedelta | None = None


def verify(request: Request, find_key: Callable[[str], Key | None], now: datetime) -> Key:
    """Return the key that signed a request.

    ``find_key`` returns the key of an access key; ``now`` has a time zone. Raises S3Error unless
    the signature is right, in time, and over the body that came.
    """
    signature = _of_query(request) or _of_header(request)
    key = find_key(signature.access_key)
    if key is None:
        raise S3Error("InvalidAccessKeyId", "the access key is not one of this server's keys")
    stamp = _stamp(signature.at)
    _check_time(signature, stamp[:8], now)
    _check_headers(request, signature)
    if not hmac.compare_digest(_computed(request, signature, stamp, key), signature.hex):
        raise S3Error(
            "SignatureDoesNotMatch",
            "the signature is not what this key makes of this request; check the secret key and "
            "that no proxy changes the host, the path or the headers",
        )
    _check_body(request.body, signature.body_hash)
    return key


def _of_header(request: Request) -> _Signature:
    text = request.header("authorization")
    if text is None:
        raise S3Error("AccessDenied", "the request is not signed")
    algorithm, _, rest = text.partition(" ")
    if algorithm != ALGORITHM:
        raise S3Error("InvalidRequest", f"the request is not signed by {ALGORITHM}")
    fields = _FIELDS.fullmatch(rest)
    found = dict(zip(fields.groups()[::2], fields.groups()[1::2], strict=True)) if fields else {}
    if len(found) != 3:
        raise _malformed("it must be Credential, SignedHeaders and Signature, each once")
    _refuse_token(request.header("x-amz-security-token"))
    access_key, day, region = _credential(found["Credential"], _malformed)
    return _Signature(
        access_key,
        day,
        region,
        _names(found["SignedHeaders"], _malformed),
        _hex(found["Signature"], _malformed),
        _date(request),
        _body_hash(request.header(BODY_HASH)),
        request.parameters,
    )


def _of_query(request: Request) -> _Signature | None:
    """Return the signature of a presigned URL, None if the query has none."""
    parameters = request.parameters
    if not parameters:
        return None
    if all(name in parameters for name in _VERSION_2):
        raise S3Error("InvalidRequest", f"the request is not signed by {ALGORITHM}")
    if not any(f"X-Amz-{name}" in parameters for name in _QUERY_FIELDS):
        return None
    if request.header("authorization") is not None:
        raise S3Error("InvalidArgument", "a request is signed by its header or its query, not both")
    missing = [name for name in _QUERY_FIELDS if f"X-Amz-{name}" not in parameters]
    if missing:
        raise _bad_query(f"X-Amz-{missing[0]} is missing")
    algorithm, credential, date, expires, names, signature = (
        parameters[f"X-Amz-{name}"] for name in _QUERY_FIELDS
    )
    if algorithm != ALGORITHM:
        raise _bad_query(f"X-Amz-Algorithm must be {ALGORITHM}")
    _refuse_token(parameters.get("X-Amz-Security-Token"))
    access_key, day, region = _credential(credential, _bad_query)
    at = _basic_date(date)
    if at is None:
        raise _bad_query("X-Amz-Date must be like 20130524T000000Z")
    return _Signature(
        access_key,
        day,
        region,
        _names(names, _bad_query),
        _hex(signature, _bad_query),
        at,
        _body_hash(parameters.get("X-Amz-Content-Sha256", request.header(BODY_HASH) or UNSIGNED)),
        {name: value for name, value in parameters.items() if name != _QUERY_SIGNATURE},
        _expires(expires),
    )


@lru_cache(maxsize=8)  # many requests are made in the same second
def _stamp(at: datetime) -> str:
    return at.strftime("%Y%m%dT%H%M%SZ")


_Refusal = Callable[[str], S3Error]


def _malformed(what: str) -> S3Error:
    return S3Error("AuthorizationHeaderMalformed", f"the authorization header is malformed: {what}")


def _bad_query(what: str) -> S3Error:
    return S3Error("AuthorizationQueryParametersError", what)


def _refuse_token(token: str | None) -> None:
    """No key of ours has a session token, so a client that sends one has other credentials."""
    if token is not None:
        raise S3Error("InvalidToken", "the keys of this server have no session token")


@lru_cache(maxsize=32)  # as the signing key: a client sends the same one all day
def _credential(text: str, refusal: _Refusal) -> tuple[str, str, str]:
    """Return access key, day and region."""
    found = _CREDENTIAL.fullmatch(text)
    if found is None:
        raise refusal("the credential must be ACCESS_KEY/YYYYMMDD/REGION/s3/aws4_request")
    return found[1], found[2], found[3]


def _names(text: str, refusal: _Refusal) -> tuple[str, ...]:
    """Return the names of signed headers. A long list, which a stranger may send, is not kept."""
    split = _split_names if len(text) <= NAMES_KEPT else _split_names.__wrapped__
    return split(text, refusal)


@lru_cache(maxsize=32)
def _split_names(text: str, refusal: _Refusal) -> tuple[str, ...]:
    names = text.split(";")
    if names != sorted(set(names)) or text != text.lower():
        raise refusal("the signed headers must be in lower case, sorted, each once")
    if "host" not in names:
        raise refusal("the header host must be signed")
    return tuple(names)


def _hex(text: str, refusal: _Refusal) -> str:
    if not _HEX.fullmatch(text):
        raise refusal("the signature must be 64 digits of hex in lower case")
    return text


def _expires(text: str) -> timedelta:
    if not re.fullmatch(r"[0-9]{1,9}", text) or not 1 <= int(text) <= EXPIRES_MAX_S:
        raise _bad_query(f"X-Amz-Expires must be 1 to {EXPIRES_MAX_S} seconds")
    return timedelta(seconds=int(text))


def _body_hash(text: str | None) -> str:
    if text is None:
        raise S3Error("InvalidRequest", f"the header {BODY_HASH} is missing")
    if not _BODY_HASH.fullmatch(text):
        raise S3Error(
            "InvalidArgument", f"{BODY_HASH} must be {UNSIGNED}, {STREAMING}… or a SHA-256 in hex"
        )
    return text


def _date(request: Request) -> datetime:
    """Return the time of a signature in the header form: of ``x-amz-date``, or else of ``date``."""
    text = request.header("x-amz-date")
    at = _http_date(request.header("date") or "") if text is None else _basic_date(text)
    if at is None:
        raise S3Error("AccessDenied", "a signed request needs a valid x-amz-date or date header")
    return at


def _http_date(text: str) -> datetime | None:
    """Return the time of a ``date`` header, which may have the form of ``x-amz-date`` too."""
    at_s = http_date_s(text)
    try:
        return _basic_date(text) if at_s is None else datetime.fromtimestamp(at_s, UTC)
    except (ValueError, OverflowError):  # before the year 1, or after 9999
        return None


@lru_cache(maxsize=8)
def _basic_date(text: str) -> datetime | None:
    """Return the time of a text like ``20130524T000000Z``, None if it is not one."""
    try:
        if not _DATE.fullmatch(text):
            return None
        year, month, day = int(text[:4]), int(text[4:6]), int(text[6:8])
        hour, minute, second = int(text[9:11]), int(text[11:13]), int(text[13:15])
        # strptime takes three times as long
        return datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError:
        return None


def _check_time(signature: _Signature, day: str, now: datetime) -> None:
    if day != signature.day:
        what = "the day of the credential is not that of the request"
        raise _malformed(what) if signature.expires is None else _bad_query(what)
    if signature.expires is None:
        if abs(now - signature.at) > SKEW:
            raise S3Error(
                "RequestTimeTooSkewed",
                "the time of the request is more than 15 minutes from this server's",
            )
    elif signature.at - now > SKEW:
        raise S3Error("AccessDenied", "the presigned URL is not valid yet")
    elif now - signature.at > signature.expires:
        raise S3Error("AccessDenied", "the presigned URL has expired")


def _check_headers(request: Request, signature: _Signature) -> None:
    """Raise S3Error if a header that must be signed is not, or a signed one was not sent."""
    sent, signed = request.names, set(signature.headers)
    unsigned = [name for name in sent if name not in signed and name.startswith("x-amz-")]
    if signature.expires is None and "x-amz-date" not in sent and "date" not in signed:
        unsigned.append("date")
    if unsigned:
        raise S3Error("AccessDenied", f"the header {min(unsigned)} was sent but is not signed")
    if not sent >= signed:
        raise S3Error("SignatureDoesNotMatch", "a header that is signed was not sent")


def _computed(request: Request, signature: _Signature, stamp: str, key: Key) -> str:
    """Return the signature in hex that the key makes of the request."""
    scope = f"{signature.day}/{signature.region}/s3/aws4_request"
    hashed = hashlib.sha256(_canonical(request, signature)).hexdigest()
    text = f"{ALGORITHM}\n{stamp}\n{scope}\n{hashed}"
    return hmac.digest(_signing_key(key, scope), text.encode(), "sha256").hex()


@lru_cache(maxsize=32)  # a client uses the same one all day; others can only push each other out
def _signing_key(key: Key, scope: str) -> bytes:
    made = f"AWS4{key.secret_key.reveal()}".encode()
    for part in scope.split("/"):
        made = hmac.digest(made, part.encode(), "sha256")
    return made


def _canonical(request: Request, signature: _Signature) -> bytes:
    """Return the canonical request, which is what the signature is over."""
    path = (
        request.path if _ENCODED.fullmatch(request.path) else quote(request.decoded_path, safe="/")
    )
    lines = [request.method, path, _query(signature.parameters)]
    for name in signature.headers:
        values = [_trimmed(value) for value in request.values(name)]
        lines.append(f"{name}:{','.join(values)}")
    lines += "", ";".join(signature.headers), signature.body_hash
    return "\n".join(lines).encode("latin-1")


def _query(parameters: Mapping[str, str]) -> str:
    """Return the parameters that are signed, encoded and sorted."""
    if not parameters:
        return ""
    encoded = sorted(
        (quote(name, safe=""), quote(value, safe="")) for name, value in parameters.items()
    )
    return "&".join(f"{name}={value}" for name, value in encoded)


def _trimmed(value: str) -> str:
    """Return the value of a header with single spaces."""
    if "  " in value or "\t" in value:
        value = _SPACES.sub(" ", value)
    return value.strip(" ")


def _check_body(body: bytes, signed: str) -> None:
    """Raise S3Error unless the body is the one whose hash was signed, or may be any."""
    if signed.startswith(STREAMING):
        if body:
            raise S3Error("NotImplemented", "a body in signed chunks is not supported here")
    elif signed != UNSIGNED and hashlib.sha256(body).hexdigest() != signed:
        raise S3Error("XAmzContentSHA256Mismatch", f"the body is not that of {BODY_HASH}")
