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
from typing import Self

import httpx
import trio

from phonofs.errors import Archived, Malformed, ServiceError, Unavailable, Untrusted
from phonofs.service import presigned
from phonofs.service.content_headers import ContentHeaders, RangeRequest, validated_headers
from phonofs.service.delivery import (
    PRESIGN,
    RANGE,
    REDIRECT,
    STREAM,
    DeliveryMethod,
    DeliveryMethods,
)
from phonofs.service.errors_map import REDIRECTS
from phonofs.service.limiter import Permit
from phonofs.service.presigned import PresignedUrl, PresignedUrlCache
from phonofs.service.record_limits import LARGEST_OBJECT
from phonofs.service.session import Transport, new_request
from phonofs.service.streaming_response import Chunk, refused, stream_of
from phonofs.service.url_policy import MOST_HOPS

log = logging.getLogger(__name__)

_LINK_REFUSED = (400, 401, 403)
"""Statuses with which object stores refuse an expired URL (S3: 403; some proxies: 400)."""

_LINK_DEAD = (*_LINK_REFUSED, 404, 410)
"""After these a URL is not used again, and a cached one is renewed: the object may have moved."""


class _MethodFailed(Exception):
    """A fresh link does not work. ``reason`` says why; ``error`` is raised to the reader."""

    def __init__(self, error: ServiceError, reason: str = "") -> None:
        super().__init__(str(error))
        self.error = error
        self.reason = reason or str(error)


class Body:
    """A response body with bytes of an object: an async iterator over chunks, in order.

    start       offset of the first byte: that of the request, or 0 if only the whole is delivered
    stop        offset after the last byte announced; None if none was
    total       length of the whole object, if the service said it
    etag        its ETag as sent; '' if there is none
    sent_at     when the request was sent (trio's clock)
    framed      whether a length or a last chunk marks the end; without, it may have been cut off
    is_partial  whether the response says that it is a part of the object

    A chunk that is a memoryview is valid only until the caller waits for anything. Raises
    Unavailable if the body ends early, Malformed if it is longer than announced.
    """

    def __init__(self, response: httpx.Response, headers: ContentHeaders, what: str) -> None:
        self.start = headers.start
        self.stop = headers.stop
        self.total = headers.total
        self.etag = headers.etag
        self.sent_at = response.extensions["sent_at"]
        self.framed = headers.framed
        self.is_partial = headers.is_partial
        self._reached = headers.start
        self._stream = stream_of(response)
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

    def allow(self, most_bytes: int) -> None:
        """Take at most this many bytes for the next chunk; what else came stays in the socket.

        Through a proxy, and if the length of the body is not known, chunks have any size.
        """
        self._stream.allow(most_bytes)

    @property
    def permit(self) -> Permit:
        """The permit that the body holds until it is closed."""
        return self._stream.permit

    async def aclose(self) -> None:
        """Close the body and release its permit, within 2 s."""
        await self._stream.aclose()


class ContentFetcher:
    """Opens bodies by the delivery method that works in each region.

    Owns what is known of the regions (``methods``) and the presigned URLs.
    """

    def __init__(
        self, transport: Transport, auth: httpx.Auth, known_methods: Mapping[str, str]
    ) -> None:
        """``auth`` is for the service only, not for object stores.

        ``known_methods`` has the delivery methods of an earlier run.
        """
        self.methods = DeliveryMethods(known_methods)
        self._transport = transport
        self._auth = auth
        self._links = PresignedUrlCache()

    async def open(self, request: RangeRequest) -> Body:
        """Return the body for a request; the caller closes it."""
        self.methods.retry_failed(request.region)
        method = self.methods.get(request.region)
        if method == STREAM:
            return await self._open_whole(request, STREAM)
        if method in (PRESIGN, REDIRECT):
            body = await self._by_link(request, method)
            if body is not None:
                return body
            self.methods.forget(request.region)
        return await self._open_direct(request)

    async def open_whole(self, request: RangeRequest) -> Body:
        """Return the whole body, asked for without a range; nothing is learned from it."""
        return await self._open_whole(request, None)

    async def _open_direct(self, request: RangeRequest) -> Body:
        response = await self._ask_service(request, ranged=True)
        if response.status_code in REDIRECTS:
            link = await self._redirected(request, response)
            body = await self._by_link(request, REDIRECT, link)
            if body is None:
                self.methods.forgive(request.region)
                raise Unavailable(f"the links to {request.what} are refused")
            return body
        body = await self._body(request, response, RANGE)
        if response.status_code != 200 or body.is_partial or self._is_useful(request, body):
            return body
        await body.aclose()
        linked = await self._by_link(request, PRESIGN)
        return linked if linked is not None else await self._open_whole(request, STREAM)

    async def _by_link(
        self, request: RangeRequest, method: DeliveryMethod, link: PresignedUrl | None = None
    ) -> Body | None:
        """Return the body behind a link, or by another method if fresh links do not work.

        None if the service gives no link by this method, or the method failed lately. If no other
        method works either, the error is that of the link.
        """
        if self.methods.has_failed(request.region, method):
            return None
        try:
            return await self._open_linked(request, method, link)
        except _MethodFailed as failed:
            return await self._by_another_method(request, method, failed)

    async def _by_another_method(
        self, request: RangeRequest, method: DeliveryMethod, failed: _MethodFailed
    ) -> Body:
        region, error = request.region, failed.error
        self.methods.end_retry(region)
        unreachable = isinstance(error, Unavailable) and not isinstance(error, Untrusted)
        if unreachable and not self.methods.link_unreachable(region):
            raise error
        longer_ago = self.methods.fail(region, method, failed.reason)
        body = None
        try:
            with suppress(ServiceError):
                body = await self._without(request, method)
        finally:
            if body is None:  # also if it was cancelled: there is no other method
                self.methods.forgive(region)
        if body is None and longer_ago:
            raise Unavailable(str(error)) from error  # the next try uses the other method again
        if body is None:
            raise error
        log.warning("region %s: content by way of %s failed: %s", region, method, failed.reason)
        return body

    async def _without(self, request: RangeRequest, method: DeliveryMethod) -> Body | None:
        """Return the body by a method that neither failed nor uses the same links."""
        if method == REDIRECT:
            return await self._by_link(request, PRESIGN)
        return await self._open_direct(request)

    def _is_useful(self, request: RangeRequest, body: Body) -> bool:
        """Whether to use a whole body that came in response to a range.

        Yes, if the whole was wanted (which shows nothing about ranges), if ``If-Range`` may have
        made it whole, if its length is not that of the object (it may be something else, from
        which nothing is learned), and if the region honoured ranges before and may do so again.
        """
        if request.is_whole(body.total) or request.etag:
            return True
        if body.total not in (None, request.size):
            return True
        return self.methods.range_ignored(request.region)

    async def _open_whole(self, request: RangeRequest, method: DeliveryMethod | None) -> Body:
        request = request.whole()
        response = await self._ask_service(request, ranged=False)
        if response.status_code in REDIRECTS:
            response = await self._get(
                request, await self._redirected(request, response), ranged=False
            )
        return await self._body(request, response, method)

    async def _open_linked(
        self, request: RangeRequest, method: DeliveryMethod, link: PresignedUrl | None
    ) -> Body | None:
        """Return the body behind a link; None if the service gives no link by this method.

        A refused link is renewed once. A link that cannot be reached is not used again: it may
        stay unreachable until it expires. Raises _MethodFailed if fresh links do not work.
        """
        known = self._links.get(request.key) if link is None else None
        first = link or known or await self._link(request, method)
        if first is None:
            return None
        response = await self._follow(request, first, fresh=first is not known)
        if response.status_code in (_LINK_REFUSED if first is not known else _LINK_DEAD):
            error = await refused(response, request.what)
            if isinstance(error, Archived):
                raise error
            renewed = await self._link(request, method)
            if renewed is None:
                self.methods.forget(request.region, method)
                raise Unavailable(f"the link to {request.what} is refused") from error
            response = await self._follow(request, renewed, fresh=True)
        if response.status_code in _LINK_REFUSED:
            error = await refused(response, request.what)
            if isinstance(error, Archived):
                raise error
            raise _MethodFailed(
                error, f"a fresh link is answered with status {response.status_code}"
            )
        self.methods.link_reached(request.region)
        return await self._body(request, response, method)

    async def _follow(
        self, request: RangeRequest, link: PresignedUrl, *, fresh: bool
    ) -> httpx.Response:
        """Request a link; forget it if it does not work."""
        try:
            response = await self._get(request, link, ranged=True)
        except ServiceError as error:
            self._links.drop(request.key, link)
            if fresh and isinstance(error, Unavailable):
                raise _MethodFailed(error) from error
            raise
        if response.status_code in _LINK_DEAD:
            self._links.drop(request.key, link)
        return response

    async def _link(self, request: RangeRequest, method: DeliveryMethod) -> PresignedUrl | None:
        async with self._links.lock(request.key):
            link = self._links.get(request.key)
            if link is not None:
                return link
            return await (
                self._presign(request) if method == PRESIGN else self._ask_redirect(request)
            )

    async def _presign(self, request: RangeRequest) -> PresignedUrl | None:
        url = self._transport.url(
            request.region, "objects", request.id, "content", query={"presignUrl": "true"}
        )
        response = await self._ask(request, new_request("presign", url))
        if response.status_code in REDIRECTS:
            return await self._redirected(request, response)
        if response.status_code in (400, 403, 405, 406, 415, 422, 501):
            await response.aclose()
            return None
        if response.status_code != 200:
            raise await refused(response, request.what)
        try:
            answer = presigned.parse_presigned(
                await stream_of(response).read(presigned.LARGEST_ANSWER)
            )
        except Malformed:  # the content itself: the parameter was ignored
            answer = None
        finally:
            await response.aclose()
        return None if answer is None else self._remember(request, response, answer, True)

    async def _ask_redirect(self, request: RangeRequest) -> PresignedUrl | None:
        response = await self._ask_service(request, ranged=True)
        if response.status_code in REDIRECTS:
            return await self._redirected(request, response)
        if response.status_code in (200, 206, 416):
            await response.aclose()
            return None
        raise await refused(response, request.what)

    async def _redirected(self, request: RangeRequest, response: httpx.Response) -> PresignedUrl:
        await response.aclose()
        return self._remember(request, response, response.headers.get("location", ""), False)

    def _remember(
        self, request: RangeRequest, response: httpx.Response, url: str, presign: bool
    ) -> PresignedUrl:
        """Make a link of a URL from a response, and cache it for its lifetime.

        Without a lifetime, a presigned URL counts for half an hour; a redirect may work only
        once and is not cached.
        """
        target = self._transport.targets.target(url, str(response.url))
        life_s = presigned.life_s(target, response.headers.get("date"), time.time())
        if life_s is None:
            life_s = presigned.DEFAULT_LIFE_S - presigned.LARGEST_MARGIN_S if presign else 0.0
        link = PresignedUrl(target, trio.current_time() + life_s)
        if life_s > 0:
            self._links.put(request.key, link)
        return link

    async def _ask_service(self, request: RangeRequest, *, ranged: bool) -> httpx.Response:
        url = self._transport.url(request.region, "objects", request.id, "content")
        headers = request.headers() if ranged else {}
        return await self._ask(request, new_request("content", url, headers=headers))

    async def _ask(self, request: RangeRequest, message: httpx.Request) -> httpx.Response:
        return await self._transport.open(message, urgent=request.urgent, auth=self._auth)

    async def _get(
        self, request: RangeRequest, link: PresignedUrl, *, ranged: bool
    ) -> httpx.Response:
        """Request a link without the token, and follow further redirects."""
        url = link.url
        headers = request.headers() if ranged else {}
        for _ in range(MOST_HOPS):
            response = await self._transport.open(
                new_request("link", url, headers=headers), urgent=request.urgent
            )
            if response.status_code not in REDIRECTS:
                return response
            await response.aclose()
            url = self._transport.targets.target(response.headers.get("location", ""), url)
        raise Malformed(f"the service redirects {request.what} too often")

    async def _body(
        self, request: RangeRequest, response: httpx.Response, method: DeliveryMethod | None
    ) -> Body:
        """Return the body of a successful response, and learn from it; else raise its error."""
        if response.status_code not in (200, 206, 416):
            raise await refused(response, request.what)
        try:
            headers = validated_headers(response.status_code, response.headers, request)
        except BaseException:
            await response.aclose()
            raise
        if method is not None and response.status_code != 416:
            self.methods.learn(
                request.region,
                method,
                is_partial=headers.is_partial,
                as_wanted=request.is_whole(headers.total) or bool(request.etag),
            )
        return Body(response, headers, request.what)
