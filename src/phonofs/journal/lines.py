"""The form of a line of the journal, and the chain that lines make. Pure.

A line is a JSON object. It has a number and, as ``prev``, the SHA-256 of the bytes of the line
before it, without its line end. The first line of a journal follows ``GENESIS``. Bytes that are not
a whole line (a power cut) have a number too, and the line behind them is a ``gap``.
"""

import hashlib
import hmac
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache

import msgspec
from msgspec import UNSET, UnsetType

VERSION = 1
GENESIS = "0" * 64
KEYED_DIGITS = 32  # of the hash of a word: 128 bits


class Event(StrEnum):
    """What a line tells of."""

    START = "start"
    STOP = "stop"
    GAP = "gap"
    OPEN = "open"
    CLOSE = "close"
    SEARCH = "search"
    EXPORT = "export"
    PURGED = "purged"


class Result(StrEnum):
    """How an attempt to open an object ended, or what an export did."""

    GRANTED = "granted"
    ARCHIVED = "archived"
    REFUSED = "refused"
    BEGUN = "begun"
    ENDED = "ended"
    STOPPED = "stopped"


class Line(msgspec.Struct, kw_only=True):
    """A line; its number and hash are set when it is written.

    What does not apply to its event is UNSET, what is not known is None.

    v       the version of this form
    n       the number of the line; lines count from 1, across months
    at      when it happened, UTC
    result  of an ``open``: how it ended; of an ``export``: whether it begins or ends
    how     of an ``open``: by a ``mount``, by the ``door``, by ``s3``, or by an ``export``
    object, region, type, call  of an ``open`` or ``purged``: what the record says of the object;
            ids only
    kind    of an ``open``: the recording itself, or what is made of it
    uid, login, pid, program, unit  of an ``open``, ``search`` or ``export``: who did it, see
            ``proc.Process``
    key     of an ``open`` by ``s3``: the name of the key that the request was signed with
    of      of a ``close``: the number of the line of the ``open``; of the end of an ``export``: of
            that of its beginning
    bytes_at_least  of a ``close``: bytes given; the kernel may have given more from its pages
    words   of a ``search``, and of an ``export`` that begins: what was asked for, as keyed hashes
    results of a ``search``: how many objects were found
    paths   of an ``export`` that begins: how many paths were named
    objects, copied, missing  of an ``export`` that ends: how many objects were chosen, files were
            copied and files are missing, as the command says
    freed_bytes  of ``purged``: what that was on disk
    reason  of a ``gap``: what happened; of ``purged``: ``withdrawn`` or ``replaced``
    opens   of a ``gap``: how many files were opened without a line
    version of a ``start``: of phonofs
    prev    the hash of the line before
    """

    v: int = VERSION
    n: int = 0
    at: str = ""
    event: str
    result: str | UnsetType = UNSET
    how: str | UnsetType = UNSET
    object: str | UnsetType = UNSET
    region: str | UnsetType = UNSET
    type: str | UnsetType = UNSET
    call: str | UnsetType | None = UNSET
    kind: str | UnsetType = UNSET
    uid: int | UnsetType | None = UNSET
    login: int | UnsetType | None = UNSET
    pid: int | UnsetType | None = UNSET
    program: str | UnsetType | None = UNSET
    unit: str | UnsetType | None = UNSET
    key: str | UnsetType = UNSET
    of: int | UnsetType = UNSET
    bytes_at_least: int | UnsetType = UNSET
    words: list[str] | UnsetType | None = UNSET
    results: int | UnsetType = UNSET
    paths: int | UnsetType = UNSET
    objects: int | UnsetType = UNSET
    copied: int | UnsetType = UNSET
    missing: int | UnsetType = UNSET
    freed_bytes: int | UnsetType = UNSET
    reason: str | UnsetType = UNSET
    opens: int | UnsetType = UNSET
    version: str | UnsetType = UNSET
    prev: str = ""

    def follow(self, end: "ChainEnd") -> bytes:
        """Make this the line behind ``end``; return its bytes without a line end."""
        self.n = end.n + 1
        self.prev = end.hash
        return _encode(self)


class ChainEnd(msgspec.Struct, frozen=True):
    """The number and the hash of the last line of a chain."""

    n: int = 0
    hash: str = GENESIS

    def after(self, raw: bytes) -> "ChainEnd":
        """Return the end after these bytes, which are one line, whole or not."""
        return ChainEnd(self.n + 1, digest(raw))


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Line).decode


def parse(raw: bytes) -> Line | None:
    """Return a line, or None if these bytes are none."""
    try:
        line = _decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return line if line.n > 0 and len(line.prev) == len(GENESIS) else None


def digest(raw: bytes) -> str:
    """Return the hash of a line, given without its line end."""
    return hashlib.sha256(raw).hexdigest()


def keyed_hash(key: bytes, word: str) -> str:
    """Return what stands for a word of a search: only who has the key can tell which it was."""
    return hmac.digest(key, word.encode(errors="surrogatepass"), "sha256").hex()[:KEYED_DIGITS]


def time_text(epoch_s: float) -> str:
    """Return a time as lines have it: UTC, milliseconds."""
    seconds = int(epoch_s)
    return f"{_second_text(seconds)}.{int((epoch_s - seconds) * 1000):03}Z"


@lru_cache(maxsize=2)
def _second_text(epoch_s: int) -> str:
    return datetime.fromtimestamp(epoch_s, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def month_of(at: str) -> str:
    """Return the month of a time: ``YYYY-MM``."""
    return at[:7]
