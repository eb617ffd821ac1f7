"""How a block is stored in the file of an encrypted cache: with AES-256-GCM. Pure.

An encrypted block consists of nonce, length, ciphertext and tag, and starts at ``index * stride``.
The object's key in the cache, the block's index and its length are authenticated with it: a block
that was moved to another place or another object does not decrypt, which counts as a miss. Each
write uses a new random nonce: after 2^32 writes (512 TiB) under one key the probability that two
nonces are equal is 2^-32 (NIST SP 800-38D, 8.3).
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


class AesGcmCodec:
    """Encrypts blocks; see the module. All objects of a cache share one codec.

    stride    distance in bytes between the starts of two adjacent blocks in a file
    overhead  bytes stored in addition to those of a block
    key_id    between 1 and 2^31 - 1; tells apart caches with different keys, and does not reveal
              the key
    """

    stride = HEAD + BLOCK + TAG
    overhead = HEAD + TAG

    def __init__(self, key: bytes) -> None:
        """``key`` has 32 bytes. Raises UsageError if ``cryptography`` is not installed."""
        if gcm is None:
            raise UsageError(
                "cache_encrypt needs the package cryptography: pip install 'phonofs[encrypt]'"
            )
        self._aead = gcm.AESGCM(key)
        digest = hashlib.blake2b(key, digest_size=4, person=b"phonofs cache").digest()
        self.key_id = int.from_bytes(digest, "big") & 0x7FFFFFFF or 1

    def encode(self, name: bytes, index: int, block: Data) -> bytes:
        """Return block ``index`` of the object ``name`` in the form stored on disk."""
        nonce, length = os.urandom(NONCE), len(block).to_bytes(LENGTH, "big")
        encrypted: bytes = self._aead.encrypt(nonce, block, _bound_in(name, index, length))
        return nonce + length + encrypted

    def decode(self, name: bytes, index: int, raw: Data) -> bytes | None:
        """Return the bytes of a block, or None if ``raw`` is another block or was changed."""
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
