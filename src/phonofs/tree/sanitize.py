"""Text that others wrote, made safe for a file name. Pure.

A caller's display name is an attacker's input. What comes out of :func:`clean` neither leaves
its folder, nor drives a terminal, nor hides what it says, nor means something to Samba.
"""

import re
import unicodedata
from functools import lru_cache

_WORD = r"[0-9A-Za-z+@,=&'()!#$%^{}\[\]~`;_]+"
_PLAIN = re.compile(f"{_WORD}(?:[-.]{_WORD})*")
"""What needs no cleaning: most values, so most of the time is saved here."""

_INVISIBLE = frozenset(
    [
        *(0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0),
        *range(0x180B, 0x1810),
        *range(0xFE00, 0xFE10),
        *range(0xE0000, 0xE1000),
    ]
)
"""Characters that take no room or no ink but are not of category Cf (Default_Ignorable)."""

_RESERVED = frozenset('/\\<>:"|?*')
"""The path separator, and what Windows (so Samba) reserves."""

_DEVICE = re.compile(r"(?:con|prn|aux|nul|(?:com|lpt)[0-9¹²³])\s*(?:\.|\Z)", re.IGNORECASE)
"""Names that Windows takes for devices, whatever extension follows."""

_DEVICES_BEGIN = "cpanlCPANL"
"""What their names begin with: of most files nothing else is looked at."""

_BREAKS = frozenset("\t\n\v\f\r\x1c\x1d\x1e\x1f\x85")
"""Control characters that part words."""

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
    """``text`` in NFC, without what is not to be seen; spaces and reserved ones as ``-``."""
    if text.isascii():
        return "".join(map(_replacement, text))
    text = unicodedata.normalize("NFC", text)
    return unicodedata.normalize("NFC", "".join(map(_replacement, text)))


@lru_cache(maxsize=4096)  # types, agents and directions come again and again
def clean(text: str) -> str:
    """One field of a name: visible, spaces to ``-`` (one for a run), no edge of ``-`` or ``.``.

    Total and idempotent; may be empty. ``+`` is kept, numbers begin with it.
    """
    if _PLAIN.fullmatch(text):
        return text
    return _DASHES.sub("-", visible(text)).strip(_EDGES)


def cut(text: str, size: int) -> str:
    """The longest beginning of ``text`` of at most ``size`` bytes that ends at a code point."""
    return text.encode()[: max(size, 0)].decode(errors="ignore").rstrip(_EDGES)


def is_device(name: str) -> bool:
    """Whether Windows would take ``name`` for a device, as ``con.mp3``."""
    return name[:1] in _DEVICES_BEGIN and _DEVICE.match(name) is not None
