"""The body of a response of the service while it is received.

Used by :class:`phonofs.service.session.Transport`. Each chunk has a deadline, and the body a
minimum speed. Errors are those of :mod:`phonofs.errors`.
"""

import logging
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import trio

from phonofs.errors import Malformed, PhonofsError, ServiceError, TooLarge, Unavailable
from phonofs.service.content_headers import content_length
from phonofs.service.errors_map import EXPECTED, explained, failure
from phonofs.service.http11 import ResponseBody
from phonofs.service.limiter import Permit

log = logging.getLogger(__name__)

LEAST_BYTES_S = 1024
"""About a tenth of the bit rate of the poorest recording (8 kB/s); a slower body is given up."""

CLOSING_S = 2.0
"""Closing a TLS stream may wait for the other side; after this time it is left to the system."""

LARGEST_ERROR = 1 << 14
"""How much of an unsuccessful response is read (it may say that an object is archived)."""

KEPT_CHUNKS = 16
KEPT_BYTES = 1 << 16
"""How much of a body that is too long is kept, to see what kind of response it is."""

SMALL_CHUNK = 64
SMALL_CHUNKS_AT_ONCE = 100
MOST_SMALL_CHUNKS = 1 << 15
"""Limits for small chunks of a body from httpx, which takes about 50 us for each: this many
between two checkpoints, and this many in all, plus one for each 64 bytes."""

Chunk = bytes | bytearray | memoryview
"""A piece of a body; a memoryview is valid only until the caller waits for anything."""


@dataclass(slots=True)
class Counts:
    """What was done so far: requests by kind, errors by class, bytes of bodies."""

    requests: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    received_bytes: int = 0

    def failed(self, error: PhonofsError) -> None:
        """Count one error by its class."""
        self.errors[type(error).__name__] += 1

    def received(self, size: int) -> None:
        """Count ``size`` bytes of a body."""
        self.received_bytes += size


class MinimumSpeed:
    """Measures the speed of a body in windows of ``window_s`` seconds of waiting.

    A byte every few seconds never exceeds a timeout between bytes, so the speed has to be
    measured. Only waiting counts: a reader that pauses does not make the service slow. Owns the
    bytes and the waiting time of the current window.
    """

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._waited_s = 0.0
        self._bytes = 0

    def too_slow(self, waited_s: float, size: int) -> bool:
        """Count a chunk of ``size`` bytes. Return whether the body is too slow to wait for."""
        self._waited_s += waited_s
        self._bytes += size
        if self._waited_s < self._window_s:
            return False
        slow = self._bytes < LEAST_BYTES_S * self._waited_s
        self._waited_s, self._bytes = 0.0, 0
        return slow


class LimitedStream(httpx.AsyncByteStream):
    """The stream of a response: an async iterator over the chunks of its body, in order.

    Holds a permit until the last byte came or :meth:`aclose`, which may be called more than once.
    A memoryview is valid only until the caller waits for anything.
    """

    def __init__(
        self,
        response: httpx.Response,
        *,
        host: str,
        permit: Permit,
        timeout_s: float,
        counts: Counts,
    ) -> None:
        """``response`` is that of a transport, whose stream this one wraps."""
        assert isinstance(response.stream, httpx.AsyncByteStream)
        self._stream = response.stream
        self._chunks: AsyncIterator[Chunk] = aiter(self._stream)
        self._http11_body = self._stream if isinstance(self._stream, ResponseBody) else None
        self._headers = response.headers
        self._host = host
        self._timeout_s = timeout_s
        self._counts = counts
        self._permit = permit
        self._speed = MinimumSpeed(timeout_s)
        self._received = 0
        self._small_chunks = 0
        self._closed = False

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Chunk:
        """Return the next chunk. Raises Unavailable if it is cut off, late or too slow."""
        timeout_s = self._timeout_s
        waited_s = 0.0
        try:
            chunk = self._now()
            if chunk is None:
                started = trio.current_time()
                with trio.fail_after(timeout_s):
                    chunk = await anext(self._chunks)
                waited_s = trio.current_time() - started
        except EXPECTED as error:
            raise self._failed(explained(error, self._host, timeout_s)) from error
        self._received += len(chunk)
        self._counts.received(len(chunk))
        if self._speed.too_slow(waited_s, len(chunk)):
            raise self._failed(self._too_slow())
        if self._http11_body is None and len(chunk) < SMALL_CHUNK:
            await self._took_small_chunk()
        if self._http11_body is not None and self._http11_body.over and not self._closed:
            self._closed = True
            self._http11_body.close()
            self._permit.release()
        return chunk

    def allow(self, most_bytes: int) -> None:
        """Take at most this many bytes for the next chunk, if the connection can be told so."""
        if self._http11_body is not None:
            self._http11_body.allow(most_bytes)

    @property
    def permit(self) -> Permit:
        """The permit it holds until it is closed."""
        return self._permit

    async def _took_small_chunk(self) -> None:
        self._small_chunks += 1
        if self._small_chunks % SMALL_CHUNKS_AT_ONCE == 0:
            await trio.lowlevel.checkpoint()
        if self._small_chunks > MOST_SMALL_CHUNKS + self._received // SMALL_CHUNK:
            sentence = f"{self._host} sends its answer in too many small pieces"
            raise self._failed(Malformed(sentence))

    def _now(self) -> Chunk | None:
        """Return the next chunk if it has arrived; this spares the timeout of most chunks.

        Raises StopAsyncIteration at the end of the body.
        """
        if self._http11_body is None:
            return None
        if self._http11_body.over:
            raise StopAsyncIteration
        return self._http11_body.now()

    async def read(self, limit_bytes: int) -> bytes:
        """Read the whole body within ``timeout_s``. Raises TooLarge beyond ``limit_bytes``."""
        parts, size = [], 0
        with trio.move_on_after(self._timeout_s) as scope:
            async for chunk in self:
                parts.append(bytes(chunk))
                size += len(chunk)
                if size > limit_bytes:
                    start = b"".join(parts[:KEPT_CHUNKS])[:KEPT_BYTES]
                    raise self._failed(TooLarge(f"the answer of {self._host} is too long", start))
        if scope.cancelled_caught:
            raise self._failed(self._too_slow())
        return b"".join(parts)

    async def aclose(self) -> None:
        """Close the body and release the permit, within 2 s whatever the other side does."""
        if self._closed:
            return
        self._closed = True
        try:
            with trio.move_on_after(CLOSING_S, shield=True):
                await self._close()
        finally:
            self._permit.release()

    async def _close(self) -> None:
        try:
            if self._http11_body is None and self._received == content_length(self._headers):
                await anext(self._chunks, None)  # only then does httpcore reuse it
            if (closing := getattr(self._chunks, "aclose", None)) is not None:
                await closing()
            await self._stream.aclose()
        except (httpx.HTTPError, OSError, RuntimeError, trio.BrokenResourceError) as error:
            log.debug("closing a connection failed: %s", type(error).__name__)

    def _too_slow(self) -> Unavailable:
        return Unavailable(f"{self._host} sends too slowly to wait for")

    def _failed(self, error: PhonofsError) -> PhonofsError:
        self._counts.failed(error)
        return error


async def refused(response: httpx.Response, what: str, *, of_object: bool = True) -> ServiceError:
    """Close an unsuccessful response and return its error."""
    try:
        body = await stream_of(response).read(LARGEST_ERROR)
    except ServiceError:
        body = b""
    finally:
        await response.aclose()
    return failure(response, what, body=body, of_object=of_object)


def stream_of(response: httpx.Response) -> LimitedStream:
    """Return the stream of a response of :class:`phonofs.service.session.Transport`."""
    assert isinstance(response.stream, LimitedStream)
    return response.stream
