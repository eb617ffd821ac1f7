"""Fetches the bytes of objects, by the delivery method that works in their region.

Used by the client. The documentation does not say whether ``/content`` honours ``Range`` or
redirects. The first request with a ``Range`` header shows it. After a 206, ranges are used. A
redirect is followed without the token. After a 200 with more than was asked for, ranges do not
work there: then a presigned URL is asked for, and if that is refused, whole objects are streamed.
"""

import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Self

import trio

from phonofs.errors import Archived, Malformed, ServiceError, Unavailable, Untrusted
from phonofs.priority import Priority
from phonofs.service import presigned
from phonofs.service.api import Api, refused
from phonofs.service.content_headers import ContentHeaders, RangeRequest, validated_headers
from phonofs.service.presigned_cache import Key, PresignedUrl, PresignedUrlCache
from phonofs.service.records import LARGEST_OBJECT
from phonofs.service.responses import REDIRECTS
from phonofs.service.session import Ask, Chunk, Stream
from phonofs.service.url_policy import MOST_HOPS

log = logging.getLogger(__name__)


class DeliveryMethod(StrEnum):
    """How a region delivers content."""

    RANGE = "range"
    PRESIGN = "presign"
    REDIRECT = "redirect"
    STREAM = "stream"


RANGE, PRESIGN, REDIRECT, STREAM = DeliveryMethod
REMEMBERED = frozenset({RANGE, PRESIGN, REDIRECT})
"""Methods that are believed from an earlier run; ``stream``, the worst, is determined again."""

STRIKES = 3
"""After this many ignored ranges in a row, a region that honoured them no longer does."""

LINK_STRIKES = 2
"""After this many unreachable fresh links in a row, the method counts as failed."""

FAILED_S = 600.0
"""How long a failed method is not used. Not for good: with whole streams, a far seek waits long."""

_LINK_REFUSED = (400, 401, 403)
"""Statuses with which object stores refuse an expired URL (S3: 403; some proxies: 400)."""

_LINK_DEAD = (*_LINK_REFUSED, 404, 410)
"""After these a URL is not used again, and a cached one is renewed: the object may have moved."""


@dataclass(frozen=True, slots=True)
class ContentRequest:
    """A request for bytes of one object. ``size`` is its length according to its record."""

    region: str
    id: str
    size: int
    wanted: RangeRequest
    urgent: bool | Priority
    fingerprint: str = ""

    @property
    def key(self) -> Key:
        """The key of its link; new content, of another fingerprint, may have another link."""
        return self.region, self.id, self.fingerprint


class _MethodFailed(Exception):
    """A fresh link does not work. ``reason`` says why; ``error`` is raised to the reader."""

    def __init__(self, error: ServiceError, reason: str = "") -> None:
        super().__init__(str(error))
        self.error = error
        self.reason = reason or str(error)


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why a method failed, and until when it is not used (trio's clock)."""

    reason: str
    until: float


class Body:
    """A response body with bytes of an object: an async iterator over chunks, in order.

    start       offset of the first byte: that of the request, or 0 if only the whole is delivered
    stop        offset after the last byte announced; None if none was
    total       length of the whole object, if the service said it
    etag        its ETag as sent; '' if there is none
    sent_at     when the request was sent (trio's clock)
    framed      whether a length or a last chunk marks the end; without, it may have been cut off
    is_partial  whether the response says that it is a part of the object

    A chunk that is a memoryview is valid only until the next one is asked for. Raises Unavailable
    if the body ends early, Malformed if it is longer than announced.
    """

    def __init__(self, stream: Stream, headers: ContentHeaders, what: str) -> None:
        self.start = headers.start
        self.stop = headers.stop
        self.total = headers.total
        self.etag = headers.etag
        self.sent_at = stream.sent_at
        self.framed = headers.framed
        self.is_partial = headers.is_partial
        self._reached = headers.start
        self._stream = stream
        self._what = what

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Chunk:
        """The next chunk, never empty."""
        while True:
            try:
                chunk = await anext(self._stream)
            except StopAsyncIteration:
                if self.stop is not None and self._reached < self.stop:
                    raise Unavailable(f"the content of {self._what} ended early") from None
                raise
            self._reached += len(chunk)
            if self._reached > (LARGEST_OBJECT if self.stop is None else self.stop):
                raise Malformed(f"the content of {self._what} is longer than promised")
            if len(chunk):
                return chunk

    async def aclose(self) -> None:
        """Close the body and give its slot back, within 2 s."""
        await self._stream.aclose()


class ContentFetcher:
    """Opens bodies by the delivery method that works in each region.

    Owns what is known of each region and the presigned URLs. A region's method, and whether it
    can deliver from the middle of an object, is learned from successful responses only. A method
    counts as failed only once another one worked.

    delivery_methods  the method of each region
    _seekable         whether a body can start in the middle of an object
    _strikes          ranges that were ignored in a row
    _link_strikes     fresh links in a row that could not be reached
    _failures         the methods that are not used for a while
    _retried          regions whose failed methods are being tried again
    """

    def __init__(self, api: Api, delivery_methods: Mapping[str, str]) -> None:
        self._api = api
        self.delivery_methods = {
            region: DeliveryMethod(method)
            for region, method in delivery_methods.items()
            if method in REMEMBERED
        }
        self._seekable = dict.fromkeys(self.delivery_methods, True)
        self._strikes: dict[str, int] = {}
        self._link_strikes: dict[str, int] = {}
        self._failures: dict[str, dict[str, _Failure]] = {}
        self._retried: set[str] = set()
        self._links = PresignedUrlCache()

    def seekable(self, region: str) -> bool | None:
        """Whether a body can start in the middle of an object; None if that is not known yet."""
        return self._seekable.get(region)

    def forget(self, region: str) -> None:
        """Determine the region's method again with the next request."""
        self.delivery_methods.pop(region, None)
        self._seekable.pop(region, None)
        self._strikes.pop(region, None)

    def _forget_method(self, region: str, method: DeliveryMethod) -> None:
        if self.delivery_methods.get(region) == method:
            self.forget(region)

    @property
    def failed(self) -> dict[str, dict[str, str]]:
        """For each region, the methods that failed and are not used for now, and why."""
        return {
            region: {method: failure.reason for method, failure in failures.items()}
            for region, failures in self._failures.items()
        }

    async def open(self, request: ContentRequest) -> Body:
        """Return the body for a request; the caller closes it."""
        self._try_again(request.region)
        method = self.delivery_methods.get(request.region)
        if method == STREAM:
            return await self._open_whole(request, STREAM)
        if method in (PRESIGN, REDIRECT):
            body = await self._by_link(request, method)
            if body is not None:
                return body
            self.forget(request.region)
        return await self._open_direct(request)

    async def open_whole(self, request: ContentRequest) -> Body:
        """Return the whole body, asked for without a range; nothing is learned from it."""
        return await self._open_whole(request, None)

    def _try_again(self, region: str) -> None:
        """Determine the method again if one failed long enough ago."""
        now = trio.current_time()
        if any(failure.until <= now for failure in self._failures.get(region, {}).values()):
            for method, failure in self._failures[region].items():
                self._failures[region][method] = _Failure(failure.reason, now + FAILED_S)
            self._link_strikes[region] = LINK_STRIKES - 1
            self.forget(region)
            self._retried.add(region)

    def _has_failed(self, region: str, method: DeliveryMethod) -> bool:
        return region not in self._retried and method in self._failures.get(region, {})

    async def _open_direct(self, request: ContentRequest) -> Body:
        stream = await self._ask_service(request, ranged=True)
        if stream.status in REDIRECTS:
            link = await self._redirected(request, stream)
            body = await self._by_link(request, REDIRECT, link)
            if body is None:
                self._failures.pop(request.region, None)  # there is no other method
                raise Unavailable(f"the links to {request.wanted.what} are refused")
            return body
        body = await self._body(request, stream, RANGE)
        if stream.status != 200 or body.is_partial or self._is_useful(request, body):
            return body
        await body.aclose()
        linked = await self._by_link(request, PRESIGN)
        return linked if linked is not None else await self._open_whole(request, STREAM)

    async def _by_link(
        self, request: ContentRequest, method: DeliveryMethod, link: PresignedUrl | None = None
    ) -> Body | None:
        """Return the body behind a link, or by another method if fresh links do not work.

        None if the service gives no link by this method, or the method failed lately. If no other
        method works either, the error is that of the link.
        """
        if self._has_failed(request.region, method):
            return None
        try:
            body = await self._open_linked(request, method, link)
        except _MethodFailed as failed:
            return await self._by_another_method(request, method, failed)
        return body

    async def _by_another_method(
        self, request: ContentRequest, method: DeliveryMethod, failed: _MethodFailed
    ) -> Body:
        region, error = request.region, failed.error
        self._retried.discard(region)
        if isinstance(error, Unavailable) and not isinstance(error, Untrusted):
            strikes = self._link_strikes[region] = self._link_strikes.get(region, 0) + 1
            if strikes < LINK_STRIKES:
                raise error
        failures = self._failures.setdefault(region, {})
        failures[method] = _Failure(failed.reason, trio.current_time() + FAILED_S)
        longer_ago = len(failures) > 1
        self.forget(region)
        body = None
        try:
            with suppress(ServiceError):
                body = await self._without(request, method)
        finally:
            if body is None:  # also if it was cancelled: there is no other method
                self._failures.pop(region, None)
        if body is None and longer_ago:
            raise Unavailable(str(error)) from error  # the next try uses the other method again
        if body is None:
            raise error
        log.warning("region %s: content by way of %s failed: %s", region, method, failed.reason)
        return body

    async def _without(self, request: ContentRequest, method: DeliveryMethod) -> Body | None:
        """Return the body by a method that neither failed nor uses the same links."""
        if method == REDIRECT:
            return await self._by_link(request, PRESIGN)
        return await self._open_direct(request)

    def _is_useful(self, request: ContentRequest, body: Body) -> bool:
        """Whether to use a whole body that came in response to a range.

        Yes, if the whole was wanted (which shows nothing about ranges), if ``If-Range`` may have
        made it whole, if its length is not that of the object (it may be something else, from
        which nothing is learned), and if the region honoured ranges before and may do so again.
        """
        if request.wanted.is_whole(body.total) or request.wanted.etag:
            return True
        if body.total not in (None, request.size):
            return True
        if self.delivery_methods.get(request.region) != RANGE:
            return False
        strikes = self._strikes[request.region] = self._strikes.get(request.region, 0) + 1
        if strikes < STRIKES:
            return True
        log.info("region %s no longer honours ranges", request.region)
        self.forget(request.region)
        return False

    async def _open_whole(self, request: ContentRequest, method: DeliveryMethod | None) -> Body:
        request = replace(request, wanted=request.wanted.whole())
        stream = await self._ask_service(request, ranged=False)
        if stream.status in REDIRECTS:
            stream = await self._get(request, await self._redirected(request, stream), ranged=False)
        return await self._body(request, stream, method)

    async def _open_linked(
        self, request: ContentRequest, method: DeliveryMethod, link: PresignedUrl | None
    ) -> Body | None:
        """Return the body behind a link; None if the service gives no link by this method.

        A refused link is renewed once. A link that cannot be reached is not used again: it may
        stay unreachable until it expires. Raises _MethodFailed if fresh links do not work.
        """
        known = self._links.get(request.key) if link is None else None
        first = link or known or await self._link(request, method)
        if first is None:
            return None
        stream = await self._follow(request, first, fresh=first is not known)
        if stream.status in (_LINK_REFUSED if first is not known else _LINK_DEAD):
            error = await refused(stream, request.wanted.what)
            if isinstance(error, Archived):
                raise error
            renewed = await self._link(request, method)
            if renewed is None:
                self._forget_method(request.region, method)
                raise Unavailable(f"the link to {request.wanted.what} is refused") from error
            stream = await self._follow(request, renewed, fresh=True)
        if stream.status in _LINK_REFUSED:
            error = await refused(stream, request.wanted.what)
            if isinstance(error, Archived):
                raise error
            raise _MethodFailed(error, f"a fresh link is answered with status {stream.status}")
        self._link_strikes.pop(request.region, None)
        return await self._body(request, stream, method)

    async def _follow(self, request: ContentRequest, link: PresignedUrl, *, fresh: bool) -> Stream:
        """Request a link; forget it if it does not work."""
        try:
            stream = await self._get(request, link, ranged=True)
        except ServiceError as error:
            self._links.drop(request.key, link)
            if fresh and isinstance(error, Unavailable):
                raise _MethodFailed(error) from error
            raise
        if stream.status in _LINK_DEAD:
            self._links.drop(request.key, link)
        return stream

    async def _link(self, request: ContentRequest, method: DeliveryMethod) -> PresignedUrl | None:
        async with self._links.turn(request.key):
            link = self._links.get(request.key)
            if link is not None:
                return link
            return await (
                self._presign(request) if method == PRESIGN else self._ask_redirect(request)
            )

    async def _presign(self, request: ContentRequest) -> PresignedUrl | None:
        url = self._api.url(
            request.region, "objects", request.id, "content", query={"presignUrl": "true"}
        )
        stream = await self._api.open(Ask("presign", url), urgent=request.urgent)
        if stream.status in REDIRECTS:
            return await self._redirected(request, stream)
        if stream.status in (400, 403, 405, 406, 415, 422, 501):
            await stream.aclose()
            return None
        if stream.status != 200:
            raise await refused(stream, request.wanted.what)
        try:
            answer = presigned.parse_presigned(await stream.read(presigned.LARGEST_ANSWER))
        except Malformed:  # the content itself: the parameter was ignored
            answer = None
        finally:
            await stream.aclose()
        return None if answer is None else self._remember(request, stream, answer, True)

    async def _ask_redirect(self, request: ContentRequest) -> PresignedUrl | None:
        stream = await self._ask_service(request, ranged=True)
        if stream.status in REDIRECTS:
            return await self._redirected(request, stream)
        if stream.status in (200, 206, 416):
            await stream.aclose()
            return None
        raise await refused(stream, request.wanted.what)

    async def _redirected(self, request: ContentRequest, stream: Stream) -> PresignedUrl:
        await stream.aclose()
        return self._remember(request, stream, stream.headers.get("location", ""), False)

    def _remember(
        self, request: ContentRequest, stream: Stream, url: str, presign: bool
    ) -> PresignedUrl:
        """Make a link of a URL from a response, and cache it for its lifetime.

        Without a lifetime, a presigned URL counts for half an hour; a redirect may work only
        once and is not cached.
        """
        target = self._api.transport.targets.target(url, stream.url)
        life_s = presigned.life_s(target, stream.headers.get("date"), time.time())
        if life_s is None:
            life_s = presigned.DEFAULT_LIFE_S - presigned.LARGEST_MARGIN_S if presign else 0.0
        link = PresignedUrl(target, trio.current_time() + life_s)
        if life_s > 0:
            self._links.put(request.key, link)
        return link

    async def _ask_service(self, request: ContentRequest, *, ranged: bool) -> Stream:
        url = self._api.url(request.region, "objects", request.id, "content")
        headers = request.wanted.headers() if ranged else {}
        return await self._api.open(Ask("content", url, headers=headers), urgent=request.urgent)

    async def _get(self, request: ContentRequest, link: PresignedUrl, *, ranged: bool) -> Stream:
        """Request a link without the token, and follow further redirects."""
        url = link.url
        transport = self._api.transport
        headers = request.wanted.headers() if ranged else {}
        for _ in range(MOST_HOPS):
            stream = await transport.open(Ask("link", url, headers=headers), urgent=request.urgent)
            if stream.status not in REDIRECTS:
                return stream
            await stream.aclose()
            url = transport.targets.target(stream.headers.get("location", ""), url)
        raise Malformed(f"the service redirects {request.wanted.what} too often")

    async def _body(
        self, request: ContentRequest, stream: Stream, method: DeliveryMethod | None
    ) -> Body:
        """Return the body of a successful response, and learn from it; else raise its error."""
        if stream.status not in (200, 206, 416):
            raise await refused(stream, request.wanted.what)
        try:
            headers = validated_headers(stream.status, stream.headers, request.wanted)
        except BaseException:
            await stream.aclose()
            raise
        self._learn(request, stream.status, method, headers)
        return Body(stream, headers, request.wanted.what)

    def _learn(
        self,
        request: ContentRequest,
        status: int,
        method: DeliveryMethod | None,
        headers: ContentHeaders,
    ) -> None:
        if method is None or status == 416:
            return
        if headers.is_partial != (method == RANGE) and method in (RANGE, STREAM):
            return  # this response does not show that the method works
        region = request.region
        if self.delivery_methods.get(region) != method:
            self.delivery_methods[region] = method
            log.info("region %s gives content by way of: %s", region, method)
        if region in self._retried and method != STREAM:
            self._retried.discard(region)
            self._failures.pop(region, None)
        if headers.is_partial:
            self._seekable[region] = True
            self._strikes.pop(region, None)
        elif method == STREAM or not (
            request.wanted.is_whole(headers.total) or request.wanted.etag
        ):
            self._seekable[region] = False
