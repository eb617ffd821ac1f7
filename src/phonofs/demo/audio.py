"""Recordings that players play: MP3 and WAV of any length, built around a clip. Pure.

The length is exact: an MP3 has whole frames of 36 ms and says their number in an ``Info`` frame,
a WAV has whole samples. Each carries the id of its object, so no two are alike.
"""

import math
import struct
from dataclasses import dataclass
from functools import cache

from phonofs.demo import media as clips
from phonofs.fakeservice.content import Content, Loop

FRAME_MS = 36
"""576 samples at 16 kHz (MPEG-2 Layer III)."""
WAV_RATE = 8000
"""Samples a second, 16 bit, mono: what a telephone line carries."""


@dataclass(frozen=True, slots=True)
class _Format:
    """``frame_bytes`` a frame, ``side_bytes`` of side information before an Info tag."""

    loop: Loop
    frame_bytes: int
    side_bytes: int


_MONO = _Format(Loop(clips.MONO), frame_bytes=72, side_bytes=9)
_STEREO = _Format(Loop(clips.STEREO), frame_bytes=108, side_bytes=17)


def whole_frames_ms(duration_ms: int) -> int:
    """The nearest duration that an MP3 here can have; ffmpeg refuses one of less than 10 frames."""
    return max(10, round(duration_ms / FRAME_MS)) * FRAME_MS


def mp3(title: str, artist: str, duration_ms: int, *, stereo: bool) -> Content:
    """An MP3 of exactly this length (a multiple of ``FRAME_MS``): 2 or 3 kB a second."""
    layout = _STEREO if stereo else _MONO
    frames = duration_ms // FRAME_MS
    audio_bytes = frames * layout.frame_bytes
    head = _id3(title, artist) + _info_frame(layout, frames, audio_bytes)
    return Content(head, layout.loop, len(head) + audio_bytes)


def _info_frame(layout: _Format, frames: int, audio_bytes: int) -> bytes:
    """A frame of silence that says how many frames and bytes follow (the ``Xing`` convention)."""
    tag = b"Info" + struct.pack(">III", 3, frames, audio_bytes + layout.frame_bytes)
    frame = layout.loop.unit[:4] + bytes(layout.side_bytes) + tag
    return frame.ljust(layout.frame_bytes, b"\0")


def _id3(title: str, artist: str) -> bytes:
    """An ID3v2.4 tag; texts in UTF-8 (encoding 3)."""
    body = b"".join(
        name + _syncsafe(len(text)) + bytes(2) + text
        for name, text in ((b"TIT2", _text(title)), (b"TPE1", _text(artist)))
    )
    return b"ID3\x04\x00\x00" + _syncsafe(len(body)) + body


def _text(value: str) -> bytes:
    return b"\x03" + value.replace("\0", " ").encode("utf-8", "replace")


def _syncsafe(number: int) -> bytes:
    return bytes(number >> shift & 0x7F for shift in (21, 14, 7, 0))


def wav(title: str, duration_ms: int) -> Content:
    """A WAV of exactly this length: 16 kB a second."""
    samples = duration_ms * WAV_RATE // 1000
    name = title.encode("utf-8", "replace") + b"\0"
    name += b"\0" * (len(name) % 2)
    info = b"INFO" + _chunk(b"INAM", name)
    form = struct.pack("<HHIIHH", 1, 1, WAV_RATE, WAV_RATE * 2, 2, 16)
    head = b"WAVE" + _chunk(b"fmt ", form) + _chunk(b"LIST", info)
    head += b"data" + struct.pack("<I", samples * 2)
    head = b"RIFF" + struct.pack("<I", len(head) + samples * 2) + head
    return Content(head, _tone(), len(head) + samples * 2)


def _chunk(name: bytes, body: bytes) -> bytes:
    return name + struct.pack("<I", len(body)) + body


@cache
def _tone() -> Loop:
    """A second of two soft tones; both have whole periods in it, so it repeats without a click."""
    values = (
        2600 * math.sin(2 * math.pi * 300 * at / WAV_RATE)
        + 1300 * math.sin(2 * math.pi * 450 * at / WAV_RATE)
        for at in range(WAV_RATE)
    )
    return Loop(struct.pack(f"<{WAV_RATE}h", *(round(value) for value in values)))
