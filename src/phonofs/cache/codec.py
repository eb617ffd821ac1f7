"""How a block lies in its file: as it is, or encrypted with AES-256-GCM. Pure.

An encrypted block is nonce, length, ciphertext and tag, at ``index * stride``. The object's key
in the cache, the block's index and its length are authenticated with it: a block that was moved
to another place or another object does not decrypt, which counts as a miss. The nonce is random
for each write: with 2^32 writes (512 TiB) under one key the chance that two nonces are equal is
2^-32 (NIST SP 800-38D, 8.3).
"""

import hashlib
import os
from typing import Any

from phonofs.cache.blocks import BLOCK, Data
from phonofs.errors import UsageError

gcm: Any
try:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers import aead as gcm
except ImportError:  # the extra phonofs[encrypt] is not installed
    gcm = None

NONCE, LENGTH, TAG = 12, 4, 16  # bytes
HEAD = NONCE + LENGTH


class PlainCodec:
    """Blocks lie in the file as they are.

    stride  distance in bytes between the starts of two blocks in a file
    key_id  tells caches of different keys apart; 0 for no key
    """

    stride = BLOCK
    key_id = 0

    def span(self, first: int, last: int, size: int) -> tuple[int, int]:
        """Return the bytes of the file that blocks ``[first, last)`` of an object take.

        ``size`` is the length of the object, which the last block may fall short of.
        """
        return first * BLOCK, min(last * BLOCK, size)


class AesGcmCodec(PlainCodec):
    """Blocks are encrypted; see the module. One for all objects of a cache.

    ``key_id`` is from 1 to 2^31 - 1 and says nothing of the key.
    """

    stride = HEAD + BLOCK + TAG

    def __init__(self, key: bytes) -> None:
        """``key``: 32 bytes. UsageError if the package that encrypts is not installed."""
        if gcm is None:
            raise UsageError(
                "cache_encrypt needs the package cryptography: pip install 'phonofs[encrypt]'"
            )
        self._aead = gcm.AESGCM(key)
        digest = hashlib.blake2b(key, digest_size=4, person=b"phonofs cache").digest()
        self.key_id = int.from_bytes(digest, "big") & 0x7FFFFFFF or 1

    def span(self, first: int, last: int, size: int) -> tuple[int, int]:
        """Return the bytes of the file that blocks ``[first, last)`` of an object take."""
        length = min(last * BLOCK, size) - (last - 1) * BLOCK
        return first * self.stride, (last - 1) * self.stride + HEAD + length + TAG

    def encode(self, name: bytes, index: int, block: Data) -> bytes:
        """Return block ``index`` of the object ``name`` as it lies on disk."""
        nonce, length = os.urandom(NONCE), len(block).to_bytes(LENGTH, "big")
        encrypted: bytes = self._aead.encrypt(nonce, block, _bound_in(name, index, length))
        return nonce + length + encrypted

    def decode(self, name: bytes, index: int, raw: Data) -> bytes | None:
        """Return the bytes of a block, or None if ``raw`` is not that block, unchanged."""
        length = bytes(raw[NONCE:HEAD])
        stop = HEAD + int.from_bytes(length, "big") + TAG
        if len(length) < LENGTH or stop > min(len(raw), self.stride):
            return None
        try:
            bound_in = _bound_in(name, index, length)
            block: bytes = self._aead.decrypt(bytes(raw[:NONCE]), raw[HEAD:stop], bound_in)
        except InvalidTag:
            return None
        return block


def _bound_in(name: bytes, index: int, length: bytes) -> bytes:
    return b"phonofs 1" + name + index.to_bytes(8, "big") + length
