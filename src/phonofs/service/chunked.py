"""Decodes the chunked transfer coding (RFC 9112, 7.1) at a small, bounded cost per chunk. Pure.

h11 takes 15 us for each chunk, however small; a body with one byte per chunk would block the event
loop for seconds.
"""

import re

import httpx

Data = bytes | memoryview

LONGEST_LINE = 4096
"""Bytes of the line before a chunk, including its extensions."""

LARGEST_TRAILER = 1 << 14
"""Bytes of the header lines after the last chunk; they are read and dropped."""

CHUNKS_AT_ONCE = 2000
"""Chunks decoded before other tasks run: about 2 ms."""

PIECE_BYTES = 1 << 16
"""Chunks are joined until they have this many bytes."""

SMALL_CHUNK = 16
MOST_SMALL_CHUNKS = 1 << 18
"""This many chunks may have any length (a third of a second of work), and one more is allowed for
every 16 bytes received. Servers that flush after each word stay far below it."""

_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[^\r\n]*)?\r\n")
_LATER_LINE = re.compile(rb"\r\n" + _LINE.pattern)
_TRAILER_END = re.compile(rb"(?:\A|\n)\r?\n")
_TEXT = rb"[^\x00\n\v\f\r]*\r?\n"
_TRAILER = re.compile(
    rb"(?:[-!#$%&'*+.^_`|~0-9A-Za-z]+:" + _TEXT + rb"(?:[ \t]" + _TEXT + rb")*)*\r?\n"
)
"""Header lines as h11 accepts them, folded ones too, and the empty line."""


class ChunkedDecoder:
    """Decodes one body from the bytes as they arrive.

    ended     the last chunk and its trailer were read
    wasteful  there are too many chunks for so few bytes: the caller should stop
    leftover  bytes that came after the end of the body
    Owns the bytes that were fed and are not decoded yet. A piece may be a view of a fed buffer.
    """

    def __init__(self) -> None:
        self.ended = False
        self.leftover = b""
        self._data: Data = b""
        self._at = 0
        self._left = 0
        self._line = _LINE
        self._chunks = 0
        self._received = 0
        self._trailer = False

    @property
    def wasteful(self) -> bool:
        """Whether the chunks are so small that decoding them costs too much."""
        return self._chunks > MOST_SMALL_CHUNKS + self._received // SMALL_CHUNK

    def feed(self, data: Data) -> None:
        """Add received bytes; call it only after :meth:`decode` returned no bytes."""
        self._data = b"".join((self._data, data)) if self._data else data

    def decode(self) -> Data:
        """Return the next bytes of the body; empty if more must be fed first, or at the end.

        Raises httpx.RemoteProtocolError if they are not valid.
        """
        pieces: list[Data] = []
        size, most = 0, self._chunks + CHUNKS_AT_ONCE
        while size < PIECE_BYTES and self._chunks < most:
            if not self._left and not self._next_chunk():
                break
            piece = self._data[self._at : self._at + self._left]
            if not piece:
                break
            pieces.append(piece)
            size += len(piece)
            self._at += len(piece)
            self._left -= len(piece)
        self._received += size
        if not pieces:
            self._data, self._at = bytes(self._data[self._at :]), 0  # the view may become invalid
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _next_chunk(self) -> bool:
        """Read the line before a chunk; return False if it is incomplete or no chunk follows."""
        if self.ended or (self._trailer and not self._read_trailer()):
            return False
        match = self._line.match(self._data, self._at)
        if match is None:
            self._check_incomplete(LONGEST_LINE)
            return False
        self._at = match.end()
        self._left = int(match[1], 16)
        self._line = _LATER_LINE
        self._chunks += 1
        if self._left == 0:
            self._trailer = True
            self._read_trailer()
        return self._left > 0

    def _read_trailer(self) -> bool:
        rest = bytes(self._data[self._at :])
        end = _TRAILER_END.search(rest)
        if end is None:
            self._check_incomplete(LARGEST_TRAILER)
        elif not _TRAILER.fullmatch(rest, 0, end.end()):
            raise httpx.RemoteProtocolError("the lines after the last chunk are no headers")
        else:
            self.ended = True
            self.leftover = rest[end.end() :]
            self._data, self._at = b"", 0
        return False

    def _check_incomplete(self, most_bytes: int) -> None:
        """Raise httpx.RemoteProtocolError if the undecoded bytes cannot begin a valid line."""
        rest = bytes(self._data[self._at : self._at + most_bytes + 1])
        whole = not self._trailer and b"\n" in rest[2 if self._line is _LATER_LINE else 0 :]
        if whole or len(rest) > most_bytes:
            raise httpx.RemoteProtocolError("no chunk, or a line without end")
