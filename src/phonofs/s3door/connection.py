"""One client of the S3 door: receives its requests, one at a time, and sends the answers.

While an answer has to wait, another task watches the client: an answer is given up if the client
hangs up, so that nothing waits for the service in vain. The first bytes of a content are there
before its status is sent; if a later byte cannot be had, the connection is cut before its end.
"""

import logging
import random
import select
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache, partial
from http.client import responses as reasons

import trio
from trio.abc import HalfCloseableStream, Stream

from phonofs.cache.stored_blocks import StoredRange
from phonofs.errors import unwrap
from phonofs.first_wait import FirstWait
from phonofs.http_dates import http_date
from phonofs.http_server import (
    CONTINUE,
    RECEIVE,
    BadRequest,
    BodyTooLong,
    Received,
    RequestLimits,
    receive,
)
from phonofs.open_files import OpenFile
from phonofs.s3door import documents
from phonofs.s3door.answers import XML, Answer, Answers, Content
from phonofs.s3door.errors import S3Error
from phonofs.s3door.failures import Failures
from phonofs.s3door.keys import Key
from phonofs.s3door.request import Request
from phonofs.stream_receiver import StreamReceiver
from phonofs.stream_sender import Body, SlowClient, StreamSender

log = logging.getLogger(__name__)

REQUEST_S = 20.0
"""How long a client may take to send a request that it has begun."""

LIMITS = RequestLimits(head_bytes=64 << 10, body_bytes=64 << 10, time_s=REQUEST_S)
HEADERS_MAX = 100

IDLE_S = 60.0
"""How long a connection without a request stays open."""

LINGER_S = 2.0
"""How long what a client still sends is received after it was told of an error that ends the
connection. If that were dropped at once, the error would not reach the client (RFC 9112, 9.6)."""

SLOW_S = 60.0
"""How long a client may take to receive one piece of an answer: a player, which takes 8 KB/s of a
recording that it plays, needs half of it."""

PIECE = 256 << 10
"""Bytes of a content that are sent at a time: as much memory for each client. A socket takes a part
of 1 MiB and the rest is copied: 32 clients took 20 MiB more, and were no faster."""

STORED_PIECE = 1 << 20
"""Bytes that the kernel is asked to send at a time: these take no memory here."""

LOOK_AHEAD = 1 << 20
"""How far the reader is told that a content will be read. Of one that was read in 16 parts at once,
a quarter came twice when it was told of single pieces: it takes them for reads at random."""


class ContentFailed(Exception):
    """The rest of a content cannot be had; its beginning has been sent."""


@dataclass(frozen=True, slots=True)
class Services:
    """What all connections use.

    authenticate  returns the key that a request is signed with; raises S3Error
    answers       make the answers
    failures      count the errors that clients got
    now           returns the time
    """

    authenticate: Callable[[Request], Key]
    answers: Answers
    failures: Failures
    now: Callable[[], datetime]


class Connection:
    """One client.

    busy       whether a request is being answered
    authenticated  whether the one that is being answered is signed with one of the keys
    requests   how many there were
    idle_since_s  when the last signed request was answered, or the connection made (trio's clock)
    """

    def __init__(self, stream: Stream, services: Services) -> None:
        self._stream = stream
        self._services = services
        self._receiver = StreamReceiver(stream)
        self._sender = StreamSender(stream, SLOW_S)
        self._early = b""
        self._watching: trio.CancelScope | None = None
        self._watched = trio.Event()
        self.busy = False
        self.authenticated = False
        self.requests = 0
        self.idle_since_s = trio.current_time()
        self._is_idle = False

    @property
    def idle_until_s(self) -> float | None:
        """When it is to be hung up on unless it asks for something; None while it does."""
        return self.idle_since_s + IDLE_S if self._is_idle else None

    def hang_up(self) -> None:
        """End the connection if it still waits for a request; one that has come is answered."""
        stream = self._stream
        if isinstance(stream, trio.SSLStream):
            stream = stream.transport_stream
        if isinstance(stream, trio.SocketStream):
            poll = select.poll()
            poll.register(stream.socket.fileno(), select.POLLIN)
            if not poll.poll(0):
                trio.lowlevel.notify_closing(stream.socket)

    @property
    def body_bytes(self) -> int:
        """How many bytes of bodies the client was sent."""
        return self._sender.body_bytes

    async def serve(self) -> None:
        """Answer requests until the client hangs up, or has to be hung up on."""
        try:
            async with trio.open_nursery() as nursery:
                goes_on = True
                while goes_on and (received := await self._next()) is not None:
                    goes_on = await self._answer_watched(received, nursery)
                    if isinstance(received, S3Error):
                        await self._linger()
        except* (SlowClient, ContentFailed, trio.BrokenResourceError, trio.ClosedResourceError):
            log.debug("a client of the S3 door went, or had to be hung up on")

    async def _answer_watched(self, received: Received | S3Error, nursery: trio.Nursery) -> bool:
        """Answer a request; return whether another one may follow.

        If the answer has to wait, the client is watched: it is given up if the client hangs up.
        """
        self.busy = True
        self.requests += 1
        try:
            return await FirstWait(self._answer(received), partial(self._begin_watch, nursery))
        finally:
            if self.authenticated:  # whoever has no key cannot keep the connection
                self.idle_since_s = trio.current_time()
            self.busy = self.authenticated = False
            await self._end_watch()

    # watching

    def _begin_watch(self, nursery: trio.Nursery) -> None:
        self._watching, self._watched = trio.CancelScope(), trio.Event()
        nursery.start_soon(self._watch, self._watching, nursery.cancel_scope)

    async def _end_watch(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            self._watching = None
            await self._watched.wait()  # nobody else may receive until then

    async def _watch(self, watching: trio.CancelScope, everything: trio.CancelScope) -> None:
        """Receive what the client sends early; cancel everything if it hangs up."""
        try:
            with watching:
                while len(self._early) < RECEIVE:
                    some = await self._receiver.receive_some(RECEIVE)
                    self._early += some
                    if not some:
                        everything.cancel()
                        break
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            everything.cancel()
        finally:
            self._watched.set()

    # receiving

    async def _next(self) -> Received | S3Error | None:
        """Return the next request, or why it is none; None if the client goes, or has to."""
        if trio.current_time() >= self.idle_since_s + IDLE_S:
            return None
        if self._early:
            await trio.lowlevel.checkpoint()  # others have their turn, however many came at once
        else:
            self._is_idle = True
            self._early = await self._receiver.receive_some(RECEIVE)
            self._is_idle = False
        if not self._early:
            return None
        try:
            early, self._early = self._early, b""
            received = await receive(self._receiver, early, LIMITS, self._say_continue)
            if received is not None:
                self._early = received.early
            return received
        except BadRequest as error:
            # What the parser says repeats what came, perhaps with a signature, and is logged.
            if error.error_status_hint == 431:
                return S3Error(
                    "RequestHeaderSectionTooLarge", "the head of the request is too long"
                )
            return S3Error("InvalidRequest", "the request is not one of HTTP/1.1")
        except BodyTooLong as error:
            if error.received.method not in (b"GET", b"HEAD", b"POST"):
                return S3Error("MethodNotAllowed", "this server is read-only")
            return S3Error("EntityTooLarge", "the body of the request is too long")
        except trio.TooSlowError:
            return S3Error("RequestTimeout", "the request was not received whole in time")

    async def _say_continue(self) -> None:
        await self._stream.send_all(CONTINUE)

    async def _linger(self) -> None:
        """Receive what the client still sends until it hangs up, but not for long."""
        with trio.move_on_after(LINGER_S):
            if isinstance(self._stream, HalfCloseableStream):
                await self._stream.send_eof()
            while await self._receiver.receive_some(RECEIVE):
                pass

    # answering

    async def _answer(self, received: Received | S3Error) -> bool:
        """Answer a request; return whether another one may follow."""
        if isinstance(received, S3Error):
            await self._fail(received, "", is_head=False, goes_on=False)
            return False
        is_head, goes_on = received.method == b"HEAD", received.keep_alive
        path = received.target.decode("latin-1").partition("?")[0]
        try:
            answer = await self._answer_to(received)
        except Exception as error:  # noqa: BLE001 - every error is answered, counted and logged
            await self._fail(error, path, is_head=is_head, goes_on=goes_on)
            return goes_on
        if isinstance(answer, Answer):
            head = self._head(answer, len(answer.body), goes_on)
            await self._sender.send(head, answer.body, last=True)
            return goes_on
        try:
            await self._send_content(answer, goes_on)
        except (SlowClient, ContentFailed):
            raise
        except Exception as error:  # noqa: BLE001 - likewise
            await self._fail(error, path, is_head=is_head, goes_on=goes_on)
        finally:
            answer.file.close()
        return goes_on

    async def _answer_to(self, received: Received) -> Answer | Content:
        if len(received.headers) > HEADERS_MAX:
            raise S3Error("RequestHeaderSectionTooLarge", "the request has too many headers")
        request = Request.of(received.method, received.target, received.headers, received.body)
        key = self._services.authenticate(request)
        self.authenticated = True
        return await self._services.answers.answer(key, request)

    async def _fail(self, error: Exception, path: str, *, is_head: bool, goes_on: bool) -> None:
        """Tell the client of an error."""
        failure = self._services.failures.counted(error)
        request_id = _request_id()
        body = b"" if is_head else documents.error(failure, path, request_id)
        answer = Answer(failure.status, (XML, *failure.headers), body)
        head = self._head(answer, len(body), goes_on, request_id)
        await self._sender.send(head, body, last=True)

    async def _send_content(self, content: Content, goes_on: bool) -> None:
        """Send a content, or a part of it.

        Raises the error of the first bytes; ContentFailed if it fails later.
        """
        file, offset, stop = content.file, content.start, content.stop
        head = self._head(content.answer, stop - offset, goes_on)
        if offset == stop:
            await self._sender.send(head, last=True)
        must_copy = False
        while offset < stop:
            try:
                stored = None if must_copy else self._stored(file, offset, stop)
                data = b"" if stored is not None else await self._read(file, offset, stop)
            except Exception as error:
                if head:
                    raise
                self._services.failures.counted(error)
                raise ContentFailed from unwrap(error)
            unsent, head = head, b""  # from here on, no error can be told
            if unsent or data:
                await self._sender.send(unsent, data, last=offset + len(data) == stop)
            offset += len(data)
            data, must_copy = b"", False
            if stored is not None:
                await self._sender.send_stored(stored, timed=PIECE)
                must_copy, offset = stored.offset == offset, stored.offset

    async def _read(self, file: OpenFile, offset: int, stop: int) -> Body:
        """Return the next piece of a content: to be sent before any other task runs."""
        wanted = min(stop - offset, PIECE)
        data = file.lend_now(offset, wanted)
        if data is None and wanted < stop - offset:  # say how far it will be read
            file.lend_now(offset, min(stop - offset, LOOK_AHEAD))
        if data is None:
            data = await file.read(offset, wanted)
        if len(data) != wanted:
            raise S3Error("SlowDown", "the object has another length than it had")
        return data

    def _stored(self, file: OpenFile, offset: int, stop: int) -> StoredRange | None:
        """Return bytes that the kernel can send from a file of the cache; None if there are none.

        Less than ``PIECE`` is copied, which takes no longer; so is all that TLS has to encrypt.
        """
        if stop - offset < PIECE or not self._sender.sends_files:
            return None
        return file.lend_stored(offset, min(stop - offset, STORED_PIECE))

    def _head(self, answer: Answer, length: int, goes_on: bool, request_id: str = "") -> bytes:
        begin = _begin(answer.status, int(self._services.now().timestamp()))
        lines = [begin, f"x-amz-request-id: {request_id or _request_id()}\r\n"]
        for name, value in answer.headers:
            lines.append(f"{name}: {value}\r\n")
        if answer.status != 304:
            size = length if answer.size is None else answer.size
            lines.append(f"Content-Length: {size}\r\n")
        if not goes_on:
            lines.append("Connection: close\r\n")
        lines.append("\r\n")
        return "".join(lines).encode("latin-1")


@lru_cache(maxsize=8)
def _begin(status: int, at_s: int) -> str:
    """Return the first lines of an answer, which all have that are made in the same second."""
    reason = reasons.get(status, "Unknown")
    return f"HTTP/1.1 {status} {reason}\r\nDate: {http_date(at_s)}\r\nServer: phonofs\r\n"


def _request_id() -> str:
    return f"{random.getrandbits(64):016X}"
