"""Screen recordings that players play: MP4 of any number of seconds, built around a clip. Pure.

The boxes are those of ISO/IEC 14496-12, as few as players accept; one picture a second.
"""

import struct
from itertools import accumulate

from phonofs.demo import media as clips
from phonofs.fakeservice.content import Content, Loop

WIDTH, HEIGHT = 320, 180
_TURN = len(clips.SCREEN_SIZES)
_KEY_EVERY = 8
"""Every eighth picture of the clip stands alone."""
_LOOP = Loop(clips.SCREEN)
_MATRIX = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)


def mp4(title: str, seconds: int) -> Content:
    """An MP4 of exactly this many seconds (at least 1): 130 bytes a second."""
    sizes = [clips.SCREEN_SIZES[at % _TURN] for at in range(seconds)]
    media_bytes = list(accumulate(sizes))[-1]
    start = _box(b"ftyp", b"isom" + struct.pack(">I", 512) + b"isomiso2avc1mp41")
    start += _box(b"free", title.encode("utf-8", "replace"))
    offset = len(start) + len(_moov(sizes, 0)) + 8
    head = start + _moov(sizes, offset) + struct.pack(">I4s", 8 + media_bytes, b"mdat")
    return Content(head, _LOOP, len(head) + media_bytes)


def _box(name: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I4s", 8 + len(body), name) + body


def _full(name: bytes, flags: int, *parts: bytes) -> bytes:
    return _box(name, struct.pack(">I", flags), *parts)


def _moov(sizes: list[int], offset: int) -> bytes:
    """The description of ``sizes`` pictures that lie in one run from ``offset`` on."""
    length_ms = len(sizes) * 1000
    movie = struct.pack(">IIIIIH10x", 0, 0, 1000, length_ms, 0x10000, 0x100)
    next_track = struct.pack(">I", 2)
    header = _full(b"mvhd", 0, movie, _MATRIX, bytes(24), next_track)
    return _box(b"moov", header, _track(sizes, offset, length_ms))


def _track(sizes: list[int], offset: int, length_ms: int) -> bytes:
    shown = struct.pack(">IIIII8xHHH2x", 0, 0, 1, 0, length_ms, 0, 0, 0)
    frame = struct.pack(">II", WIDTH << 16, HEIGHT << 16)
    header = _full(b"tkhd", 3, shown, _MATRIX, frame)
    media = _full(b"mdhd", 0, struct.pack(">IIIIHH", 0, 0, 1000, length_ms, 0x55C4, 0))
    handler = _full(b"hdlr", 0, bytes(4), b"vide", bytes(12), b"screen\0")
    here = _full(b"dref", 0, struct.pack(">I", 1), _full(b"url ", 1))
    info = _box(b"minf", _full(b"vmhd", 1, bytes(8)), _box(b"dinf", here), _table(sizes, offset))
    return _box(b"trak", header, _box(b"mdia", media, handler, info))


def _table(sizes: list[int], offset: int) -> bytes:
    count = len(sizes)
    keys = range(1, count + 1, _KEY_EVERY)
    return _box(
        b"stbl",
        _full(b"stsd", 0, struct.pack(">I", 1), _entry()),
        _full(b"stts", 0, struct.pack(">III", 1, count, 1000)),
        _full(b"stss", 0, struct.pack(f">I{len(keys)}I", len(keys), *keys)),
        _full(b"stsc", 0, struct.pack(">IIII", 1, 1, count, 1)),
        _full(b"stsz", 0, struct.pack(f">II{count}I", 0, count, *sizes)),
        _full(b"stco", 0, struct.pack(">II", 1, offset)),
    )


def _entry() -> bytes:
    """What a decoder must know: H.264, 72 dpi, 24 bit, one picture a sample."""
    seen = struct.pack(">6xH16xHHIIIH32xHh", 1, WIDTH, HEIGHT, 0x480000, 0x480000, 0, 1, 24, -1)
    return _box(b"avc1", seen, _box(b"avcC", clips.SCREEN_AVCC))
