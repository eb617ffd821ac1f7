"""Makes a text safe for a cell of a spreadsheet. Pure.

A caller's name is an attacker's input, and a spreadsheet runs a cell that begins like a formula
(OWASP, "CSV injection"). It may also take ``;`` for the separator, where that is the custom, so
each part between two of them is looked at.
"""

import re
import unicodedata

_FORMULA = re.compile(
    r"(^|;)(?=[\s\"]*(?:[=@＝＠\uFE66\uFE6B]|[+\-＋－\uFE62\uFE63\u2212](?![0-9][0-9.]*(?:;|\Z))))"
)
"""Where a cell may begin with a formula, also with the wide and the small forms of its signs. A
number with a sign, as +12025550148, is none."""


def cell(text: str) -> str:
    """Return a text that no spreadsheet runs and no terminal obeys.

    ``'`` is put before what looks like a formula, which makes it a text. Control characters become
    spaces, invisible ones go.
    """
    if not text.isprintable():
        text = "".join(map(_shown, text))
    if not text or (text[:1].isalnum() and ";" not in text):
        return text  # nearly all
    return _FORMULA.sub(r"\1'", text)


def _shown(character: str) -> str:
    category = unicodedata.category(character)
    if category in ("Cf", "Cs"):
        return ""
    return " " if category in ("Cc", "Zl", "Zp") else character
