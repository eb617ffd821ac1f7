"""Content that is encrypted on disk: AES-256-GCM, each block by itself.

A block lies at ``index * STRIDE``: nonce, length, ciphertext, tag. What is authenticated with it
is the object's key in the cache and the block's place, so that a block moved elsewhere, or to
another object, is not accepted: it counts as not there, and is fetched again. The nonce is random
for each write: with 2^32 writes (512 TiB) under one key the chance that any two are alike is
2^-32 (NIST SP 800-38D, 8.3).

A block that is not whole yet is kept in memory, at most OPEN_MOST of each object, and sealed when
it is whole, when there are too many, or at the end. What a kill takes of it is fetched again.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from phonofs.cache.blocks import BLOCK
from phonofs.cache.shelf import SCRATCH, Content, Make, Wrap
from phonofs.errors import UsageError
from phonofs.ranges import Ranges

gcm: Any
try:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers import aead as gcm
except ImportError:  # the extra phonofs[encrypt] is not installed
    gcm = None

NONCE, LENGTH, TAG = 12, 4, 16  # bytes
HEAD = NONCE + LENGTH
STRIDE = HEAD + BLOCK + TAG
OPEN_MOST = 16
"""Blocks in the making per object: as many as there are parts under way, and 2 MiB of memory."""

READ_NOW = 2 * BLOCK
"""Decrypting 256 KiB takes some 100 µs, as long as handing it to a thread."""


class Cipher:
    """A key at work, shared by all contents of a cache.

    ``mark`` tells a cache of this key from others: 1 to 2^31 - 1, says nothing of the key.
    """

    def __init__(self, key: bytes) -> None:
        """``key``: 32 bytes. UsageError where the package that encrypts is not installed."""
        if gcm is None:
            raise UsageError(
                "cache_encrypt needs the package cryptography: pip install 'phonofs[encrypt]'"
            )
        self._aead = gcm.AESGCM(key)
        digest = hashlib.blake2b(key, digest_size=4, person=b"phonofs cache").digest()
        self.mark = int.from_bytes(digest, "big") & 0x7FFFFFFF or 1

    def seal(self, name: bytes, index: int, data: bytes | bytearray | memoryview) -> bytes:
        """Block ``index`` of the object ``name`` as it lies on disk."""
        nonce, length = os.urandom(NONCE), len(data).to_bytes(LENGTH, "big")
        sealed: bytes = self._aead.encrypt(nonce, data, _place(name, index, length))
        return nonce + length + sealed

    def open(self, name: bytes, index: int, raw: bytes | memoryview) -> bytes | None:
        """The bytes of a block; None where it is not that block, whole and unchanged."""
        length = bytes(raw[NONCE:HEAD])
        stop = HEAD + int.from_bytes(length, "big") + TAG
        if len(length) < LENGTH or stop > min(len(raw), STRIDE):
            return None
        try:
            place = _place(name, index, length)
            data: bytes = self._aead.decrypt(bytes(raw[:NONCE]), raw[HEAD:stop], place)
        except InvalidTag:
            return None
        return data


def _place(name: bytes, index: int, length: bytes) -> bytes:
    return b"phonofs 1" + name + index.to_bytes(8, "big") + length


def spread(start: int, stop: int) -> tuple[int, int]:
    """The bytes of the file that ``[start, stop)`` of the content may take."""
    first, last = start // BLOCK, (stop - 1) // BLOCK
    return first * STRIDE, last * STRIDE + HEAD + (stop - last * BLOCK) + TAG


class _Block:
    """A block in the making: its bytes from its start on, and which of them were written."""

    __slots__ = ("data", "filled")

    def __init__(self, data: bytes = b"") -> None:
        self.data = bytearray(data)
        self.filled = Ranges([(0, len(data))] if data else [])

    def put(self, at: int, piece: memoryview) -> bool:
        """Write; whether the block is whole now."""
        if len(self.data) < at + len(piece):
            self.data.extend(bytes(at + len(piece) - len(self.data)))
        self.data[at : at + len(piece)] = piece
        self.filled.add(at, at + len(piece))
        return self.filled.covers(0, BLOCK)


class SealedContent(Content):
    """An encrypted file of content.

    Owner of the blocks in the making. Invariant: the newest state of a block is in ``_making``
    if it is there, else on disk.

    The event loop writes while threads read, and neither waits for the other: ``_writes`` goes up
    before and after each write to the file, so that a reader that found a block spoilt knows
    whether to look again. ``_last`` is the block that the event loop decrypted last. Nothing on
    disk counts of the blocks in ``_void``.
    """

    __slots__ = ("_cipher", "_last", "_making", "_name", "_void", "_writes")

    def __init__(
        self,
        fd: int,
        scratch: memoryview,
        *,
        in_ram: bool,
        writable: bool,
        cipher: Cipher,
        name: bytes,
    ) -> None:
        super().__init__(fd, scratch, in_ram=in_ram, writable=writable)
        self._cipher = cipher
        self._name = name
        self._making: OrderedDict[int, _Block] = OrderedDict()
        self._last: tuple[int, bytes] = (-1, b"")
        self._void = Ranges()
        self._writes = 0

    spread = staticmethod(spread)

    def read(self, offset: int, n: int) -> bytes:
        """Up to ``n`` bytes; fewer where they end, or a block is not what it should be."""
        return _joined(offset, n, self._plain)

    def read_into(self, offset: int, buffer: memoryview) -> int:
        """Fill ``buffer``, waiting for the device."""
        data = self.read(offset, len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def read_now(self, offset: int, n: int) -> bytes | None:
        """Exactly ``n`` bytes, or None where that would wait, take long, or find fewer."""
        if n > READ_NOW:
            return None
        data = _joined(offset, n, self._at_hand)
        return data if len(data) == n else None

    def lend_now(self, offset: int, n: int) -> bytes | None:
        """The same: what was decrypted is a copy already."""
        return self.read_now(offset, n)

    def write(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Write all of ``data``. OSError where the disk does not take a block."""
        view = memoryview(data)
        while view:
            index, at = divmod(offset, BLOCK)
            piece = view[: BLOCK - at]
            self._put(index, at, piece)
            offset += len(piece)
            view = view[len(piece) :]

    def punch(self, start: int, stop: int) -> bool:
        """Blocks cannot be given back in part."""
        return False

    def truncate(self, size: int) -> None:
        """Empty the file; nothing else is asked of it."""
        if size:
            raise ValueError("an encrypted file is emptied, not cut")
        self._making.clear()
        self._void = Ranges()
        self._last = (-1, b"")
        with self._writing():
            super().truncate(0)

    def forget(self, first: int, last: int) -> None:
        """What was written to these blocks is not built upon any more."""
        for index in [index for index in self._making if first <= index < last]:
            del self._making[index]
        self._void.add(first, last)
        self._last = (-1, b"")

    def finish(self) -> None:
        """Seal the blocks in the making. OSError where the disk does not take one."""
        for index in list(self._making):
            self._seal(index)

    def unfinished(self) -> list[tuple[int, int]]:
        """The bytes of the blocks in the making."""
        return [(index * BLOCK, (index + 1) * BLOCK) for index in self._making]

    # blocks, on the event loop

    def _put(self, index: int, at: int, piece: memoryview) -> None:
        if self._last[0] == index:
            self._last = (-1, b"")
        if len(piece) == BLOCK:
            self._store(index, piece)
            self._making.pop(index, None)
            return
        block = self._making.get(index) or _Block(self._begun(index))
        whole = block.put(at, piece)
        self._making[index] = block
        self._making.move_to_end(index)
        if whole:
            self._seal(index)
        elif len(self._making) > OPEN_MOST:
            self._seal(next(iter(self._making)))

    def _begun(self, index: int) -> bytes:
        """What a block already has on disk. OSError where it cannot be built upon.

        Were a damaged block taken for an empty one, zeros would stand where its bytes were.
        """
        if self._void.covers(index, index + 1):
            return b""
        raw = super().read(index * STRIDE, STRIDE)
        data = self._cipher.open(self._name, index, raw)
        if data is None and any(raw[:HEAD]):  # zeros: nothing was written there yet
            raise OSError(errno.EBADMSG, os.strerror(errno.EBADMSG))
        return data or b""

    def _seal(self, index: int) -> None:
        """On to the disk; a block that it does not take stays in the making."""
        self._store(index, self._making[index].data)
        del self._making[index]

    def _store(self, index: int, data: bytearray | memoryview) -> None:
        with self._writing():
            super().write(index * STRIDE, self._cipher.seal(self._name, index, data))
        self._void.remove(index, index + 1)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        self._writes += 1
        try:
            yield
        finally:
            self._writes += 1

    def _at_hand(self, index: int) -> bytes:
        """A block that can be read without waiting for the device; empty where it cannot."""
        block = self._making.get(index)
        if block is not None:
            return bytes(block.data)
        if self._last[0] != index:
            self._last = (index, self._plain(index) if self._in_ram else self._read_now(index))
        return self._last[1]

    def _read_now(self, index: int) -> bytes:
        buffer = self._scratch[:STRIDE]
        try:
            got = os.preadv(self.fd, [buffer], index * STRIDE, os.RWF_NOWAIT)
        except OSError:
            return b""
        return self._cipher.open(self._name, index, buffer[:got]) or b""

    # in a thread too

    def _plain(self, index: int) -> bytes:
        """The bytes of a block, waiting for the device; empty where they are not there."""
        while True:
            block = self._making.get(index)
            if block is not None:
                return bytes(block.data)
            before = self._writes
            data = self._cipher.open(self._name, index, super().read(index * STRIDE, STRIDE))
            if data is not None:
                return data
            if before % 2 == 0 and self._writes == before:
                return b""


def sealing(cipher: Cipher) -> Wrap:
    """What makes the contents of a shelf encrypted ones."""

    def wrap(name: bytes) -> Make:
        return partial(SealedContent, cipher=cipher, name=name)

    return wrap


def _joined(offset: int, n: int, block_of: Callable[[int], bytes]) -> bytes:
    """Up to ``n`` bytes from ``offset`` on; fewer where a block has not all of its own."""
    parts: list[bytes] = []
    stop = offset + n
    while offset < stop:
        index, at = divmod(offset, BLOCK)
        piece = block_of(index)[at : at + stop - offset]
        if not piece:
            break
        parts.append(piece)
        offset += len(piece)
        if at + len(piece) < BLOCK:
            break
    return parts[0] if len(parts) == 1 else b"".join(parts)


assert STRIDE <= SCRATCH
