"""Makes untrusted text safe for a file name. Pure.

An attacker can choose a caller's display name. A result of :func:`clean` cannot leave its
directory, control a terminal, hide characters or have a special meaning for Samba.
"""

import re
import unicodedata
from functools import lru_cache

_WORD = r"[0-9A-Za-z+@,=&'()!#$%^{}\[\]~`;_]+"
_PLAIN = re.compile(f"{_WORD}(?:[-.]{_WORD})*")
"""Text that needs no cleaning. Most values match, so this saves most of the time."""

_INVISIBLE = frozenset(
    [
        *(0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0),
        *range(0x180B, 0x1810),
        *range(0xFE00, 0xFE10),
        *range(0xE0000, 0xE1000),
    ]
)
"""Invisible characters that are not of category Cf (Default_Ignorable)."""

_RESERVED = frozenset('/\\<>:"|?*')
"""The path separator, and the characters that Windows (so Samba) reserves."""

_DEVICE = re.compile(r"(?:con|prn|aux|nul|(?:com|lpt)[0-9¹²³])\s*(?:\.|\Z)", re.IGNORECASE)
"""Names that Windows treats as devices, whatever extension follows."""

_DEVICES_BEGIN = "cpanlCPANL"
"""The first letters of device names; most names fail this cheap test."""

_BREAKS = frozenset("\t\n\v\f\r\x1c\x1d\x1e\x1f\x85")
"""Control characters that separate words."""

_DASHES = re.compile(r"-{2,}")
_EDGES = "-. "


def _replacement(character: str) -> str:
    code = ord(character)
    category = unicodedata.category(character)
    if character in _RESERVED or character in _BREAKS or category[0] == "Z":
        return "-"
    unseen = category in ("Cc", "Cf", "Cs") or code in _INVISIBLE
    nothing = code & 0xFFFE == 0xFFFE or 0xFDD0 <= code <= 0xFDEF
    return "" if unseen or nothing else character


def visible(text: str) -> str:
    """Return ``text`` in NFC; spaces and reserved characters become ``-``, invisible ones go."""
    if text.isascii():
        return "".join(map(_replacement, text))
    text = unicodedata.normalize("NFC", text)
    return unicodedata.normalize("NFC", "".join(map(_replacement, text)))


@lru_cache(maxsize=4096)  # types, agents and directions repeat
def clean(text: str) -> str:
    """Return one field of a name: visible, one ``-`` for a run of spaces, no ``-`` or ``.`` ends.

    Accepts any text and is idempotent; the result may be empty. ``+`` is kept, because phone
    numbers begin with it.
    """
    if _PLAIN.fullmatch(text):
        return text
    return _DASHES.sub("-", visible(text)).strip(_EDGES)


def cut(text: str, size: int) -> str:
    """Return the longest prefix of ``text`` of at most ``size`` bytes, cut at a code point."""
    return text.encode()[: max(size, 0)].decode(errors="ignore").rstrip(_EDGES)


def is_device(name: str) -> bool:
    """Return whether Windows would treat ``name`` as a device, such as ``con.mp3``."""
    return name[:1] in _DEVICES_BEGIN and _DEVICE.match(name) is not None
