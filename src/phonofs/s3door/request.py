"""One request of an S3 client, as it was received: raw where its signature is about the raw form.

Pure. Made by the server, read by all of ``s3door/``. What cannot be read without doubt is refused:
a parameter given twice, a percent-encoding that is none, a path that is not UTF-8.
"""

import re
from collections.abc import Iterable, KeysView
from dataclasses import dataclass, field
from functools import lru_cache
from urllib.parse import unquote_to_bytes

from phonofs.s3door.errors import S3Error

PARAMETERS_MAX = 100
"""The most parameters of a query; the longest signed request of S3 has about twenty."""

KEY_MAX = 1024
"""The most bytes of a key ("Naming Amazon S3 objects" in its User Guide)."""

_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


@dataclass(frozen=True, slots=True)
class Request:
    """A request whose head and body were received whole.

    method   as sent: methods are case-sensitive
    path     percent-encoded as sent, up to the ``?``; begins with ``/``
    query    percent-encoded as sent, after the ``?``
    headers  names in lower case, values as latin-1, in the order sent
    body     as sent, without the transfer coding
    """

    method: str
    path: str
    query: str
    headers: tuple[tuple[str, str], ...]
    body: bytes = b""
    _values: dict[str, tuple[str, ...]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Gather the values of each header."""
        values: dict[str, tuple[str, ...]] = {}
        for name, value in self.headers:
            values[name] = (*values[name], value) if name in values else (value,)
        object.__setattr__(self, "_values", values)

    @classmethod
    def of(
        cls, method: bytes, target: bytes, headers: Iterable[tuple[bytes, bytes]], body: bytes = b""
    ) -> "Request":
        """Return the request of a head as a parser of HTTP gives it.

        Raises S3Error unless the target is a path with an optional query in ASCII.
        """
        if not target.startswith(b"/") or not target.isascii():
            raise S3Error("InvalidURI", "the target of the request is not a path in ASCII")
        path, _, query = target.decode("ascii").partition("?")
        fields = tuple(
            (name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in headers
        )
        return cls(method.decode("latin-1"), path, query, fields, body)

    @property
    def names(self) -> KeysView[str]:
        """The names of the headers that were sent."""
        return self._values.keys()

    def values(self, name: str) -> tuple[str, ...]:
        """Return the values of a header, as often as it was sent. ``name`` is in lower case."""
        return self._values.get(name, ())

    def header(self, name: str) -> str | None:
        """Return the value of a header, None if it was not sent. ``name`` is in lower case.

        Of one that was sent again, the values are joined by commas (RFC 9110, 5.3).
        """
        values = self._values.get(name)
        return None if values is None else ",".join(values)

    @property
    def parameters(self) -> dict[str, str]:
        """The decoded parameters of the query; one without ``=`` has the value ''.

        Raises S3Error if a parameter is given twice, or cannot be decoded.
        """
        if not self.query:
            return {}
        if self.query.count("&") >= PARAMETERS_MAX:
            raise S3Error("InvalidArgument", "the query has too many parameters")
        found: dict[str, str] = {}
        for part in filter(None, self.query.split("&")):
            name, _, value = (decoded(each) for each in part.replace("+", " ").partition("="))
            if name in found:
                raise S3Error("InvalidArgument", "the query has a parameter more than once")
            found[name] = value
        return found

    @property
    def decoded_path(self) -> str:
        """The path that the client means. Raises S3Error if it cannot be decoded."""
        return decoded(self.path)

    @property
    def bucket(self) -> str:
        """The first part of the decoded path; '' if the request is about no bucket."""
        return _place(self.path)[0]

    @property
    def key(self) -> str:
        """The decoded path after the bucket, taken as it is: ``..`` and ``//`` mean nothing.

        '' if the request is about the bucket itself. Raises S3Error if it is too long.
        """
        _, key, length = _place(self.path)
        if length > KEY_MAX:
            raise S3Error("KeyTooLongError", f"a key has at most {KEY_MAX} bytes")
        return key


@lru_cache(maxsize=8)  # of one request its path is asked for again and again
def decoded(text: str) -> str:
    """Return percent-encoded text as the text it stands for. Raises S3Error if it is not UTF-8."""
    if "%" not in text and text.isascii():
        return text
    try:
        if _BAD_ESCAPE.search(text):
            raise ValueError("not percent-encoded")
        return unquote_to_bytes(text).decode("utf-8")
    except ValueError:
        raise S3Error("InvalidURI", "the URI is not UTF-8 in percent-encoding") from None


@lru_cache(maxsize=8)  # likewise
def _place(path: str) -> tuple[str, str, int]:
    """Return the bucket and the key of a path, and the bytes of the key. Raises S3Error."""
    bucket, _, key = decoded(path)[1:].partition("/")
    return bucket, key, len(key.encode())
