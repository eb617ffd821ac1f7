"""Requests signed by botocore, as the bytes of their head would reach a server."""

from collections.abc import Mapping
from datetime import UTC, datetime
from unittest import mock
from urllib.parse import quote, urlencode, urlsplit

import botocore.auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from phonofs.config import Secret
from phonofs.s3door.keys import Key, Keys
from phonofs.s3door.request import Request

NOW = datetime(2026, 11, 27, 16, 50, tzinfo=UTC)
SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
KEY = Key("batch", "AKIAIOSFODNN7EXAMPLE", Secret(SECRET))
KEYS = Keys([KEY])
HOST = "calls.example:8444"


def signed(
    method: str = "GET",
    path: str = "/work/2024/a.mp3",
    parameters: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    *,
    expires_s: int | None = None,
    region: str = "us-east-1",
    host: str = HOST,
    scheme: str = "http",
    secret: str = SECRET,
    access_key: str = KEY.access_key,
    token: str | None = None,
    at: datetime = NOW,
) -> Request:
    """Return a request that botocore signed at a time; presigned if it says when it expires."""
    url = f"{scheme}://{host}{quote(path)}"
    if parameters:
        url += "?" + urlencode(parameters, quote_via=quote, safe="")
    request = AWSRequest(method, url, dict(headers or {}), body)
    credentials = Credentials(access_key, secret, token)
    signer = (
        botocore.auth.S3SigV4Auth(credentials, "s3", region)
        if expires_s is None
        else botocore.auth.S3SigV4QueryAuth(credentials, "s3", region, expires_s)
    )
    with mock.patch("botocore.auth.get_current_datetime", return_value=at.replace(tzinfo=None)):
        signer.add_auth(request)
    target = urlsplit(request.url)
    sent = [("Host", host), *request.headers.items()]
    return Request.of(
        method.encode(),
        f"{target.path}?{target.query}".rstrip("?").encode(),
        [(name.encode("latin-1"), value.encode()) for name, value in sent],
        body,
    )
