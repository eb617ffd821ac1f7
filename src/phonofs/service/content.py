"""The bytes of objects: which way a region gives them, found out once, and taken.

Used by the client. The documents do not say whether ``/content`` honours ``Range`` or redirects,
so the first request with a ``Range`` header tells: 206, ranges work; a redirect, follow it
without the token; 200 although a part was wanted, ranges do not work there: then a presigned URL
is asked for, and where that is refused, the whole is streamed.
"""

import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
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

RANGE = "range"
PRESIGN = "presign"
REDIRECT = "redirect"
STREAM = "stream"
REMEMBERED = frozenset({RANGE, PRESIGN, REDIRECT})
"""The ways believed from an earlier run. ``stream`` is the worst, so it is found out anew."""

STRIKES = 3
"""So many ranges ignored one after the other in a region that honoured them: it has changed."""

LINK_STRIKES = 2
"""So many fresh links, one after the other, that cannot be reached: one may be bad luck."""

BARRED_S = 600.0
"""How long a way that failed is left alone: whole streams cost a seek far ahead its patience."""

_LINK_REFUSED = (400, 401, 403)
"""What object stores answer to a URL that is no longer valid (S3: 403; some proxies: 400)."""

_LINK_DEAD = (*_LINK_REFUSED, 404, 410)
"""After these it is not used again, and an old one is renewed: the object may lie elsewhere."""


@dataclass(frozen=True, slots=True)
class ContentRequest:
    """Bytes of one object, ``size`` bytes long by its record; ``urgent`` when somebody waits."""

    region: str
    id: str
    size: int
    wanted: RangeRequest
    urgent: bool | Priority
    fingerprint: str = ""

    @property
    def key(self) -> Key:
        """What its link is remembered under: another content may lie elsewhere."""
        return self.region, self.id, self.fingerprint


class _NoWay(Exception):
    """A fresh link is of no use: ``reason`` says why, ``error`` is what its reader is told."""

    def __init__(self, error: ServiceError, reason: str = "") -> None:
        super().__init__(str(error))
        self.error = error
        self.reason = reason or str(error)


@dataclass(frozen=True, slots=True)
class _Barred:
    """A way that failed: why, and until when it is left alone (trio's clock)."""

    reason: str
    until: float


class Body:
    """Bytes of an object on their way: an async iterator over chunks, in order.

    start  offset of the first byte that comes: what was asked for, or 0 where only the whole is
           to be had
    stop   offset after the last promised byte, None where it is not said
    total  length of the whole object where the service said so
    etag   its ETag as sent, '' where there is none
    sent_at  when its request was sent (trio's clock)
    framed whether its end shows, by a length or a last chunk; otherwise it may have been cut
    part   whether the answer says that it is a part

    A chunk that is a memoryview holds only until the next one is asked for. Raises Unavailable
    where the body ends early, Malformed where it is longer than promised.
    """

    def __init__(self, stream: Stream, headers: ContentHeaders, what: str) -> None:
        self.start = headers.start
        self.stop = headers.stop
        self.total = headers.total
        self.etag = headers.etag
        self.sent_at = stream.sent_at
        self.framed = headers.framed
        self.part = headers.part
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
    """Opens bodies.

    Owns what is known of each region (its way, whether one can start in the middle, how often
    in a row it ignored a range, which ways failed) and the links. Something is learned from
    successful answers only; a way counts as failed only once another one worked.
    """

    def __init__(self, api: Api, delivery_methods: Mapping[str, str]) -> None:
        self._api = api
        self.delivery_methods = {
            region: way for region, way in delivery_methods.items() if way in REMEMBERED
        }
        self._seekable = dict.fromkeys(self.delivery_methods, True)
        self._strikes: dict[str, int] = {}
        self._link_strikes: dict[str, int] = {}
        self._barred: dict[str, dict[str, _Barred]] = {}
        self._retried: set[str] = set()
        self._links = PresignedUrlCache()

    def seekable(self, region: str) -> bool | None:
        """Whether a body can start in the middle of an object; None while that is not known."""
        return self._seekable.get(region)

    def forget(self, region: str) -> None:
        """Find the region's way out anew with the next request."""
        self.delivery_methods.pop(region, None)
        self._seekable.pop(region, None)
        self._strikes.pop(region, None)

    def _lose(self, region: str, way: str) -> None:
        if self.delivery_methods.get(region) == way:
            self.forget(region)

    @property
    def failed(self) -> dict[str, dict[str, str]]:
        """The ways that are left alone in each region since they failed, and why."""
        return {
            region: {way: barred.reason for way, barred in delivery_methods.items()}
            for region, delivery_methods in self._barred.items()
        }

    async def open(self, request: ContentRequest) -> Body:
        """The body for a wish; the caller closes it."""
        self._try_again(request.region)
        way = self.delivery_methods.get(request.region, "")
        if way == STREAM:
            return await self._open_whole(request, STREAM)
        if way in (PRESIGN, REDIRECT):
            body = await self._by_link(request, way)
            if body is not None:
                return body
            self.forget(request.region)
        return await self._open_direct(request)

    async def open_whole(self, request: ContentRequest) -> Body:
        """The body from the first byte, asked for without a range; nothing is learned of it."""
        return await self._open_whole(request, "")

    def _try_again(self, region: str) -> None:
        """Find the way out anew where one was left alone for long enough."""
        now = trio.current_time()
        if any(barred.until <= now for barred in self._barred.get(region, {}).values()):
            for way, barred in self._barred[region].items():
                self._barred[region][way] = _Barred(barred.reason, now + BARRED_S)
            self._link_strikes[region] = LINK_STRIKES - 1
            self.forget(region)
            self._retried.add(region)

    def _is_barred(self, region: str, way: str) -> bool:
        return region not in self._retried and way in self._barred.get(region, {})

    async def _open_direct(self, request: ContentRequest) -> Body:
        stream = await self._ask_service(request, ranged=True)
        if stream.status in REDIRECTS:
            link = await self._redirected(request, stream)
            body = await self._by_link(request, REDIRECT, link)
            if body is None:
                self._barred.pop(request.region, None)  # whoever comes here has no other way
                raise Unavailable(f"the links to {request.wanted.what} are refused")
            return body
        body = await self._body(request, stream, RANGE)
        if stream.status != 200 or body.part or self._is_useful(request, body):
            return body
        await body.aclose()
        linked = await self._by_link(request, PRESIGN)
        return linked if linked is not None else await self._open_whole(request, STREAM)

    async def _by_link(
        self, request: ContentRequest, way: str, link: PresignedUrl | None = None
    ) -> Body | None:
        """The body by way of a link, or by another way where fresh links are of no use.

        None where the service gives no link that way, or that way is left alone for now. Where
        no other way works either, the error is that of the link.
        """
        if self._is_barred(request.region, way):
            return None
        try:
            body = await self._open_linked(request, way, link)
        except _NoWay as no:
            return await self._by_another_way(request, way, no)
        return body

    async def _by_another_way(self, request: ContentRequest, way: str, no: _NoWay) -> Body:
        region, error = request.region, no.error
        self._retried.discard(region)
        if isinstance(error, Unavailable) and not isinstance(error, Untrusted):
            strikes = self._link_strikes[region] = self._link_strikes.get(region, 0) + 1
            if strikes < LINK_STRIKES:
                raise error
        barred = self._barred.setdefault(region, {})
        barred[way] = _Barred(no.reason, trio.current_time() + BARRED_S)
        longer_ago = len(barred) > 1
        self.forget(region)
        body = None
        try:
            with suppress(ServiceError):
                body = await self._without(request, way)
        finally:
            if body is None:  # also if it was cancelled: no way is left to be taken instead
                self._barred.pop(region, None)
        if body is None and longer_ago:
            raise Unavailable(str(error)) from error  # the next try takes the other way again
        if body is None:
            raise error
        log.warning("region %s: content by way of %s failed: %s", region, way, no.reason)
        return body

    async def _without(self, request: ContentRequest, way: str) -> Body | None:
        """The body in a way that is neither barred nor ends at the same links."""
        if way == REDIRECT:
            return await self._by_link(request, PRESIGN)
        return await self._open_direct(request)

    def _is_useful(self, request: ContentRequest, body: Body) -> bool:
        """Whether to take a whole body that came for a part.

        Yes where the whole was wanted (which says nothing about ranges), where ``If-Range`` may
        have made it whole, where it is not as long as the object (it may be something else, from
        which nothing is learned), and where the region honoured ranges before and may again.
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

    async def _open_whole(self, request: ContentRequest, way: str) -> Body:
        request = replace(request, wanted=request.wanted.whole())
        stream = await self._ask_service(request, ranged=False)
        if stream.status in REDIRECTS:
            stream = await self._get(request, await self._redirected(request, stream), ranged=False)
        return await self._body(request, stream, way)

    async def _open_linked(
        self, request: ContentRequest, way: str, link: PresignedUrl | None
    ) -> Body | None:
        """The body behind a link; None where the service gives no link that way.

        One that is refused is renewed once. A link that leads nowhere is not used again: it may
        do so for all of its life. Raises _NoWay where fresh ones are of no use.
        """
        known = self._links.get(request.key) if link is None else None
        first = link or known or await self._link(request, way)
        if first is None:
            return None
        stream = await self._follow(request, first, fresh=first is not known)
        if stream.status in (_LINK_REFUSED if first is not known else _LINK_DEAD):
            error = await refused(stream, request.wanted.what)
            if isinstance(error, Archived):
                raise error
            renewed = await self._link(request, way)
            if renewed is None:
                self._lose(request.region, way)
                raise Unavailable(f"the link to {request.wanted.what} is refused") from error
            stream = await self._follow(request, renewed, fresh=True)
        if stream.status in _LINK_REFUSED:
            error = await refused(stream, request.wanted.what)
            if isinstance(error, Archived):
                raise error
            raise _NoWay(error, f"a fresh link is answered with status {stream.status}")
        self._link_strikes.pop(request.region, None)
        return await self._body(request, stream, way)

    async def _follow(self, request: ContentRequest, link: PresignedUrl, *, fresh: bool) -> Stream:
        """The answer behind a link, which is forgotten where it leads nowhere."""
        try:
            stream = await self._get(request, link, ranged=True)
        except ServiceError as error:
            self._links.drop(request.key, link)
            if fresh and isinstance(error, Unavailable):
                raise _NoWay(error) from error
            raise
        if stream.status in _LINK_DEAD:
            self._links.drop(request.key, link)
        return stream

    async def _link(self, request: ContentRequest, way: str) -> PresignedUrl | None:
        async with self._links.turn(request.key):
            link = self._links.get(request.key)
            if link is not None:
                return link
            return await (self._presign(request) if way == PRESIGN else self._ask_redirect(request))

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
        """The link to a URL from an answer, kept for as long as it says that it lives.

        A presigned URL that does not say lives half an hour; a redirect that does not say may
        be good for once only.
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
        """The answer behind a link, without the token; further redirects are followed."""
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

    async def _body(self, request: ContentRequest, stream: Stream, way: str) -> Body:
        """The body of a successful answer, from which ``way`` is learned; else its error."""
        if stream.status not in (200, 206, 416):
            raise await refused(stream, request.wanted.what)
        try:
            headers = validated_headers(stream.status, stream.headers, request.wanted)
        except BaseException:
            await stream.aclose()
            raise
        self._learn(request, stream.status, way, headers)
        return Body(stream, headers, request.wanted.what)

    def _learn(
        self, request: ContentRequest, status: int, way: str, headers: ContentHeaders
    ) -> None:
        if not way or status == 416:
            return
        if headers.part != (way == RANGE) and way in (RANGE, STREAM):
            return  # the answer is not of the kind that the way is known by
        region = request.region
        if self.delivery_methods.get(region) != way:
            self.delivery_methods[region] = way
            log.info("region %s gives content by way of: %s", region, way)
        if region in self._retried and way != STREAM:
            self._retried.discard(region)
            self._barred.pop(region, None)
        if headers.part:
            self._seekable[region] = True
            self._strikes.pop(region, None)
        elif way == STREAM or not (request.wanted.is_whole(headers.total) or request.wanted.etag):
            self._seekable[region] = False
