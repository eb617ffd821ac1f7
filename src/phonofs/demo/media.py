"""Makes playable recordings of any length (MP3, WAV, MP4) from the clips in ``data``.

The length is exact: an MP3 has whole frames of 36 ms, a WAV whole samples, an MP4 16 pictures of
the same length. Each recording contains the title it is given, so that two objects differ.

The clips were made with ffmpeg 5.1: ``mono.mp3`` and ``stereo.mp3`` are 28 frames (MPEG-2 Layer
III, 16 kHz, 16 and 24 kbit/s; libmp3lame with ``-reservoir 0 -write_xing 0``, so that any frame
can follow any other), ``screen.mp4`` is 16 pictures (H.264 baseline, 320x180, libx264 with
``keyint=8``), ``tone.wav`` whole periods of two tones (8 kHz, 16 bit, mono: a telephone line).
"""

import struct
from importlib.resources import files

from phonofs.fakeservice.content import Content, Loop, plain

FRAME_MS = 36
"""576 samples at 16 kHz."""
PICTURES = 16
"""The number of pictures in the clip."""


def _clip(name: str) -> bytes:
    return (files("phonofs.demo") / "data" / name).read_bytes()


_MONO, _STEREO = Loop(_clip("mono.mp3")), Loop(_clip("stereo.mp3"))
_TONE_HEAD = _clip("tone.wav")[:44]
_TONE = Loop(_clip("tone.wav")[44:])
_SCREEN = _clip("screen.mp4")


def whole_frames_ms(duration_ms: int) -> int:
    """Round a duration to whole MP3 frames, at least 10: ffmpeg refuses an MP3 with fewer."""
    return max(10, round(duration_ms / FRAME_MS)) * FRAME_MS


def mp3(title: str, artist: str, duration_ms: int, *, stereo: bool) -> Content:
    """Make an MP3 of exactly this length (a multiple of ``FRAME_MS``), 2 or 3 kB a second."""
    loop, frame_bytes, side_bytes = (_STEREO, 108, 17) if stereo else (_MONO, 72, 9)
    frames = duration_ms // FRAME_MS
    # A silent frame states the number of frames and bytes that follow (the Xing convention).
    info = b"Info" + struct.pack(">III", 3, frames, (frames + 1) * frame_bytes)
    silence = (loop.unit[:4] + bytes(side_bytes) + info).ljust(frame_bytes, b"\0")
    head = _id3(TIT2=title, TPE1=artist) + silence
    return Content(head, loop, len(head) + frames * frame_bytes)


def _id3(**fields: str) -> bytes:
    """Make an ID3v2.4 tag; its texts are in UTF-8 (encoding 3)."""
    body = b""
    for name, value in fields.items():
        text = b"\x03" + value.replace("\0", " ").encode("utf-8", "replace")
        body += name.encode() + _syncsafe(len(text)) + bytes(2) + text
    return b"ID3\x04\x00\x00" + _syncsafe(len(body)) + body


def _syncsafe(number: int) -> bytes:
    return bytes(number >> shift & 0x7F for shift in (21, 14, 7, 0))


def wav(title: str, duration_ms: int) -> Content:
    """Make a WAV of exactly this length, 16 kB a second."""
    data_bytes = duration_ms * 8 * 2
    name = title.encode("utf-8", "replace") + b"\0"
    name += b"\0" * (len(name) % 2)
    info = struct.pack("<4sI4s4sI", b"LIST", 12 + len(name), b"INFO", b"INAM", len(name)) + name
    head = _TONE_HEAD[8:36] + info + struct.pack("<4sI", b"data", data_bytes)
    head = b"RIFF" + struct.pack("<I", len(head) + data_bytes) + head
    return Content(head, _TONE, len(head) + data_bytes)


def mp4(title: str, seconds: int) -> Content:
    """Make an MP4 of exactly this many seconds (at least 1): the clip, with longer pictures.

    Only times are written into its boxes, and a box with the title is added at the end
    (ISO/IEC 14496-12).
    """
    movie, name = bytearray(_SCREEN), title.encode("utf-8", "replace")
    for box, offset, number in (
        (b"mvhd", 20, seconds * 1000),  # in milliseconds, as the clip has it
        (b"tkhd", 24, seconds * 1000),
        (b"mdhd", 16, PICTURES),  # time units in a second
        (b"mdhd", 20, seconds * PICTURES),
        (b"stts", 16, seconds),  # time units of each picture
    ):
        struct.pack_into(">I", movie, movie.index(box) + offset, number)
    return plain(bytes(movie) + struct.pack(">I4s", 8 + len(name), b"free") + name)
