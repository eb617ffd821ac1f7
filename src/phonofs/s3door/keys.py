"""The keys that S3 clients sign with, what each may open, and the file that they stand in.

They are keys of phonofs' own, so no client needs the account's. The file is TOML, a table a key::

    [[key]]
    name = "transcription"      # in the journal and the log
    access_key = "TRANSCRIPTION1"
    secret_key = "…"            # at least 32 characters
    prefixes = ["2024/2024-09"] # folders or files, with all that is below; left out: everything
    types = ["callrecording"]   # types of objects; left out: all

Used by the server, which loads the file again on SIGHUP, and by everything that names an object to
a client. All but :func:`load_keys` is pure.
"""

import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from phonofs.config import Secret
from phonofs.config.values import nearest
from phonofs.credentials import LARGEST_FILE, read_credential
from phonofs.errors import UsageError

SECRET_MIN, SECRET_MAX = 32, 256
"""Characters of a secret. A presigned URL lets whoever sees it try secrets without asking us, so
a short one would be found. Amazon's have 40."""

NAME = re.compile(r"[A-Za-z0-9_.@-]{1,64}", re.ASCII)
ACCESS_KEY = re.compile(r"[A-Za-z0-9_-]{3,128}", re.ASCII)
"""Amazon's are ``[A-Z0-9]{20}``; ``/`` and ``,`` would break the header that they stand in."""

FIELDS = ("name", "access_key", "secret_key", "prefixes", "types")


@dataclass(frozen=True, slots=True)
class Key:
    """A key, and what it opens. Its repr shows no secret.

    name        who holds it, for the journal
    prefixes    paths without a slash at either end; empty: everything
    types       types of objects, as in their records; empty: all
    """

    name: str
    access_key: str
    secret_key: Secret
    prefixes: tuple[str, ...] = ()
    types: frozenset[str] = frozenset()

    def opens_type(self, object_type: str) -> bool:
        """Return whether the key may open objects of a type."""
        return not self.types or object_type in self.types

    def covers(self, path: str) -> bool:
        """Return whether a path is one of the prefixes, or below one."""
        return not self.prefixes or any(
            path == each or path.startswith(f"{each}/") for each in self.prefixes
        )

    def reaches(self, prefix: str) -> bool:
        """Return whether the key may open any path that begins with ``prefix``.

        ``prefix`` is that of a listing: any text, as in ``2024/2024-0``. Types do not matter here.
        """
        return not self.prefixes or any(
            each.startswith(prefix) or prefix.startswith(f"{each}/") for each in self.prefixes
        )


class Keys:
    """The keys of one file. Immutable: a file that was changed makes another one."""

    def __init__(self, keys: Iterable[Key] = ()) -> None:
        self._keys = {key.access_key: key for key in keys}

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, access_key: str) -> Key | None:
        """Return the key with this public part, None if there is none."""
        return self._keys.get(access_key)


def load_keys(path: Path, environment: Mapping[str, str] | None = None) -> Keys:
    """Return the keys of a file.

    Raises UsageError, in one sentence without any secret, if others than its owner can read the
    file (a credential of systemd excepted, see :func:`read_credential`), or if anything in it is
    wrong: then none of its keys counts.
    """
    content = read_credential(path, os.environ if environment is None else environment)
    if content is None:
        raise UsageError(f"the file of keys {path} does not exist")
    if len(content) >= LARGEST_FILE:
        raise UsageError(f"{path} is too large for a file of keys")
    try:
        return Keys(_keys(content.decode("utf-8")))
    except tomllib.TOMLDecodeError as error:  # its message names a line, and no text
        raise UsageError(f"{path} is not valid TOML: {_place(error)}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not valid TOML: it is not UTF-8") from None
    except RecursionError:
        raise UsageError(f"{path} is not valid TOML: it is nested too deeply") from None
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from None


def _place(error: tomllib.TOMLDecodeError) -> str:
    """Return where the error is. What it quotes is left out: that may be a piece of a secret."""
    place = re.search(r"\(at [^()]*\)$", str(error))
    return f"there is an error {place[0][1:-1]}" if place else "it cannot be read"


def _keys(text: str) -> list[Key]:
    document = tomllib.loads(text)
    tables = document.pop("key", [])
    if document:
        raise ValueError(f"{next(iter(document))!a} is unknown: each key is a table [[key]]")
    if not isinstance(tables, list) or not all(isinstance(each, dict) for each in tables):
        raise ValueError("each key is a table [[key]], with two brackets")
    if not tables:
        raise ValueError("there is no key in it: each is a table [[key]]")
    keys = [_key(table, f"key {number}") for number, table in enumerate(tables, 1)]
    for what in ("name", "access_key"):
        values = [getattr(key, what) for key in keys]
        for value in values:
            if values.count(value) > 1:
                raise ValueError(f"two keys have the {what} {value}")
    return keys


def _key(table: dict[str, object], where: str) -> Key:
    """Return the key of a table. Raises ValueError, with ``where`` and without the secret."""
    for field in table:
        if field not in FIELDS:
            raise ValueError(f"{where}: {field!a} is unknown{nearest(field, FIELDS)}")
    name = _text(table, "name", where)
    if not NAME.fullmatch(name):
        raise ValueError(f"{where}: name must be 1 to 64 letters, digits, or any of _ . @ -")
    where = f"{where} ({name})"
    access_key = _text(table, "access_key", where)
    if not ACCESS_KEY.fullmatch(access_key):
        raise ValueError(f"{where}: access_key must be 3 to 128 letters, digits, _ or -")
    return Key(
        name,
        access_key,
        _secret(table, where),
        tuple(_prefix(each, where) for each in _list(table, "prefixes", where)),
        frozenset(_list(table, "types", where)),
    )


def _text(table: Mapping[str, object], field: str, where: str) -> str:
    if field not in table:
        raise ValueError(f"{where}: {field} is missing")
    value = table[field]
    if not isinstance(value, str):
        raise ValueError(f"{where}: {field} must be a text in quotes")
    return value


def _secret(table: Mapping[str, object], where: str) -> Secret:
    secret = _text(table, "secret_key", where)
    if not SECRET_MIN <= len(secret) <= SECRET_MAX:
        raise ValueError(
            f"{where}: secret_key must have {SECRET_MIN} to {SECRET_MAX} characters; "
            "`openssl rand -hex 32` makes one"
        )
    if not re.fullmatch(r"[!-~]+", secret):
        raise ValueError(f"{where}: secret_key must be printable ASCII without spaces")
    return Secret(secret)


def _list(table: Mapping[str, object], field: str, where: str) -> list[str]:
    """Return the texts of a list; an empty list would open nothing or everything: refused."""
    if field not in table:
        return []
    value = table[field]
    if not isinstance(value, list) or not all(isinstance(each, str) and each for each in value):
        raise ValueError(f"{where}: {field} must be a list of texts in quotes")
    if not value:
        raise ValueError(f"{where}: {field} is empty; leave it out to open everything")
    return value


def _prefix(text: str, where: str) -> str:
    path = text.removesuffix("/")
    if not path or any(part in ("", ".", "..") for part in path.split("/")):
        raise ValueError(
            f"{where}: {text!a} is not a path of the tree, such as '2024/2024-09' or 'us-east'"
        )
    return path
