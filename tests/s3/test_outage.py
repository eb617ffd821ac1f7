"""What libraries of others say while the service is away: never that nothing is there."""

from collections.abc import Iterator
from urllib.parse import urlsplit

import fsspec
import obstore
import pytest
from botocore.exceptions import ClientError
from obstore.store import S3Store

from phonofs.demo.dataset import demo_account
from tests.s3.conftest import TODAY
from tests.support.mounts import standing
from tests.support.s3 import ACCESS_KEY, REGION, SECRET_KEY, Door, s3_door

DAY = "2026/2026-02/2026-02-10"
WAITING = {"read_deadline": "2s", "timeout": "1s"}


@pytest.fixture(scope="module")
def away(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """A door that knows which days there are, and nothing that is in them."""
    folder = tmp_path_factory.mktemp("away")
    with (
        standing(demo_account(TODAY)) as stand_in,
        s3_door(stand_in.service, folder, **WAITING) as door,
    ):
        stand_in.stop()
        yield door


@pytest.mark.promise("s3-errors")
def test_boto3_is_told_to_come_back(away: Door):
    client, bucket = away.endpoint.client(), away.endpoint.bucket
    for ask in (
        lambda: client.list_objects_v2(Bucket=bucket),
        lambda: client.list_objects_v2(Bucket=bucket, Prefix=f"{DAY}/", Delimiter="/"),
        lambda: client.get_object(Bucket=bucket, Key=f"{DAY}/none.mp3"),
    ):
        with pytest.raises(ClientError) as refused:
            ask()
        response = refused.value.response
        assert response["Error"]["Code"] == "SlowDown"
        assert int(response["ResponseMetadata"]["HTTPHeaders"]["retry-after"]) > 0
    with pytest.raises(ClientError) as refused:
        client.head_object(Bucket=bucket, Key=f"{DAY}/none.mp3")
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503
    client.close()


@pytest.mark.promise("s3-errors")
def test_s3fs_finds_nothing_neither_there_nor_absent(away: Door):
    fs = fsspec.filesystem(
        "s3", key=ACCESS_KEY, secret=SECRET_KEY, endpoint_url=away.endpoint.url,
        client_kwargs={"region_name": REGION}, skip_instance_cache=True,
        config_kwargs={"retries": {"total_max_attempts": 1}},
    )  # fmt: skip
    fs.retries = 1
    path = f"{away.endpoint.bucket}/{DAY}"
    for ask in (fs.ls, fs.find, fs.info, fs.exists, fs.isdir, fs.cat_file):
        with pytest.raises(OSError, match=r"Unavailable|did not answer|refused") as told:
            ask(f"{path}/none.mp3" if ask in (fs.cat_file, fs.info) else path)
        assert not isinstance(told.value, FileNotFoundError)


def test_obstore_and_pyarrow_say_so(away: Door):
    bucket = away.endpoint.bucket
    store = S3Store(
        bucket, endpoint=away.endpoint.url, region=REGION, access_key_id=ACCESS_KEY,
        secret_access_key=SECRET_KEY, client_options={"allow_http": True},
        retry_config={"max_retries": 0},
    )  # fmt: skip
    for ask in (
        lambda: list(obstore.list(store, DAY)),
        lambda: obstore.head(store, f"{DAY}/none.mp3"),
    ):
        with pytest.raises(obstore.exceptions.GenericError, match="503"):
            ask()
    fs = pytest.importorskip("pyarrow.fs", reason="pyarrow is not installed")
    arrow = fs.S3FileSystem(
        access_key=ACCESS_KEY, secret_key=SECRET_KEY, region=REGION, scheme="http",
        endpoint_override=urlsplit(away.endpoint.url).netloc,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=1),
    )  # fmt: skip
    with pytest.raises(OSError, match=r"SLOW_DOWN|503"):
        arrow.get_file_info(fs.FileSelector(f"{bucket}/{DAY}"))
    with pytest.raises(OSError, match=r"SLOW_DOWN|503"):
        arrow.get_file_info(f"{bucket}/{DAY}/none.mp3")
