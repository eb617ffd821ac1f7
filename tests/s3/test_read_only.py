"""Everything else that Amazon's S3 can be asked for is refused, and changes nothing."""

from typing import Any

import pytest
from botocore.client import BaseClient
from botocore.exceptions import ClientError
from botocore.model import OperationModel, Shape
from botocore.session import get_session

from tests.s3.calls import Sample
from tests.support.s3 import Door, Tree

ALLOWED = {
    "ListBuckets", "HeadBucket", "GetBucketLocation", "ListObjects", "ListObjectsV2",
    "HeadObject", "GetObject", "RestoreObject",
}  # fmt: skip
OTHER_HOSTS = {"WriteGetObjectResponse", "CreateSession", "ListDirectoryBuckets"}
"""botocore sends them to servers of Amazon's, or signs them otherwise."""

MODEL = get_session().get_service_model("s3")
OPERATIONS = sorted(set(MODEL.operation_names) - ALLOWED - OTHER_HOSTS)


def least(shape: Shape) -> Any:
    """Return the least that botocore takes for a shape."""
    if shape.type_name == "structure":
        members = shape.required_members or [*shape.members][:1]
        return {each: least(shape.members[each]) for each in members}
    if shape.type_name == "list":
        return [least(shape.member)]
    if shape.type_name == "map":
        return {}
    kinds = {"integer": 1, "long": 1, "boolean": True, "blob": b"x", "timestamp": "2026-01-01"}
    if shape.type_name in kinds:
        return kinds[shape.type_name]
    enum = getattr(shape, "enum", None)
    return enum[0] if enum else "x" * max(1, shape.metadata.get("min", 1))


def parameters(model: OperationModel, bucket: str, key: str) -> dict[str, Any]:
    """Return what an operation needs; it is about our bucket, and an object that is there."""
    shape = model.input_shape
    if shape is None:
        return {}
    given = {name: least(shape.members[name]) for name in shape.required_members}
    known = {"Bucket": bucket, "Key": key, "CopySource": f"{bucket}/{key}"}
    return {name: known.get(name, value) for name, value in given.items()}


@pytest.fixture(scope="module")
def client(door: Door) -> BaseClient:
    return door.endpoint.client()


@pytest.fixture(scope="module")
def sample(tree: Tree) -> Sample:
    return Sample.of(tree)


@pytest.mark.promise("s3-door-cannot-write")
@pytest.mark.parametrize("operation", OPERATIONS)
def test_any_other_operation_is_refused(
    operation: str, client: BaseClient, door: Door, sample: Sample
):
    model = MODEL.operation_model(operation)
    given = parameters(model, door.endpoint.bucket, sample.recording)
    with pytest.raises(ClientError) as refused:
        client._make_api_call(operation, given)
    response = refused.value.response
    assert response["ResponseMetadata"]["HTTPStatusCode"] == 405, response["Error"]
    assert response["Error"]["Code"] in ("MethodNotAllowed", "405")


def test_nothing_has_changed(client: BaseClient, door: Door, tree: Tree):
    """After all of them."""
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=door.endpoint.bucket)
    listed = {each["Key"]: each["ETag"] for page in pages for each in page["Contents"]}
    assert listed == {key: item.etag for key, item in tree.items.items()}
