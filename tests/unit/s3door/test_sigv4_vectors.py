"""Requests that others signed, byte for byte: Amazon's documented ones, and those of four programs.

Amazon's stand in "Authenticating Requests: Using the Authorization Header" and "… Using Query
Parameters". The others were received from obstore 0.12, rclone 1.75 (the SDK for Go) and pyarrow 26
(the SDK for C++), each with a key that has most of what can be escaped.
"""

from datetime import UTC, datetime

import pytest

from phonofs.config import Secret
from phonofs.s3door.errors import S3Error
from phonofs.s3door.keys import Key, Keys
from phonofs.s3door.request import Request
from phonofs.s3door.sigv4 import verify

SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
KEYS = Keys([Key("example", "AKIAIOSFODNN7EXAMPLE", Secret(SECRET))])
EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
ODD = "/work/2024/2024-09/a%20b%2B%C3%A9%281%29~%27%21%2A%26%3D.mp3"
DOCUMENTED = datetime(2013, 5, 24, tzinfo=UTC)
RECEIVED = datetime(2026, 11, 27, 17, 3, tzinfo=UTC)
LOOPBACK = "127.0.0.1:18999"
AMAZON = "examplebucket.s3.amazonaws.com"


def authorization(day: str, names: str, signature: str) -> str:
    credential = f"AKIAIOSFODNN7EXAMPLE/{day}/us-east-1/s3/aws4_request"
    return f"AWS4-HMAC-SHA256 Credential={credential},SignedHeaders={names},Signature={signature}"


def documented(signature: str, names: str, target: str, **headers: str) -> Request:
    """Return a request of Amazon's documentation."""
    plain = {
        "host": AMAZON, "x_amz_date": "20130524T000000Z", "x_amz_content_sha256": EMPTY,
        "authorization": authorization("20130524", names, signature),
    }  # fmt: skip
    return request("GET", target, plain | headers)


def received(
    signature: str, names: str, method: str, target: str, at: str, **headers: str
) -> Request:
    """Return a request that a program sent."""
    plain = {
        "host": LOOPBACK, "x_amz_date": f"20261127T{at}Z", "x_amz_content_sha256": EMPTY,
        "authorization": authorization("20261127", names, signature),
    }  # fmt: skip
    return request(method, target, plain | headers)


def request(method: str, target: str, headers: dict[str, str], body: bytes = b"") -> Request:
    fields = [(name.replace("_", "-").encode(), text.encode()) for name, text in headers.items()]
    return Request.of(method.encode(), target.encode(), fields, body)


def presigned(host: str, target: str, day: str, at: str, rest: str) -> Request:
    credential = f"AKIAIOSFODNN7EXAMPLE%2F{day}%2Fus-east-1%2Fs3%2Faws4_request"
    query = f"X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={credential}&X-Amz-Date={day}T{at}Z"
    return request("GET", f"{target}?{query}&{rest}", {"host": host})


SIGNED = "host;x-amz-content-sha256;x-amz-date"
OF_GO = f"accept-encoding;amz-sdk-invocation-id;amz-sdk-request;{SIGNED}"
OF_CPP = (
    "amz-sdk-invocation-id;amz-sdk-request;content-type;host;range;x-amz-api-version;"
    "x-amz-checksum-mode;x-amz-content-sha256;x-amz-date"
)
PUT_NAMES = "date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class"

REQUESTS = {
    "Amazon: GetObject": documented(
        "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
        "host;range;x-amz-content-sha256;x-amz-date",
        "/test.txt",
        range="bytes=0-9",
    ),
    "Amazon: PutObject": request(
        "PUT",
        "/test%24file.text",
        {
            "date": "Fri, 24 May 2013 00:00:00 GMT",
            "host": AMAZON,
            "x_amz_date": "20130524T000000Z",
            "x_amz_storage_class": "REDUCED_REDUNDANCY",
            "x_amz_content_sha256": (
                "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072"
            ),
            "authorization": authorization(
                "20130524",
                PUT_NAMES,
                "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
            ),
        },
        b"Welcome to Amazon S3.",
    ),
    "Amazon: a parameter without a value": documented(
        "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543", SIGNED, "/?lifecycle"
    ),
    "Amazon: ListObjects": documented(
        "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
        SIGNED,
        "/?max-keys=2&prefix=J",
    ),
    "Amazon: presigned": presigned(
        AMAZON,
        "/test.txt",
        "20130524",
        "000000",
        "X-Amz-Expires=86400&X-Amz-SignedHeaders=host&X-Amz-Signature="
        "aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404",
    ),
    "obstore: a space sent as a plus": received(
        "3110924a8bf4ef1d0b515ff643be7b55db24bd75adf7614e3a12875dec6495f8",
        SIGNED,
        "GET",
        "/work?list-type=2&prefix=2024%2Fa+b%2B%C3%A9%2F",
        "170300",
    ),
    "obstore: HeadObject": received(
        "87807018553ffc0317bcd7a42b4410ceb5c5a7f8ea607a075f276baf17b341cb",
        SIGNED,
        "HEAD",
        ODD,
        "170300",
    ),
    "obstore: presigned": presigned(
        LOOPBACK,
        ODD,
        "20261127",
        "170300",
        "X-Amz-Expires=3600&X-Amz-SignedHeaders=host&X-Amz-Signature="
        "cafab0a3733dfa7bdf6730afd7b71949c14864c53cdc8fe648bd04a4a2eb8baa",
    ),
    "rclone: HeadObject": received(
        "f130adbbd7a41e1b0c701a493bd3361c9a823b752f088818e40c59b21c2c37e1",
        OF_GO,
        "HEAD",
        ODD,
        "170300",
        accept_encoding="identity",
        amz_sdk_invocation_id="bfb3ba70-c3b2-4e05-8f38-a1bd8948b401",
        amz_sdk_request="attempt=1; max=1",
    ),
    "rclone: presigned": presigned(
        LOOPBACK,
        ODD,
        "20261127",
        "170301",
        "X-Amz-Expires=3600&X-Amz-SignedHeaders=host&x-id=GetObject&X-Amz-Signature="
        "d92f0c841cb6f2ffb086da02b0771c50f014bec9365a11fc6231b8ca499b47e6",
    ),
    "pyarrow: GetObject": received(
        "5f8b9cacfa49696a6bf7cb7c121ac42f93f65c5bdb883b2d43fd09888d9bcca8",
        OF_CPP,
        "GET",
        ODD,
        "170328",
        host="127.0.0.1:18998",
        amz_sdk_invocation_id="76B38D79-0000-4000-BD93-ACBC00000000",
        amz_sdk_request="attempt=1",
        content_type="application/xml",
        range="bytes=2-6",
        x_amz_api_version="2006-03-01",
        x_amz_checksum_mode="enabled",
    ),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_what_others_signed_is_accepted_at_its_time_only(name: str) -> None:
    signed = REQUESTS[name]
    now = DOCUMENTED if signed.header("host") == AMAZON else RECEIVED
    found = verify(signed, KEYS.find, now)
    assert found.name == "example"
    with pytest.raises(S3Error):
        verify(signed, KEYS.find, now.replace(day=now.day + 2))
