"""The task of one part: ask, receive, go on from the byte reached when that fails.

Runs in the reader's nursery, so that the end of a reader is not the end of what others wait for.
"""

import logging
from typing import TYPE_CHECKING

import trio

from phonofs.errors import (
    Changed,
    Malformed,
    ServiceError,
    Unavailable,
    Untrusted,
    forget_frames,
)
from phonofs.reader.download import Download
from phonofs.reader.interfaces import Body
from phonofs.reader.limits import MALFORMED_TRIES, PATIENCE_S, backoff_s

if TYPE_CHECKING:
    from phonofs.reader.open_object import OpenObject

log = logging.getLogger(__name__)

AT_ONCE = 256 << 10
"""Bytes of a part that comes whole in one piece: its slot is free already, so its turn is too."""


async def carry(stream: "OpenObject", download: Download) -> None:
    """Bring one part; ends with it written, or with ``part.error`` set, or cancelled."""
    done = False
    try:
        with download.scope:
            done = await _bring(stream, download)
    except ServiceError as error:
        download.error = forget_frames(error)
    except Exception as error:
        log.exception("object %s: a fault of phonofs while reading", stream.record.id)
        download.error = forget_frames(error)
    finally:
        if isinstance(download.error, Changed):
            stream.fail(download.error)  # while the blob is still its own
        stream.ended(download, done=done)


async def _bring(stream: "OpenObject", download: Download) -> bool:
    failures = 0
    while download.head < download.stop:
        reached = download.head
        try:
            await stream.context.background_limit.take(download)
            await _request(stream, download)
            if download.head == reached < download.stop and not download.whole:
                raise Malformed(f"object {stream.record.id}: the service sent an empty part")
        except (Unavailable, Malformed) as error:
            failures = 1 if download.head > reached else failures + 1
            await _recover(stream, download, error, failures)
        except Changed as error:
            if not stream.meets(error):
                raise
    return True


async def _recover(
    stream: "OpenObject", download: Download, error: Unavailable | Malformed, failures: int
) -> None:
    """Pause before the next try; raises the error where that makes no sense."""
    stream.context.counts.failures += 1
    stream.trouble = forget_frames(error)
    asked_s = None if isinstance(error, Malformed) else error.retry_after_s
    pause_s = max(backoff_s(failures, stream.context.draw()), asked_s or 0.0)
    hopeless = isinstance(error, Untrusted) or (
        isinstance(error, Malformed) and failures >= MALFORMED_TRIES
    )
    if hopeless or download.patience < trio.current_time() + pause_s:
        raise error
    stream.context.background_limit.leave(download)
    download.priority.rise()
    await trio.sleep(pause_s)


async def _request(stream: "OpenObject", download: Download) -> None:
    """One request; returns early where the part was cut."""
    download.answered = False
    service = stream.context.service
    async with service.content(
        stream.record,
        download.head,
        download.stop,
        urgent=download.priority,
        etag=stream.etag or None,
    ) as body:
        answered_at = trio.current_time()
        await trio.lowlevel.checkpoint_if_cancelled()  # an answer of before Stream.restore
        pace = stream.context.pace(stream.record.region)
        stream.accept(download, body)
        began = download.head
        if download.head >= download.stop:
            return  # another part brings it
        async for chunk in body:
            if (
                download.head == began
                and len(chunk) >= download.stop - began
                and len(chunk) <= AT_ONCE
            ):
                chunk = bytes(chunk)
                stream.context.background_limit.leave(download)
                await _others_first()
            wanted = download.stop - download.head
            if not stream.take(download, chunk):
                if download in stream.loose and download.head >= stream.size:
                    await _rest(stream, download, body, max(0, len(chunk) - wanted))
                break
            if stream.idles(download) and not await _patience(download):
                download.cut(download.head)
                return
        else:
            if download in stream.loose:
                stream.end_of_body(download, body, 0)
    pace.answered(answered_at - body.sent_at)
    pace.received(download.head - began, trio.current_time() - answered_at)


async def _rest(stream: "OpenObject", download: Download, body: Body, surplus: int) -> None:
    """Count what comes beyond the record's length of a body without a length.

    If its end does not show, one byte says as much as all of them would.
    """
    chunks = aiter(body)
    while body.framed or not surplus:
        chunk = await anext(chunks, None)
        if chunk is None:
            break
        surplus += len(chunk)
    stream.end_of_body(download, body, surplus)


async def _others_first() -> None:
    """Let the next request out before what has come is hashed and written.

    Answers come in bursts: 14 of them taken in one after another would hold the next 14 requests
    up for as long. Twice round the loop: once for who was given the slot, once to be behind it.
    """
    await trio.lowlevel.checkpoint()
    await trio.lowlevel.checkpoint()


async def _patience(download: Download) -> bool:
    """Hold the connection until somebody reads on; False when nobody did."""
    download.moved = trio.Event()
    with trio.move_on_after(PATIENCE_S):
        await download.moved.wait()
        return True
    return False
