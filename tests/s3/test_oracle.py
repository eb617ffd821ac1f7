"""The same calls to the S3 door and to SeaweedFS: statuses, heads and bodies are compared."""

from collections.abc import Iterator
from fnmatch import fnmatchcase

import pytest
from botocore.client import BaseClient

from tests.s3.calls import CALLS, Call, Sample
from tests.s3.differences import DIFFERENCES, reasons
from tests.support.s3 import Door, Endpoint, Tree, content


@pytest.fixture(scope="module")
def sample(tree: Tree) -> Sample:
    return Sample.of(tree)


@pytest.fixture(scope="module")
def ours(door: Door) -> Iterator[BaseClient]:
    client = door.endpoint.client()
    yield client
    client.close()


@pytest.fixture(scope="module")
def theirs(oracle: Endpoint) -> Iterator[BaseClient]:
    client = oracle.client()
    yield client
    client.close()


@pytest.mark.promise("s3-door-is-the-tree")
@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.name)
def test_an_answer_is_that_of_another_server(
    call: Call, ours: BaseClient, theirs: BaseClient, oracle: Endpoint, sample: Sample
):
    found = call.ask(ours, oracle.bucket, sample)
    expected = call.ask(theirs, oracle.bucket, sample)
    differing = {
        field: (found.get(field), expected.get(field))
        for field in sorted(found.keys() | expected.keys())
        if found.get(field) != expected.get(field)
    }
    known = reasons(call.name)
    other_status = known.keys() & {"status"}
    unknown = (
        {} if other_status else {field: differing[field] for field in differing.keys() - known}
    )
    assert not unknown, "ours, theirs"
    assert known.keys() <= differing.keys(), "no longer a difference"


def test_each_known_difference_is_of_a_call():
    names = [call.name for call in CALLS]
    assert len(set(names)) == len(names)
    for pattern in DIFFERENCES:
        assert any(fnmatchcase(name, pattern) for name in names), pattern


def test_both_have_every_byte_of_the_service(ours: BaseClient, theirs: BaseClient, tree: Tree,
                                             oracle: Endpoint):  # fmt: skip
    """What is compared is not two empty buckets."""
    assert len(tree.readable) > 300
    for key, item in tree.readable.items():
        for client in (ours, theirs):
            answer = client.get_object(Bucket=oracle.bucket, Key=key)
            assert answer["Body"].read() == content(item), key
            assert answer["ETag"] == item.etag, key


FOLDERS = {"Delimiter": "/", "Prefix": "2026/"}
OTHERS = {"Delimiter": "_", "Prefix": "2026/2026-02/"}
PAGES = [
    *(({}, size) for size in (7, 100, 1000)),
    *((FOLDERS, size) for size in (1, 2, 1000)),
    *((OTHERS, size) for size in (1, 10, 1000)),
]


@pytest.mark.parametrize(("how", "size"), PAGES)
@pytest.mark.parametrize("operation", ["list_objects", "list_objects_v2"])
def test_pages_of_any_size_are_the_whole_once(
    operation: str, how: dict[str, str], size: int, ours: BaseClient, theirs: BaseClient,
    oracle: Endpoint,
):  # fmt: skip
    """Each page begins behind the one before."""
    found = listed(ours, operation, oracle.bucket, size, how)
    assert found == listed(theirs, operation, oracle.bucket, 1000, how)


def listed(client: BaseClient, operation: str, bucket: str, size: int, how: dict) -> list[str]:
    """Return the keys and common prefixes of all pages."""
    pages = client.get_paginator(operation).paginate(
        Bucket=bucket, PaginationConfig={"PageSize": size}, **how
    )
    found: list[str] = []
    for page in pages:
        some = [each["Key"] for each in page.get("Contents", [])]
        some += [each["Prefix"] for each in page.get("CommonPrefixes", [])]
        some.sort(key=str.encode)
        assert len(some) <= size
        assert not found or found[-1].encode() < some[0].encode()
        found += some
    return found
