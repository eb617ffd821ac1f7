"""The process that prepares pages beside the mount.

Started as ``python -m phonofs.discovery.page_worker_main``.

It is told the view, then given pages on standard input, and answers each on standard output, in
order, until the input ends. It has no secrets, opens no files and asks nobody.

A message is its length (4 bytes, big endian) and that many bytes of MessagePack.
"""

import gc
import signal
import struct
import sys
from typing import BinaryIO

import msgspec

from phonofs.catalogue.placement import Placement
from phonofs.catalogue.prepared_page import PreparedPage, prepare
from phonofs.catalogue.types import View
from phonofs.errors import Malformed

LENGTH = struct.Struct(">I")

COLLECT_AFTER = 50_000
"""As in the mount: a page leaves hardly any cycle."""


class Job(msgspec.Struct, array_like=True, gc=False):
    """The arguments of :func:`prepared_page.prepare`."""

    body: bytes
    region: str
    index: int


def message(value: object) -> bytes:
    """A value as it goes over the pipe."""
    packed = msgspec.msgpack.encode(value)
    return LENGTH.pack(len(packed)) + packed


def _received(stream: BinaryIO) -> bytes | None:
    """The next message, without its length; None at the end."""
    head = stream.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    (size,) = LENGTH.unpack(head)
    body = stream.read(size)
    return body if len(body) == size else None


def _answer(job: Job, placing: Placement) -> PreparedPage | None:
    try:
        return prepare(job.body, job.region, job.index, placing)
    except Malformed:
        return None  # the mount reads it again, and says so


def main(given: BinaryIO, out: BinaryIO) -> None:
    """Answer until there is nothing more; first of all an empty answer: it is ready."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # for the mount, not for this
        signal.signal(number, signal.SIG_IGN)
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER)
    first = _received(given)
    if first is None:
        return
    placing = Placement(msgspec.msgpack.decode(first, type=View))
    jobs = msgspec.msgpack.Decoder(Job)
    answer: PreparedPage | None = None
    while True:
        out.write(message(answer))
        out.flush()
        body = _received(given)
        if body is None:
            return
        answer = _answer(jobs.decode(body), placing)


if __name__ == "__main__":
    main(sys.stdin.buffer, sys.stdout.buffer)
