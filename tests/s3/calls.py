"""What boto3 asks of both servers, and what of an answer is compared."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from botocore.client import BaseClient
from botocore.exceptions import ClientError

from tests.support.s3 import Tree

PAST = datetime(2001, 1, 1, tzinfo=UTC)
FUTURE = datetime(2037, 1, 1, tzinfo=UTC)

ABOUT = (
    "accept-ranges", "cache-control", "content-disposition", "content-encoding",
    "content-language", "content-length", "content-range", "content-type", "etag", "expires",
    "x-amz-restore", "x-amz-storage-class",
)  # fmt: skip
HEADS = {200: ABOUT, 206: ABOUT, 304: ("etag",), 416: ("content-range",)}
"""The fields that are compared, by the status; of others none tells of the object."""

Parameters = dict[str, Any]
Answer = dict[str, object]


@dataclass(frozen=True)
class Call:
    """One call of a client of boto3: ``parameters`` beside the bucket, made from the tree."""

    name: str
    operation: str
    parameters: Callable[["Sample"], Parameters]

    def ask(self, client: BaseClient, bucket: str, sample: "Sample") -> Answer:
        """Return what is compared of the answer."""
        return answer_of(client, self.operation, {"Bucket": bucket} | self.parameters(sample))


@dataclass(frozen=True)
class Sample:
    """Keys of each kind."""

    recording: str
    transcript: str
    archived: str
    awkward: str
    parts: str
    etag: str
    parts_etag: str
    folder: str
    keys: list[str]

    @classmethod
    def of(cls, tree: Tree) -> "Sample":
        """Choose from a tree."""
        recording = tree.first(".mp3", lambda item: not item.multipart_bytes)
        parts = next(key for key, item in tree.readable.items() if item.multipart_bytes)
        return cls(
            recording,
            tree.first(".json"),
            next(key for key, item in tree.items.items() if item.state == "ARCHIVED"),
            next(key for key in tree.readable if not key.isascii()),
            parts,
            tree.items[recording].etag,
            tree.items[parts].etag,
            recording.rpartition("/")[0],
            tree.keys,
        )


def answer_of(client: BaseClient, operation: str, parameters: Parameters) -> Answer:
    """Return the status, the compared fields of the head, and what the body says.

    Times are left out, and what names the request: both differ from request to request.
    """
    try:
        response = getattr(client, operation)(**parameters)
    except ClientError as error:
        response = error.response
        found: Answer = {"code": response["Error"]["Code"]}
    else:
        found = dict(_said(response))
    about = response["ResponseMetadata"]
    heads, status = about["HTTPHeaders"], about["HTTPStatusCode"]
    if operation in OF_OBJECTS and status in HEADS:
        found |= {name: heads[name] for name in HEADS[status] if name in heads}
        found["has last-modified"] = "last-modified" in heads if status < 300 else None
    return found | {"status": status}


OF_OBJECTS = ("get_object", "head_object")


def _said(response: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    if "ETag" in response:  # the fields of an object are compared as they were sent
        response = {name: response[name] for name in ("Body", "Metadata") if name in response}
    for name, value in response.items():
        if name == "Body":
            yield name, hashlib.md5(value.read()).hexdigest()
        elif name == "Contents":
            for field in sorted({field for each in value for field in each}):
                if field != "LastModified":
                    yield f"Contents.{field}", [each.get(field) for each in value]
        elif name in ("NextContinuationToken", "ContinuationToken"):
            yield name, bool(value)  # of its server alone
        elif name != "ResponseMetadata":
            yield name, value


def _list(name: str, **parameters: Any) -> Call:
    return Call(f"list: {name}", "list_objects_v2", lambda sample: parameters)


def _list_of(name: str, make: Callable[[Sample], Parameters]) -> Call:
    return Call(f"list: {name}", "list_objects_v2", make)


def _list1(name: str, make: Callable[[Sample], Parameters]) -> Call:
    return Call(f"list v1: {name}", "list_objects", make)


def _get(name: str, make: Callable[[Sample], Parameters]) -> Iterator[Call]:
    """The same to GET and HEAD."""

    def parameters(sample: Sample) -> Parameters:
        return {"Key": sample.recording} | make(sample)

    yield Call(f"get: {name}", "get_object", parameters)
    yield Call(f"head: {name}", "head_object", parameters)


def _range(text: str) -> Iterator[Call]:
    return _get(f"range {text}", lambda sample: {"Range": f"bytes={text}"})


CALLS = [
    Call("head the bucket", "head_bucket", lambda sample: {}),
    Call("head another bucket", "head_bucket", lambda sample: {"Bucket": "another"}),
    Call("location", "get_bucket_location", lambda sample: {}),
    Call("location of another bucket", "get_bucket_location", lambda s: {"Bucket": "another"}),
    _list("all"),
    _list("all, by folders", Delimiter="/"),
    _list("of another bucket", Bucket="another"),
    _list("years", Prefix="2026/", Delimiter="/"),
    _list("folder without a slash", Prefix="2026", Delimiter="/"),
    _list("part of a name", Prefix="2026/2026-0", Delimiter="/"),
    _list("part of a day", Prefix="2026/2026-02/2026-02-1"),
    _list("nothing", Prefix="2026/2026-12/"),
    _list("nothing, by folders", Prefix="x", Delimiter="/"),
    _list("empty delimiter", Prefix="2026/2026-02/2026-02-10/", Delimiter=""),
    _list("another delimiter", Prefix="2026/2026-02/", Delimiter="_"),
    _list("a delimiter of two", Prefix="2026/2026-0", Delimiter="-0"),
    _list("no keys", MaxKeys=0),
    _list("one key", MaxKeys=1),
    _list("seven keys", MaxKeys=7),
    _list("many keys", MaxKeys=5000),
    _list("a negative number", MaxKeys=-1),
    _list("with owners", MaxKeys=3, FetchOwner=True),
    _list("a false token", ContinuationToken="not-a-token"),
    _list("months, one at a time", Prefix="2026/", Delimiter="/", MaxKeys=1),
    _list("after a prefix", Prefix="2026/", Delimiter="/", StartAfter="2026/2026-01"),
    _list("after a folder", Prefix="2026/", Delimiter="/", StartAfter="2026/2026-01/"),
    _list("after all", StartAfter="9"),
    _list("after none", StartAfter="0", MaxKeys=5),
    _list_of("after a key", lambda sample: {"StartAfter": sample.keys[10], "MaxKeys": 20}),
    _list_of("after what is no key", lambda sample: {"StartAfter": f"{sample.keys[10]}!"}),
    _list_of("a key", lambda sample: {"Prefix": sample.recording}),
    _list_of("a key, by folders", lambda s: {"Prefix": s.recording, "Delimiter": "/"}),
    _list_of("a key as a folder", lambda sample: {"Prefix": f"{sample.recording}/"}),
    _list_of("a day", lambda sample: {"Prefix": f"{sample.folder}/", "Delimiter": "/"}),
    _list_of("a day of awkward names", lambda sample: {"Prefix": sample.awkward[:24]}),
    _list_of("an awkward key", lambda sample: {"Prefix": sample.awkward}),
    _list_of("as they are", lambda s: {"Prefix": s.awkward, "EncodingType": "url"}),
    _list1("all", lambda sample: {}),
    _list1("years", lambda sample: {"Prefix": "2026/", "Delimiter": "/"}),
    _list1("months, one at a time", lambda s: {"Prefix": "2026/", "Delimiter": "/", "MaxKeys": 1}),
    _list1("seven keys", lambda sample: {"MaxKeys": 7}),
    _list1("after a key", lambda sample: {"Marker": sample.keys[10], "MaxKeys": 20}),
    _list1("after a folder", lambda s: {"Prefix": "2026/", "Delimiter": "/", "Marker": "2026/"}),
    *_get("whole", lambda sample: {}),
    *_get("of another bucket", lambda sample: {"Bucket": "another"}),
    *_get("text", lambda sample: {"Key": sample.transcript}),
    *_get("awkward", lambda sample: {"Key": sample.awkward}),
    *_get("uploaded in parts", lambda sample: {"Key": sample.parts}),
    *_get("archived", lambda sample: {"Key": sample.archived}),
    *_get("missing", lambda sample: {"Key": f"{sample.folder}/none.mp3"}),
    *_get("missing, in no folder", lambda sample: {"Key": "1999/none.mp3"}),
    *_get("a folder", lambda sample: {"Key": sample.folder}),
    *_get("a folder with its slash", lambda sample: {"Key": f"{sample.folder}/"}),
    *_get("a key with a slash", lambda sample: {"Key": f"{sample.recording}/"}),
    *_get("a key in a key", lambda sample: {"Key": f"{sample.recording}/none"}),
    *_get("with dots", lambda sample: {"Key": f"2026/../{sample.recording}"}),
    *_get("with two slashes", lambda sample: {"Key": sample.recording.replace("/", "//", 1)}),
    *_range("0-"),
    *_range("0-0"),
    *_range("5-9"),
    *_range("100-"),
    *_range("-7"),
    *_range("-0"),
    *_range("-999999999"),
    *_range("0-999999999"),
    *_range("999999999-"),
    *_range("9-5"),
    *_range("x-y"),
    *_get("range of lines", lambda sample: {"Range": "lines=0-5"}),
    *_get("part 1", lambda sample: {"PartNumber": 1}),
    *_get("if it is this", lambda sample: {"IfMatch": sample.etag}),
    *_get("if it is any", lambda sample: {"IfMatch": "*"}),
    *_get("if it is this or another", lambda s: {"IfMatch": f'"{"0" * 32}", {s.etag}'}),
    *_get("if it is this, in parts", lambda s: {"Key": s.parts, "IfMatch": s.parts_etag}),
    *_get("if it is another", lambda sample: {"IfMatch": f'"{"0" * 32}"'}),
    *_get("if it is not this", lambda sample: {"IfNoneMatch": sample.etag}),
    *_get("if it is none", lambda sample: {"IfNoneMatch": "*"}),
    *_get("if it is not another", lambda sample: {"IfNoneMatch": f'"{"0" * 32}"'}),
    *_get("if it is newer", lambda sample: {"IfModifiedSince": PAST}),
    *_get("if it is newer than the present", lambda sample: {"IfModifiedSince": FUTURE}),
    *_get("if it is older", lambda sample: {"IfUnmodifiedSince": FUTURE}),
    *_get("if it is older than all", lambda sample: {"IfUnmodifiedSince": PAST}),
    *_get("this one counts", lambda s: {"IfMatch": s.etag, "IfUnmodifiedSince": PAST}),
    *_get("another counts", lambda s: {"IfNoneMatch": f'"{"0" * 32}"', "IfModifiedSince": PAST}),
    *_get("this one counts again", lambda s: {"IfNoneMatch": s.etag, "IfModifiedSince": PAST}),
    *_get("another counts again", lambda s: {"IfMatch": '"x"', "IfUnmodifiedSince": FUTURE}),
    *_get("a part of this", lambda s: {"IfMatch": s.etag, "Range": "bytes=5-9"}),
    *_get("a part of another", lambda s: {"IfMatch": '"x"', "Range": "bytes=5-9"}),
    *_get(
        "with other heads",
        lambda sample: {
            "ResponseCacheControl": "no-store",
            "ResponseContentDisposition": 'attachment; filename="call.mp3"',
            "ResponseContentEncoding": "identity",
            "ResponseContentLanguage": "en",
            "ResponseContentType": "application/octet-stream",
            "ResponseExpires": FUTURE,
        },
    ),
]  # fmt: skip
