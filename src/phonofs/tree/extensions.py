"""Chooses the extension of a file name. Pure.

Desktops read (and so download) a file if its name does not tell its type, so the extension must
agree with ``mimeType``. The table is our own: the system's table differs between machines, and
file names must not.
"""

from functools import lru_cache

_BY_MIME: dict[str, tuple[str, ...]] = {
    "application/gzip": ("gz", "tgz"),
    "application/json": ("json",),
    "application/pdf": ("pdf",),
    "application/rtf": ("rtf",),
    "application/vnd.ms-excel": ("xls", "csv"),
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": ("xlsx",),
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": ("docx",),
    "application/x-ndjson": ("ndjson", "jsonl"),
    "application/xml": ("xml",),
    "application/zip": ("zip",),
    "audio/aac": ("aac",),
    "audio/amr": ("amr",),
    "audio/basic": ("au",),
    "audio/flac": ("flac",),
    "audio/mp3": ("mp3",),
    "audio/mp4": ("m4a", "mp4"),
    "audio/mpeg": ("mp3", "mpga", "mp2"),
    "audio/ogg": ("ogg", "oga", "opus"),
    "audio/opus": ("opus", "ogg"),
    "audio/vnd.wave": ("wav",),
    "audio/wav": ("wav",),
    "audio/wave": ("wav",),
    "audio/webm": ("weba", "webm"),
    "audio/x-flac": ("flac",),
    "audio/x-m4a": ("m4a",),
    "audio/x-wav": ("wav",),
    "image/gif": ("gif",),
    "image/jpeg": ("jpg", "jpeg"),
    "image/png": ("png",),
    "image/svg+xml": ("svg",),
    "image/tiff": ("tif", "tiff"),
    "image/webp": ("webp",),
    "message/rfc822": ("eml",),
    "text/calendar": ("ics",),
    "text/csv": ("csv",),
    "text/html": ("html", "htm"),
    "text/json": ("json",),
    "text/markdown": ("md",),
    "text/plain": ("txt", "text", "log", "srt", "vtt", "csv", "md"),
    "text/vtt": ("vtt",),
    "text/xml": ("xml",),
    "video/mp4": ("mp4", "m4v"),
    "video/mpeg": ("mpg", "mpeg"),
    "video/quicktime": ("mov", "qt"),
    "video/webm": ("webm",),
    "video/x-matroska": ("mkv",),
    "video/x-msvideo": ("avi",),
}

UNKNOWN = "bin"
"""The extension if neither the name nor the type gives one; every file has an extension."""

LONGEST = 8
"""Bytes of the longest extension taken from a name; anything longer is not an extension."""


@lru_cache(maxsize=256)
def _plausible(mime_type: str) -> tuple[str, ...] | None:
    """Return the extensions of a type, the usual one first; None for an unknown type."""
    return _BY_MIME.get(mime_type.partition(";")[0].strip().lower())


def _written(object_name: str) -> str:
    """Return the extension of an ``objectName`` in lower case, or '' if it has none.

    An extension must contain a letter: ``.2`` at the end of a name is a version or a number.
    """
    _, dot, tail = object_name[-LONGEST - 2 :].rstrip().rpartition(".")
    fits = dot and len(tail) <= LONGEST and tail.isascii() and tail.isalnum()
    return tail.lower() if fits and not tail.isdecimal() else ""


def extension(mime_type: str, object_name: str) -> str:
    """Return the extension in lower case, without the dot; it is never empty.

    The extension of ``object_name`` is used if it is plausible for ``mime_type``, else the usual
    one of ``mime_type``. For a type unknown here, the name's extension is used, else ``bin``.
    """
    plausible = _plausible(mime_type)
    if plausible is not None and object_name.endswith(f".{plausible[0]}"):
        return plausible[0]  # the usual case
    written = _written(object_name)
    if plausible is None:
        return written or UNKNOWN
    return written if written in plausible else plausible[0]
