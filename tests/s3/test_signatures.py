"""Signatures of botocore, right and wrong, to the S3 door and to SeaweedFS: the same is refused."""

import http.client
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import quote, urlsplit

import boto3
import pytest
from botocore import UNSIGNED, auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from tests.s3.calls import Sample
from tests.support.s3 import ACCESS_KEY, REGION, SECRET_KEY, Door, Endpoint, Tree, content

SIGNERS = {
    "header": lambda keys: auth.S3SigV4Auth(keys, "s3", REGION),
    "query": lambda keys: auth.S3SigV4QueryAuth(keys, "s3", REGION, expires=900),
}


@dataclass
class Signed:
    """A request that was signed, to be changed and then sent."""

    method: str
    url: str
    headers: dict[str, str]

    def send(self) -> tuple[int, str, bytes]:
        """Return the status, the code of the error, and the body."""
        parts = urlsplit(self.url)
        connection = http.client.HTTPConnection(parts.netloc, timeout=30)
        try:
            target = f"{parts.path}?{parts.query}" if parts.query else parts.path
            connection.request(self.method, target, headers=self.headers)
            answer = connection.getresponse()
            body = answer.read()
        finally:
            connection.close()
        code = re.search(rb"<Code>(\w+)</Code>", body) if answer.status >= 400 else None
        return answer.status, code[1].decode() if code else "", body


def signed(
    endpoint: Endpoint, form: str, key: str, method: str = "GET", at: datetime | None = None
) -> Signed:
    """Sign a request for an object as botocore does, at another time if one is given."""
    url = f"{endpoint.url}/{endpoint.bucket}/{quote(key)}"
    request = AWSRequest(method, url)
    request.headers["Host"] = urlsplit(url).netloc
    with pytest.MonkeyPatch.context() as patch:
        if at is not None:
            patch.setattr(auth, "get_current_datetime", lambda: at)
        SIGNERS[form](Credentials(endpoint.access_key, endpoint.secret_key)).add_auth(request)
    prepared = request.prepare()
    return Signed(method, prepared.url, dict(prepared.headers.items()))


@pytest.fixture(scope="module")
def sample(tree: Tree) -> Sample:
    return Sample.of(tree)


@pytest.fixture(params=list(SIGNERS))
def form(request: pytest.FixtureRequest) -> str:
    return request.param


def test_a_signature_opens_hard_names(endpoint: Endpoint, form: str, tree: Tree, sample: Sample):
    keys = [sample.recording, *(key for key in tree.readable if re.search(r"_odd\d", key))]
    for key in keys:
        status, _, body = signed(endpoint, form, key).send()
        assert (status, body) == (200, content(tree.items[key])), key


def test_another_secret_is_refused(endpoint: Endpoint, form: str, sample: Sample):
    other = endpoint.signed_by(ACCESS_KEY, SECRET_KEY[:-1] + "2")
    status, code, _ = signed(other, form, sample.recording).send()
    assert (status, code) == (403, "SignatureDoesNotMatch")


def test_an_unknown_key_is_refused(endpoint: Endpoint, form: str, sample: Sample):
    other = endpoint.signed_by("NOBODY", SECRET_KEY)
    status, code, _ = signed(other, form, sample.recording).send()
    assert (status, code) == (403, "InvalidAccessKeyId")


def test_a_changed_bit_is_refused(endpoint: Endpoint, form: str, sample: Sample):
    request = signed(endpoint, form, sample.recording)
    request.url = re.sub(r"(Signature=)(.)", _flipped, request.url)
    if form == "header":
        request.headers["Authorization"] = re.sub(
            r"(Signature=)(.)", _flipped, request.headers["Authorization"]
        )
    status, code, _ = request.send()
    assert (status, code) == (403, "SignatureDoesNotMatch")


def _flipped(found: re.Match[str]) -> str:
    return f"{found[1]}{int(found[2], 16) ^ 1:x}"


def test_another_key_method_or_host_is_refused(endpoint: Endpoint, form: str, sample: Sample):
    """What was signed is one request; nobody makes another one of it."""
    request = signed(endpoint, form, sample.recording)
    request.url = request.url.replace(quote(sample.recording), quote(sample.transcript))
    assert request.send()[:2] == (403, "SignatureDoesNotMatch")
    request = signed(endpoint, form, sample.recording)
    request.method = "HEAD"
    assert request.send()[0] == 403
    request = signed(endpoint, form, sample.recording)
    request.headers["Host"] = "another.example"
    assert request.send()[:2] == (403, "SignatureDoesNotMatch")


@pytest.mark.parametrize("minutes", [-16, 16])
def test_another_time_is_refused(endpoint: Endpoint, form: str, sample: Sample, minutes: int):
    at = datetime.now(UTC) + timedelta(minutes=minutes)
    status, code, _ = signed(endpoint, form, sample.recording, at=at).send()
    if (form, minutes, endpoint.is_ours) == ("query", 16, False):
        assert status == 200  # SeaweedFS takes a URL of the future
    else:
        assert status == 403
        assert code in ("RequestTimeTooSkewed", "AccessDenied")  # in a query the latter


@pytest.mark.parametrize("minutes", [-10, 10])
def test_a_clock_may_be_a_little_wrong(endpoint: Endpoint, sample: Sample, minutes: int):
    at = datetime.now(UTC) + timedelta(minutes=minutes)
    assert signed(endpoint, "header", sample.recording, at=at).send()[0] == 200


def test_nothing_is_given_without_a_signature(endpoint: Endpoint, sample: Sample):
    client = endpoint.client(signature_version=UNSIGNED)
    asked = [
        lambda: client.list_buckets(),
        lambda: client.list_objects_v2(Bucket=endpoint.bucket),
        lambda: client.get_object(Bucket=endpoint.bucket, Key=sample.recording),
        lambda: client.get_object(Bucket=endpoint.bucket, Key="none"),
        lambda: client.get_object(Bucket="another", Key="none"),
    ]
    for ask in asked:
        with pytest.raises(ClientError) as refused:
            ask()
        assert refused.value.response["Error"]["Code"] == "AccessDenied"
    client.close()


PRESIGNED = {"list_objects_v2": "GET", "get_object": "GET", "head_object": "HEAD"}


@pytest.mark.parametrize("operation", list(PRESIGNED))
def test_a_url_works_for_its_method_alone(endpoint: Endpoint, sample: Sample, operation: str):
    """As a browser, a player or curl asks."""
    client = endpoint.client(signature_version="s3v4")
    key = {} if operation == "list_objects_v2" else {"Key": sample.recording}
    about = {"Bucket": endpoint.bucket} | key
    url = client.generate_presigned_url(operation, about, ExpiresIn=60)
    client.close()
    right = PRESIGNED[operation]
    assert Signed(right, url, {}).send()[0] == 200
    for method in {"GET", "HEAD", "PUT", "POST", "DELETE"} - {right}:
        assert Signed(method, url, {}).send()[0] in (403, 405)


def test_a_url_that_boto3_signs_by_default_depends_on_its_region(door: Door, sample: Sample):
    """For Amazon's first region that is still Signature Version 2, which is refused with a word."""
    about = {"Bucket": door.endpoint.bucket, "Key": sample.recording}
    found = {}
    for region in ("us-east-1", "eu-central-1"):
        client = boto3.client(
            "s3", endpoint_url=door.endpoint.url, region_name=region,
            aws_access_key_id=ACCESS_KEY, aws_secret_access_key=SECRET_KEY,
        )  # fmt: skip
        found[region] = Signed("GET", client.generate_presigned_url("get_object", about), {}).send()
        client.close()
    assert found["eu-central-1"][0] == 200
    status, code, body = found["us-east-1"]
    assert (status, code) == (400, "InvalidRequest")
    assert b"AWS4-HMAC-SHA256" in body
