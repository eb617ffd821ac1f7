"""The process that prepares pages for the mount.

Started as ``python -m phonofs.discovery.page_worker_main``.

It receives the options of the tree and then pages on standard input, and answers each page on
standard output, in order, until the input ends. It has no secrets, opens no files and uses no
network.

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
from phonofs.catalogue.types import TreeOptions
from phonofs.errors import Malformed
from phonofs.service.records import parse_page

LENGTH = struct.Struct(">I")

COLLECT_AFTER = 50_000
"""The threshold of the garbage collector, as in the mount: a page leaves hardly any cycle."""


Job = tuple[bytes, str, int]
"""The body of a page, the name of its region, and the region's index in inode numbers."""


def message(value: object) -> bytes:
    """Encode a value as a message for the pipe."""
    packed = msgspec.msgpack.encode(value)
    return LENGTH.pack(len(packed)) + packed


def _received(stream: BinaryIO) -> bytes | None:
    """Return the next message, without its length; None at the end of the input."""
    head = stream.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    (size,) = LENGTH.unpack(head)
    body = stream.read(size)
    return body if len(body) == size else None


def _answer(job: Job, placement: Placement) -> PreparedPage | None:
    """Return a prepared page; None if the mount has to report something of it."""
    body, region, index = job
    try:
        page = parse_page(body, region)
    except Malformed:
        return None
    return None if page.rejected else prepare(page, region, index, placement)


def main(given: BinaryIO, out: BinaryIO) -> None:
    """Answer pages until the input ends; the first answer is empty and means "ready"."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # for the mount, not for this
        signal.signal(number, signal.SIG_IGN)
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER)
    first = _received(given)
    if first is None:
        return
    placement = Placement(msgspec.msgpack.decode(first, type=TreeOptions))
    jobs = msgspec.msgpack.Decoder(Job)
    answer: PreparedPage | None = None
    while True:
        out.write(message(answer))
        out.flush()
        body = _received(given)
        if body is None:
            return
        answer = _answer(jobs.decode(body), placement)


if __name__ == "__main__":
    main(sys.stdin.buffer, sys.stdout.buffer)
