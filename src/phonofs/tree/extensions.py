"""Which extension a file gets. Pure.

Desktops look into a file (and so download it) where the name leaves its type in doubt, so the
extension must agree with ``mimeType``. The table is our own: the system's differs from machine
to machine, and a name must not.
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
"""The extension where neither the name nor the type says one; every file has an extension."""

LONGEST = 8
"""Bytes of the longest extension that is taken from a name; longer ones are no extensions."""


@lru_cache(maxsize=256)
def _plausible(mime_type: str) -> tuple[str, ...] | None:
    """The extensions of a type, the usual one first; None for an unknown one."""
    return _BY_MIME.get(mime_type.partition(";")[0].strip().lower())


def _written(object_name: str) -> str:
    """The extension an ``objectName`` ends in, lower case; empty where it has none.

    Without a letter it is no extension: names end in ``.2`` of a version or a number.
    """
    _, dot, tail = object_name[-LONGEST - 2 :].rstrip().rpartition(".")
    fits = dot and len(tail) <= LONGEST and tail.isascii() and tail.isalnum()
    return tail.lower() if fits and not tail.isdecimal() else ""


def extension(mime_type: str, object_name: str) -> str:
    """The extension, without the dot, lower case, never empty.

    That of ``object_name`` where it is plausible for ``mime_type``, else that of ``mime_type``;
    for a type that is unknown here, what the name says, else ``bin``.
    """
    plausible = _plausible(mime_type)
    if plausible is not None and object_name.endswith(f".{plausible[0]}"):
        return plausible[0]  # nearly always
    written = _written(object_name)
    if plausible is None:
        return written or UNKNOWN
    return written if written in plausible else plausible[0]
