"""The XML documents that S3 clients get, and the one that they send. Pure.

Used by the operations of the S3 door. Names and order of elements are those of the Amazon S3 API
Reference.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache
from urllib.parse import quote
from xml.etree import ElementTree
from xml.sax.saxutils import escape

import msgspec

from phonofs.s3door.errors import S3Error

NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
OWNER = "phonofs"

BODY_MAX = 64 * 1024
DAYS_MAX = 2**31 - 1
DAY_MS = 86_400_000
TIERS = ("Standard", "Bulk", "Expedited")
_ELSEWHERE = ("Type", "OutputLocation", "SelectParameters")

_NOT_IN_XML = re.compile("[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 cannot say, and the carriage return, which parsers change."""

_NOT_PLAIN = re.compile("[^\t\n\x20-%'-;=?-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""The same, and ``&``, ``<`` and ``>``, which are escaped. Nearly no text has any of it."""

_NOT_IN_URL = re.compile(r"[^A-Za-z0-9_.~/-]+")
"""What is percent-encoded in a name: all but the unreserved characters of RFC 3986, and ``/``."""

_OWNER = f"<Owner><ID>{OWNER}</ID><DisplayName>{OWNER}</DisplayName></Owner>"
_DECLARATION = '<?xml version="1.0" encoding="UTF-8"?>\n'


class ListedObject(msgspec.Struct, frozen=True, gc=False):
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
    return _listing(
        page,
        _element("KeyCount", str(len(page.objects) + len(page.common_prefixes))),
        "" if page.token is None else _element("ContinuationToken", page.token),
        _element("NextContinuationToken", page.next) if page.next else "",
        _element("StartAfter", _name(page, page.after)) if page.after else "",
        *_entries(page, _OWNER if page.owners else ""),
    )


def list_objects_v1(page: Page) -> bytes:
    """Return the answer of ListObjects.

    ``NextMarker`` is there whenever there is a next page, though Amazon gives it only with a
    delimiter: clients that find it use it, others take the last key.
    """
    return _listing(
        page,
        _element("Marker", _name(page, page.after)),
        _element("NextMarker", _name(page, page.next)) if page.next else "",
        *_entries(page, _OWNER),
    )


def list_buckets(buckets: Mapping[str, int]) -> bytes:
    """Return the answer of ListBuckets: names, and since when they are there (epoch ms)."""
    listed = (
        f"<Bucket>{_element('Name', name)}{_element('CreationDate', _time(created_ms))}</Bucket>"
        for name, created_ms in buckets.items()
    )
    return _document("ListAllMyBucketsResult", _OWNER, f"<Buckets>{''.join(listed)}</Buckets>")


def bucket_location(region: str = "") -> bytes:
    """Return the answer of GetBucketLocation; without a region it says us-east-1."""
    return _document("LocationConstraint", _sayable(region))


def error(failure: S3Error, resource: str, request_id: str) -> bytes:
    """Return the document of an error. ``resource`` is the path of the request as it was sent."""
    return _document(
        "Error",
        _element("Code", failure.code),
        _element("Message", str(failure)),
        _element("Resource", resource),
        _element("RequestId", request_id),
        namespace="",
    )


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


def _listing(page: Page, *elements: str) -> bytes:
    return _document(
        "ListBucketResult",
        _element("Name", page.bucket),
        _element("Prefix", _name(page, page.prefix)),
        _element("Delimiter", _name(page, page.delimiter)) if page.delimiter else "",
        _element("MaxKeys", str(page.max_keys)),
        _element("EncodingType", "url") if page.url_encoded else "",
        _element("IsTruncated", "true" if page.next else "false"),
        *elements,
    )


def _entries(page: Page, owner: str) -> Iterator[str]:
    for each in page.objects:
        yield (  # a call for each element would take as long as all the rest
            f"<Contents><Key>{_sayable(_name(page, each.key))}</Key>"
            f"<LastModified>{_time(each.modified_ms)}</LastModified>"
            f"<ETag>{_sayable(each.etag)}</ETag><Size>{each.size}</Size>{owner}"
            f"<StorageClass>{each.storage_class}</StorageClass></Contents>"
        )
    for prefix in page.common_prefixes:
        yield f"<CommonPrefixes>{_element('Prefix', _name(page, prefix))}</CommonPrefixes>"


def _element(name: str, text: str) -> str:
    return f"<{name}>{_sayable(text)}</{name}>"


def _name(page: Page, text: str) -> str:
    """Return a name as the client wants it. A space is ``%20``: ``+`` is read in two ways."""
    return _NOT_IN_URL.sub(_quoted, text) if page.url_encoded else text


def _quoted(some: re.Match[str]) -> str:
    return quote(some[0], safe="")


def _sayable(text: str) -> str:
    """Return a text as it stands in an element. What XML cannot say is replaced."""
    return escape(_NOT_IN_XML.sub("\ufffd", text)) if _NOT_PLAIN.search(text) else text


def _time(at_ms: int) -> str:
    """Return a time as in ``2026-11-27T16:50:00.000Z``."""
    day, ms = divmod(at_ms, DAY_MS)
    s, ms = divmod(ms, 1000)
    return f"{_date(day)}T{s // 3600:02}:{s // 60 % 60:02}:{s % 60:02}.{ms:03}Z"


@lru_cache(maxsize=64)  # a page is of few days
def _date(day: int) -> str:
    return (date(1970, 1, 1) + timedelta(days=day)).isoformat()


def _document(name: str, *elements: str, namespace: str = f' xmlns="{NAMESPACE}"') -> bytes:
    return f"{_DECLARATION}<{name}{namespace}>{''.join(elements)}</{name}>".encode()
