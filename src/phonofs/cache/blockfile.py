"""An open file of blocks: the only code that reads or writes content on disk.

Block ``n`` starts at ``n * codec.stride`` and is always written whole. Functions that wait for the
disk say *in a thread*; all others are called on the event loop.
"""

from __future__ import annotations

import errno
import os

from phonofs.cache.blocks import BLOCK, Data, block_count
from phonofs.cache.codec import AesGcmCodec
from phonofs.cache.removal import bytes_on_disk
from phonofs.cache.residency import is_resident

SCRATCH = 1 << 20
"""Bytes of the longest read answered on the event loop: the largest read of the kernel."""

VIEW_FROM = 1 << 15
"""Bytes; shorter reads are copied, which takes a microsecond or two."""

DECRYPT_NOW = 2
"""Blocks decrypted on the event loop: 256 KiB take about 100 µs, as long as a hop to a thread."""

View = bytes | memoryview
"""Bytes that were read. A memoryview is valid only until the next read."""


class BlockFile:
    """One open file of blocks. The entry that opened it closes it, exactly once.

    ``in_ram``: the file system is a tmpfs, so reading never waits for a device.
    ``scratch`` is shared by all files of a store and has twice SCRATCH bytes. Only the event loop
    uses it: the first half for copies, the second for views.
    """

    __slots__ = ("_fd", "_in_ram", "_scratch")

    def __init__(self, fd: int, scratch: memoryview, *, in_ram: bool) -> None:
        self._fd = fd
        self._scratch = scratch
        self._in_ram = in_ram

    def write_blocks(self, first: int, data: Data) -> None:
        """Write whole blocks from block ``first`` on. Raises OSError.

        Only the object's last block may be shorter than BLOCK.
        """
        self._write(first * BLOCK, data)

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Fill ``buffer``, in a thread; return the number of bytes, fewer at the file's end."""
        return os.preadv(self._fd, [buffer], offset)

    def view_nowait(self, offset: int, n: int) -> View | None:
        """Return exactly ``n`` bytes, or None if that would wait, fail, or find fewer."""
        try:
            if self._in_ram:
                data = os.pread(self._fd, n, offset)
                return data if len(data) == n else None
            if n > SCRATCH:
                return None
            start = SCRATCH if n >= VIEW_FROM else 0
            view = self._scratch[start : start + n]
            got = os.preadv(self._fd, [view], offset, os.RWF_NOWAIT)
        except OSError:  # EAGAIN: not in the page cache; EOPNOTSUPP: unknown; EIO
            return None
        if got != n:
            return None
        return view if start else view.tobytes()

    def is_ready(self, offset: int, n: int) -> bool:
        """Return whether :meth:`send_nowait` would not wait for a device."""
        return self._in_ram or is_resident(self._fd, offset, n)

    def send_nowait(self, descriptor: int, offset: int, n: int) -> int | None:
        """Have the kernel send bytes to a socket, as many as it takes; None if that fails."""
        try:
            return os.sendfile(descriptor, self._fd, offset, n) or None
        except BlockingIOError:
            return 0
        except OSError:
            return None

    def cut(self, length: int) -> int:
        """Cut the file to ``length`` bytes; return the bytes on disk then. Raises OSError."""
        if length < os.fstat(self._fd).st_size:
            os.ftruncate(self._fd, length)
        return bytes_on_disk(os.fstat(self._fd))

    def close(self) -> None:
        """Close the descriptor."""
        os.close(self._fd)

    def _write(self, offset: int, data: Data) -> None:
        written = os.pwrite(self._fd, data, offset)
        while written < len(data):
            step = os.pwrite(self._fd, memoryview(data)[written:], offset + written)
            if step == 0:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            written += step


class EncryptedBlockFile(BlockFile):
    """A file whose blocks are encrypted. A block that does not decrypt counts as missing.

    ``_last`` is the block decrypted last on the event loop, since small reads come in sequence.
    """

    __slots__ = ("_codec", "_last", "_name")

    def __init__(
        self, fd: int, scratch: memoryview, *, in_ram: bool, codec: AesGcmCodec, name: bytes
    ) -> None:
        super().__init__(fd, scratch, in_ram=in_ram)
        self._codec = codec
        self._name = name
        self._last: tuple[int, bytes] = (-1, b"")

    def write_blocks(self, first: int, data: Data) -> None:
        """Encrypt and write whole blocks. Raises OSError."""
        view, codec = memoryview(data), self._codec
        if first <= self._last[0] < first + block_count(len(view)):
            self._last = (-1, b"")
        encoded = b"".join(
            codec.encode(self._name, first + at // BLOCK, view[at : at + BLOCK])
            for at in range(0, len(view), BLOCK)
        )
        self._write(first * codec.stride, encoded)

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Fill ``buffer``, in a thread; return the number of bytes before the first bad block."""
        done = 0
        while done < len(buffer):
            index, at = divmod(offset + done, BLOCK)
            raw = os.pread(self._fd, self._codec.stride, index * self._codec.stride)
            block = self._codec.decode(self._name, index, raw) or b""
            piece = memoryview(block)[at : at + len(buffer) - done]
            buffer[done : done + len(piece)] = piece
            done += len(piece)
            if at + len(piece) < BLOCK:
                break
        return done

    def view_nowait(self, offset: int, n: int) -> View | None:
        """Return exactly ``n`` bytes, or None if that would wait, take long, or find fewer."""
        first, last = offset // BLOCK, block_count(offset + n)
        if last - first > DECRYPT_NOW:
            return None
        parts = []
        for index in range(first, last):
            block = self._decrypted(index)
            if block is None:
                return None
            parts.append(block[max(0, offset - index * BLOCK) : offset + n - index * BLOCK])
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        return data if len(data) == n else None

    def is_ready(self, offset: int, n: int) -> bool:
        """Return False: what is in the file is not what is sent."""
        return False

    def cut(self, length: int) -> int:
        """Cut the file to ``length`` bytes, as in :class:`BlockFile`."""
        self._last = (-1, b"")
        return super().cut(length)

    def _decrypted(self, index: int) -> bytes | None:
        if self._last[0] == index:
            return self._last[1]
        stride = self._codec.stride
        raw = self._scratch[:stride]
        flags = 0 if self._in_ram else os.RWF_NOWAIT
        try:
            got = os.preadv(self._fd, [raw], index * stride, flags)
        except OSError:
            return None
        block = self._codec.decode(self._name, index, raw[:got])
        if block is not None:
            self._last = (index, block)
        return block
