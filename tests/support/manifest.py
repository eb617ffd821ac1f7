"""Reads the YAML that contrib/ ships: mappings, lists and scalars, one a line, no more."""

import json
from typing import Any


def parse(text: str) -> Any:
    """Parse the document; scalars are texts, unless they are valid JSON (numbers, true, lists)."""
    lines = [
        (len(line) - len(line.lstrip()), line.strip())
        for line in text.splitlines()
        if line.strip() and not line.lstrip().startswith("#")
    ]
    value, rest = _block(lines, lines[0][0])
    assert rest == [], rest
    return value


def _block(lines: list[tuple[int, str]], indent: int) -> tuple[Any, list[tuple[int, str]]]:
    """Return the value that begins with the first line, and the lines after it."""
    made: Any = [] if lines[0][1].startswith("- ") else {}
    while lines and lines[0][0] == indent:
        words = lines[0][1]
        if words.startswith("- "):
            lines = [(indent + 2, words[2:]), *lines[1:]]
            item, lines = _block(lines, indent + 2)
            made.append(item)
            continue
        key, colon, value = words.partition(":")
        assert colon, words
        lines = lines[1:]
        if value:
            made[key] = _scalar(value.strip())
        else:
            made[key], lines = _block(lines, lines[0][0])
    return made, lines


def _scalar(words: str) -> Any:
    try:
        return json.loads(words)
    except ValueError:
        return words
