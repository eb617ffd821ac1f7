"""Makes the answers to the requests of S3 clients. Used by ``connection``.

Fields of answers are those of the Amazon S3 API Reference.
"""

import time
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import msgspec

from phonofs.open_files import OpenFile
from phonofs.restores import NOT_RESTORED, why_not_restored
from phonofs.s3door import documents
from phonofs.s3door.conditions import is_wanted, range_of, response_headers
from phonofs.s3door.errors import S3Error
from phonofs.s3door.keys import Key
from phonofs.s3door.listing import ARCHIVED, Wanted, list_page
from phonofs.s3door.objects import Described, Objects
from phonofs.s3door.operations import Operation, operation_of
from phonofs.s3door.request import Request
from phonofs.vfs import Vfs

KEYS_MAX = 1000
"""The most keys and common prefixes of one page of a listing."""

LONGEST_NUMBER = 10
"""Digits of ``max-keys``."""

DAYS, DAYS_MAX = 7, 10
"""For how long an object is restored if the client does not say, and at most (the service)."""

REGION = "us-east-1"
"""What clients are told; a signature may be for any region."""

XML = ("Content-Type", "application/xml")

Headers = tuple[tuple[str, str], ...]


class Answer(msgspec.Struct, frozen=True):
    """An answer: its status, its headers and its body.

    size  the length that a HEAD states; None if it is that of the body
    """

    status: int
    headers: Headers = ()
    body: bytes = b""
    size: int | None = None


class Content(msgspec.Struct, frozen=True):
    """An answer whose body is a content, or a part of it: the bytes from ``start`` to ``stop``."""

    answer: Answer
    file: OpenFile
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Restoring:
    """How archived objects are restored.

    restore    requests the restore of an object (region, id) for some days; raises ServiceError
    is_asked   returns whether its restore was requested, and has not ended
    """

    restore: Callable[[str, str, int], Awaitable[None]]
    is_asked: Callable[[str, str], bool]


class Answers:
    """Answers requests whose signature was verified. Owns no state."""

    def __init__(self, vfs: Vfs, bucket: str, restoring: Restoring) -> None:
        """``bucket`` is the name of the only bucket."""
        self._vfs = vfs
        self._since_ms = time.time_ns() // 1_000_000
        self._objects = Objects(vfs)
        self._bucket = bucket
        self._restoring = restoring

    async def answer(self, key: Key, request: Request) -> Answer | Content:
        """Return the answer. The caller closes the file of a content.

        Raises S3Error, and the errors of ``Vfs``.
        """
        operation = operation_of(request)
        if request.bucket and request.bucket != self._bucket:
            raise S3Error("NoSuchBucket", "there is no bucket of that name")
        match operation:
            case Operation.GET_OBJECT:
                return await self._get(key, request)
            case Operation.HEAD_OBJECT:
                return await self._head(key, request)
            case Operation.LIST_OBJECTS | Operation.LIST_OBJECTS_V2:
                return await self._list(key, request, operation)
            case Operation.RESTORE_OBJECT:
                return await self._restore(key, request)
            case Operation.LIST_BUCKETS:
                return Answer(200, (XML,), documents.list_buckets({self._bucket: self._since_ms}))
            case Operation.GET_BUCKET_LOCATION:
                return Answer(200, (XML,), documents.bucket_location())
            case Operation.HEAD_BUCKET:
                return Answer(200, (("x-amz-bucket-region", REGION),))

    # objects

    async def _head(self, key: Key, request: Request) -> Answer:
        found = await self._objects.find(key, request.key)
        if not found.size and not found.archived:  # perhaps its record does not say how long it is
            file = await self._objects.open(key, found)
            size = file.size
            file.close()
        else:
            size = found.size
        if not is_wanted(request, found.etag, found.mtime_ms / 1000):
            return Answer(304, self._fields(found))
        span = range_of(request, size, found.etag, found.mtime_ms / 1000)
        return self._described(request, found, size, span)

    async def _get(self, key: Key, request: Request) -> Answer | Content:
        found = await self._objects.find(key, request.key)
        if not is_wanted(request, found.etag, found.mtime_ms / 1000):
            return Answer(304, self._fields(found))
        file = await self._objects.open(key, found)
        try:
            span = range_of(request, file.size, found.etag, found.mtime_ms / 1000)
            answer = self._described(request, found, file.size, span)
        except BaseException:
            file.close()
            raise
        return Content(answer, file, *(span or (0, file.size)))

    def _described(
        self, request: Request, found: Described, size: int, span: tuple[int, int] | None
    ) -> Answer:
        """Return the answer without its body."""
        chosen = {"Content-Type": found.media_type, **response_headers(request)}
        fields = (*self._fields(found), *chosen.items(), ("Accept-Ranges", "bytes"))
        if span is None:
            return Answer(200, fields, size=size)
        of_range = "Content-Range", f"bytes {span[0]}-{span[1] - 1}/{size}"
        return Answer(206, (*fields, of_range), size=span[1] - span[0])

    def _fields(self, found: Described) -> Headers:
        if not found.archived:
            return found.fields
        fields = (*found.fields, ("x-amz-storage-class", ARCHIVED))
        if found.record and self._restoring.is_asked(found.record.region, found.record.id):
            fields = (*fields, ("x-amz-restore", 'ongoing-request="true"'))
        return fields

    async def _restore(self, key: Key, request: Request) -> Answer:
        days = documents.days_of_restore(request.body) or DAYS
        if days > DAYS_MAX:
            raise S3Error("InvalidArgument", f"an object is restored for at most {DAYS_MAX} days")
        found = await self._objects.find(key, request.key)
        if found.record is None or not found.archived:
            raise S3Error("InvalidObjectState", "the object is not archived")
        region, id = found.record.region, found.record.id
        if self._restoring.is_asked(region, id):
            raise S3Error("RestoreAlreadyInProgress", "the restore has been requested already")
        try:
            await self._restoring.restore(region, id, days)
        except NOT_RESTORED as error:
            raise S3Error("InvalidObjectState", why_not_restored(id, error)) from error
        return Answer(202)

    # listings

    async def _list(self, key: Key, request: Request, operation: Operation) -> Answer:
        wanted = _wanted(request, operation)
        if not key.reaches(wanted.prefix):
            raise S3Error("AccessDenied", "this key opens nothing that begins with the prefix")
        page = await list_page(self._vfs, key, wanted)
        parameters, is_second = request.parameters, operation == Operation.LIST_OBJECTS_V2
        made = documents.Page(
            self._bucket,
            wanted.prefix,
            wanted.delimiter,
            wanted.most,
            page.objects,
            page.prefixes,
            next="" if page.next is None else _token(page.next) if is_second else page.next,
            after=parameters.get("start-after" if is_second else "marker", ""),
            token=parameters.get("continuation-token") if is_second else None,
            url_encoded=_choice(parameters, "encoding-type", "url"),
            owners=parameters.get("fetch-owner") == "true",
        )
        document = documents.list_objects_v2 if is_second else documents.list_objects_v1
        return Answer(200, (XML,), document(made))


def _wanted(request: Request, operation: Operation) -> Wanted:
    """Return what a request for a listing asks for. Raises S3Error."""
    parameters = request.parameters
    if operation == Operation.LIST_OBJECTS:
        after = parameters.get("marker", "")
    elif "continuation-token" in parameters:
        after = _of_token(parameters["continuation-token"])
    else:
        after = parameters.get("start-after", "")
    most = parameters.get("max-keys", "") or str(KEYS_MAX)
    if not (most.isascii() and most.isdecimal() and len(most) <= LONGEST_NUMBER):
        raise S3Error("InvalidArgument", "max-keys must be a number from 0 on")
    return Wanted(
        parameters.get("prefix", ""),
        parameters.get("delimiter", ""),
        after,
        min(int(most), KEYS_MAX),
    )


def _choice(parameters: Mapping[str, str], name: str, only: str) -> bool:
    """Return whether a parameter is given. Raises S3Error if it has any but its only value."""
    if parameters.get(name, only) != only:
        raise S3Error("InvalidArgument", f"{name} can only be {only}")
    return name in parameters


def _token(after: str) -> str:
    """Return the token that continues behind a key or a common prefix."""
    return urlsafe_b64encode(after.encode()).decode()


def _of_token(token: str) -> str:
    try:
        return b64decode(token, altchars=b"-_", validate=True).decode()
    except ValueError:
        raise S3Error("InvalidArgument", "the continuation token is not one of ours") from None
