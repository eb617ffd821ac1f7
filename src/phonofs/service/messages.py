"""Requests to the service and their whole responses. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from phonofs.service.content_headers import Headers

STORAGE, TOKENS = "storage", "tokens"
"""Kinds of requests to one origin; a 429 pauses only requests of its own kind."""


@dataclass(frozen=True, slots=True)
class Token:
    """A bearer token. It is valid ``until`` (trio's clock); ``generation`` is its number."""

    value: str = field(repr=False)
    generation: int
    until: float


@dataclass(frozen=True, slots=True)
class Request:
    """One request: its ``kind`` for the statistics, and what is sent.

    ``throttled_with`` (:data:`STORAGE` or :data:`TOKENS`) says which requests to the same origin
    a 429 pauses together.
    """

    kind: str
    url: str = field(repr=False)
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)
    throttled_with: str = STORAGE


@dataclass(frozen=True, slots=True)
class Response:
    """A whole response: status, headers (lower case), body, and the token of its request.

    ``pause_s`` is how long the service asks to wait before the next try.
    """

    status: int
    headers: Headers
    body: bytes = field(repr=False)
    token: Token | None = None
    pause_s: float | None = None
