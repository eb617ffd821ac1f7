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
from phonofs.reader.limits import MALFORMED_TRIES, PATIENCE_S, backoff_s
from phonofs.reader.part import Part
from phonofs.reader.ports import Body

if TYPE_CHECKING:
    from phonofs.reader.streams import Stream

log = logging.getLogger(__name__)

AT_ONCE = 256 << 10
"""Bytes of a part that comes whole in one piece: its slot is free already, so its turn is too."""


async def carry(stream: "Stream", part: Part) -> None:
    """Bring one part; ends with it written, or with ``part.error`` set, or cancelled."""
    done = False
    try:
        with part.scope:
            done = await _bring(stream, part)
    except ServiceError as error:
        part.error = forget_frames(error)
    except Exception as error:
        log.exception("object %s: a fault of phonofs while reading", stream.record.id)
        part.error = forget_frames(error)
    finally:
        if isinstance(part.error, Changed):
            stream.fail(part.error)  # while the blob is still its own
        stream.ended(part, done=done)


async def _bring(stream: "Stream", part: Part) -> bool:
    failures = 0
    while part.head < part.stop:
        reached = part.head
        try:
            await stream.yard.turns.take(part)
            await _request(stream, part)
            if part.head == reached < part.stop and not part.whole:
                raise Malformed(f"object {stream.record.id}: the service sent an empty part")
        except (Unavailable, Malformed) as error:
            failures = 1 if part.head > reached else failures + 1
            await _recover(stream, part, error, failures)
        except Changed as error:
            if not stream.meets(error):
                raise
    return True


async def _recover(
    stream: "Stream", part: Part, error: Unavailable | Malformed, failures: int
) -> None:
    """Pause before the next try; raises the error where that makes no sense."""
    stream.yard.counts.failures += 1
    stream.trouble = forget_frames(error)
    asked_s = None if isinstance(error, Malformed) else error.retry_after_s
    pause_s = max(backoff_s(failures, stream.yard.draw()), asked_s or 0.0)
    hopeless = isinstance(error, Untrusted) or (
        isinstance(error, Malformed) and failures >= MALFORMED_TRIES
    )
    if hopeless or part.patience < trio.current_time() + pause_s:
        raise error
    stream.yard.turns.leave(part)
    part.urgency.rise()
    await trio.sleep(pause_s)


async def _request(stream: "Stream", part: Part) -> None:
    """One request; returns early where the part was cut."""
    part.answered = False
    service = stream.yard.service
    async with service.content(
        stream.record, part.head, part.stop, urgent=part.urgency, etag=stream.etag or None
    ) as body:
        answered_at = trio.current_time()
        await trio.lowlevel.checkpoint_if_cancelled()  # an answer of before Stream.restore
        pace = stream.yard.pace(stream.record.region)
        stream.accept(part, body)
        began = part.head
        if part.head >= part.stop:
            return  # another part brings it
        async for chunk in body:
            if part.head == began and len(chunk) >= part.stop - began and len(chunk) <= AT_ONCE:
                chunk = bytes(chunk)
                stream.yard.turns.leave(part)
                await _others_first()
            wanted = part.stop - part.head
            if not stream.take(part, chunk):
                if part in stream.loose and part.head >= stream.size:
                    await _rest(stream, part, body, max(0, len(chunk) - wanted))
                break
            if stream.idles(part) and not await _patience(part):
                part.cut(part.head)
                return
        else:
            if part in stream.loose:
                stream.end_of_body(part, body, 0)
    pace.answered(answered_at - body.sent_at)
    pace.received(part.head - began, trio.current_time() - answered_at)


async def _rest(stream: "Stream", part: Part, body: Body, surplus: int) -> None:
    """Count what comes beyond the record's length of a body without a length.

    If its end does not show, one byte says as much as all of them would.
    """
    chunks = aiter(body)
    while body.framed or not surplus:
        chunk = await anext(chunks, None)
        if chunk is None:
            break
        surplus += len(chunk)
    stream.end_of_body(part, body, surplus)


async def _others_first() -> None:
    """Let the next request out before what has come is hashed and written.

    Answers come in bursts: 14 of them taken in one after another would hold the next 14 requests
    up for as long. Twice round the loop: once for who was given the slot, once to be behind it.
    """
    await trio.lowlevel.checkpoint()
    await trio.lowlevel.checkpoint()


async def _patience(part: Part) -> bool:
    """Hold the connection until somebody reads on; False when nobody did."""
    part.moved = trio.Event()
    with trio.move_on_after(PATIENCE_S):
        await part.moved.wait()
        return True
    return False
