"""The XML documents that S3 clients get, and the one that they send. Pure.

Used by the operations of the S3 door. Names and order of elements are those of the Amazon S3 API
Reference.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import quote
from xml.etree import ElementTree

from phonofs.s3door.errors import S3Error

NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
OWNER = "phonofs"

BODY_MAX = 64 * 1024
DAYS_MAX = 2**31 - 1
TIERS = ("Standard", "Bulk", "Expedited")
_ELSEWHERE = ("Type", "OutputLocation", "SelectParameters")

_NOT_IN_XML = re.compile("[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 cannot say, and the carriage return, which parsers change."""

_DECLARATION = b'<?xml version="1.0" encoding="UTF-8"?>\n'


@dataclass(frozen=True, slots=True)
class ListedObject:
    """An object in a listing. ``etag`` is in quotes; times are UTC epoch milliseconds."""

    key: str
    modified_ms: int
    etag: str
    size: int
    storage_class: str = "STANDARD"


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a listing, with what was asked for.

    next   where the next page begins: a token, or in version 1 a key; '' if this is the last page
    after  ``start-after``, or in version 1 ``marker``
    token  ``continuation-token`` as it was sent; None if it was not
    url_encoded  whether names are percent-encoded, as ``encoding-type=url`` asks
    owners       whether each object has an owner; in version 1 it always has
    """

    bucket: str
    prefix: str
    delimiter: str
    max_keys: int
    objects: Sequence[ListedObject]
    common_prefixes: Sequence[str]
    next: str = ""
    after: str = ""
    token: str | None = None
    url_encoded: bool = False
    owners: bool = False


def list_objects_v2(page: Page) -> bytes:
    """Return the answer of ListObjectsV2."""
    root = _listing(page)
    _add(root, "KeyCount", str(len(page.objects) + len(page.common_prefixes)))
    if page.token is not None:
        _add(root, "ContinuationToken", page.token)
    if page.next:
        _add(root, "NextContinuationToken", page.next)
    if page.after:
        _add(root, "StartAfter", _name(page, page.after))
    _entries(root, page, owners=page.owners)
    return _document(root)


def list_objects_v1(page: Page) -> bytes:
    """Return the answer of ListObjects.

    ``NextMarker`` is there whenever there is a next page, though Amazon gives it only with a
    delimiter: clients that find it use it, others take the last key.
    """
    root = _listing(page)
    _add(root, "Marker", _name(page, page.after))
    if page.next:
        _add(root, "NextMarker", _name(page, page.next))
    _entries(root, page, owners=True)
    return _document(root)


def list_buckets(buckets: Mapping[str, int]) -> bytes:
    """Return the answer of ListBuckets: names, and since when they are there (epoch ms)."""
    root = _root("ListAllMyBucketsResult")
    _owner(root)
    parent = ElementTree.SubElement(root, "Buckets")
    for name, created_ms in buckets.items():
        bucket = ElementTree.SubElement(parent, "Bucket")
        _add(bucket, "Name", name)
        _add(bucket, "CreationDate", _time(created_ms))
    return _document(root)


def bucket_location(region: str = "") -> bytes:
    """Return the answer of GetBucketLocation; without a region it says us-east-1."""
    element = _root("LocationConstraint")
    element.text = region or None
    return _document(element)


def error(failure: S3Error, resource: str, request_id: str) -> bytes:
    """Return the document of an error. ``resource`` is the path of the request as it was sent."""
    root = ElementTree.Element("Error")
    _add(root, "Code", failure.code)
    _add(root, "Message", str(failure))
    _add(root, "Resource", resource)
    _add(root, "RequestId", request_id)
    return _document(root)


def days_of_restore(body: bytes) -> int | None:
    """Return for how many days the body of a RestoreObject request asks; None if it does not say.

    The tier is checked, and not used: the service knows none. Raises S3Error if the body is too
    large or not such a document, and for a restore that writes the object elsewhere (``SELECT``,
    ``OutputLocation``).
    """
    root = _parsed(body)
    if _tag(root) != "RestoreRequest":
        raise S3Error("MalformedXML", "the document is not a RestoreRequest")
    if any(_child(root, name) is not None for name in _ELSEWHERE):
        raise S3Error("NotImplemented", "an object is restored in its place only")
    job = _child(root, "GlacierJobParameters")
    if _text(_child(root if job is None else job, "Tier")) not in ("", *TIERS):
        raise S3Error("MalformedXML", f"the tier must be one of {', '.join(TIERS)}")
    return _days(_text(_child(root, "Days")))


def _days(text: str) -> int | None:
    if not text:
        return None
    if not re.fullmatch(r"[0-9]{1,10}", text) or not 1 <= int(text) <= DAYS_MAX:
        raise S3Error("MalformedXML", "the days must be a positive number")
    return int(text)


def _parsed(body: bytes) -> ElementTree.Element:
    """Return the root of a document. Raises S3Error if it has a DOCTYPE, or any other ``<!``.

    Without one there are no entities but the five of XML, so what is parsed is as small as the
    body. The parser gets text and so ignores a declared encoding, which could hide the ``<!``. It
    still takes a NUL near the start for UTF-16.
    """
    if len(body) > BODY_MAX:
        raise S3Error("EntityTooLarge", f"the body has more than {BODY_MAX} bytes")
    try:
        text = body.decode("utf-8-sig")
        if "<!" in text or "\0" in text:
            raise S3Error(
                "MalformedXML", "the document has a DOCTYPE, a comment or a CDATA section"
            )
        return ElementTree.fromstring(text)  # noqa: S314 (nothing in it can grow)
    except (ValueError, ElementTree.ParseError):
        raise S3Error("MalformedXML", "the body is not XML in UTF-8") from None


def _tag(element: ElementTree.Element) -> str:
    """Return the name of an element. Some clients leave the name space out."""
    return element.tag.removeprefix(f"{{{NAMESPACE}}}")


def _child(parent: ElementTree.Element, name: str) -> ElementTree.Element | None:
    return next((each for each in parent if _tag(each) == name), None)


def _text(element: ElementTree.Element | None) -> str:
    return "" if element is None else (element.text or "").strip()


def _listing(page: Page) -> ElementTree.Element:
    root = _root("ListBucketResult")
    _add(root, "Name", page.bucket)
    _add(root, "Prefix", _name(page, page.prefix))
    if page.delimiter:
        _add(root, "Delimiter", _name(page, page.delimiter))
    _add(root, "MaxKeys", str(page.max_keys))
    if page.url_encoded:
        _add(root, "EncodingType", "url")
    _add(root, "IsTruncated", "true" if page.next else "false")
    return root


def _entries(root: ElementTree.Element, page: Page, *, owners: bool) -> None:
    for each in page.objects:
        element = ElementTree.SubElement(root, "Contents")
        _add(element, "Key", _name(page, each.key))
        _add(element, "LastModified", _time(each.modified_ms))
        _add(element, "ETag", each.etag)
        _add(element, "Size", str(each.size))
        if owners:
            _owner(element)
        _add(element, "StorageClass", each.storage_class)
    for prefix in page.common_prefixes:
        _add(ElementTree.SubElement(root, "CommonPrefixes"), "Prefix", _name(page, prefix))


def _owner(parent: ElementTree.Element) -> None:
    owner = ElementTree.SubElement(parent, "Owner")
    _add(owner, "ID", OWNER)
    _add(owner, "DisplayName", OWNER)


def _root(name: str) -> ElementTree.Element:
    return ElementTree.Element(name, {"xmlns": NAMESPACE})


def _add(parent: ElementTree.Element, name: str, text: str) -> None:
    element = ElementTree.SubElement(parent, name)
    element.text = _sayable(text)


def _name(page: Page, text: str) -> str:
    """Return a name as the client wants it. A space is ``%20``: ``+`` is read in two ways."""
    return quote(text, safe="/") if page.url_encoded else text


def _sayable(text: str) -> str:
    """Replace what XML cannot say, in names and messages alike."""
    return _NOT_IN_XML.sub("\ufffd", text)


def _time(at_ms: int) -> str:
    """Return a time as in ``2026-11-27T16:50:00.000Z``."""
    at = datetime(1970, 1, 1) + timedelta(milliseconds=at_ms)
    return f"{at.isoformat(timespec='milliseconds')}Z"


def _document(root: ElementTree.Element) -> bytes:
    return _DECLARATION + ElementTree.tostring(root, encoding="unicode").encode()
