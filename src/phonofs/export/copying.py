"""Copies one file into the staging folder, and checks it on the way. Called by several threads."""

import hashlib
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from phonofs.checksum import PartsHash, expected, multipart_sizes
from phonofs.export.contents import NotCopied, OpenContent, Reason
from phonofs.export.destination import Destination

PIECE = 1 << 20
"""Bytes per read: the most that the kernel reads ahead, so larger reads gain nothing."""


@dataclass(frozen=True, slots=True)
class Staged:
    """A file in the staging folder, checked."""

    staged: str
    bytes: int
    mtime_ns: int
    check: Literal["md5", "length"]
    sha256: str


class _Buffers(threading.local):
    """The buffer of a thread."""

    def __init__(self) -> None:
        self.own = memoryview(bytearray(PIECE))


_buffers = _Buffers()


class Stopped(Exception):
    """The export was told to stop."""


class _Hashes:
    """Hashes content, and compares it with the checksum of its record.

    Of a checksum in several parts, whose size is not told, the usual sizes are tried.
    """

    def __init__(self, checksum: str, size: int) -> None:
        self._checksum = checksum
        self._expected = expected(checksum)
        self._md5 = hashlib.md5(usedforsecurity=False) if self._expected else None
        self._parts = [PartsHash(each) for each in multipart_sizes(checksum, size)]
        self._sha256 = hashlib.sha256()

    def update(self, data: memoryview) -> None:
        """Hash the next bytes."""
        self._sha256.update(data)
        if self._md5 is not None:
            self._md5.update(data)
        for each in self._parts:
            each.update(data)

    @property
    def sha256(self) -> str:
        """The SHA-256 of all bytes."""
        return self._sha256.hexdigest()

    def differs(self) -> bool:
        """Return whether the bytes are not those that the checksum is of."""
        want, md5 = self._expected, self._md5
        return want is not None and md5 is not None and not want.matches(md5.digest())

    def agrees(self) -> bool:
        """Return whether the checksum shows that these are the bytes."""
        if self._expected is not None:
            return not self.differs()
        return any(each.matches(self._checksum) for each in self._parts)


def copy(
    source: OpenContent,
    destination: Destination,
    *,
    size: int | None,
    checksum: str,
    lenient: bool = False,
    advance: Callable[[int], None] = lambda count: None,
    stop: threading.Event | None = None,
) -> Staged:
    """Copy an open file into the staging folder.

    ``size`` and ``checksum`` are what its record says, None and '' if it says nothing. If
    ``lenient``, a length is enough where the checksum differs. Raises NotCopied, OSError of the
    destination, and Stopped.
    """
    hashes = _Hashes(checksum, source.size)
    staged, descriptor = destination.stage()
    try:
        try:
            copied = _copied(source, descriptor, hashes, advance, stop)
            _check_length(copied, source.size, size)
            mtime_ns = source.mtime_ns
            if hashes.differs() and not lenient:
                raise NotCopied(Reason.CHECKSUM, "the bytes do not have the checksum of the record")
            os.utime(descriptor, ns=(mtime_ns, mtime_ns))
        finally:
            os.close(descriptor)
    except BaseException:
        destination.drop(staged)
        raise
    check: Literal["md5", "length"] = "md5" if hashes.agrees() else "length"
    return Staged(staged, copied, mtime_ns, check, hashes.sha256)


def _copied(
    source: OpenContent,
    descriptor: int,
    hashes: _Hashes,
    advance: Callable[[int], None],
    stop: threading.Event | None,
) -> int:
    """Copy all bytes; return how many there were."""
    buffer = _buffers.own
    copied = 0
    while True:
        if stop is not None and stop.is_set():
            raise Stopped
        count = source.read_into(buffer, copied)
        if not count:
            return copied
        data = buffer[:count]
        hashes.update(data)
        while data:
            data = data[os.write(descriptor, data) :]
        copied += count
        advance(count)
        if count < len(buffer) and copied == source.size:
            return copied  # which another read would show, too


def _check_length(copied: int, told: int, size: int | None) -> None:
    """Raise NotCopied unless as many bytes came as the file has, and as its record says."""
    if copied != told or (size and copied != size):
        wanted = size or told
        raise NotCopied(Reason.LENGTH, f"{copied:,} bytes came, not {wanted:,}")
