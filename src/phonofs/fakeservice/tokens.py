"""Issues and checks bearer tokens and presigned URLs. Pure; the caller passes the time."""

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, urlencode

from phonofs.fakeservice.options import Options
from phonofs.fakeservice.responses import Answer, Request, of_json


class Tokens:
    """The issued tokens. Owns them and the second each expires at (on the clock of ``now_s``)."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._dies_s: dict[str, float] = {}

    def answer(self, request: Request, now_s: float, wall_ms: int) -> tuple[Answer, bool]:
        """Return the answer to a token request, and whether a token was issued."""
        if not self._is_client(request.headers.get("authorization", "")):
            return of_json(401, {"error": "invalid_client", "ErrorCode": "invalid_client"}), False
        if _form(request).get("grant_type") != "client_credentials":
            return of_json(400, {"error": "unsupported_grant_type"}), False
        return of_json(200, self._issue(now_s, wall_ms)), True

    def _is_client(self, authorization: str) -> bool:
        scheme, _, encoded = authorization.partition(" ")
        try:
            given = base64.b64decode(encoded.strip(), validate=True)
        except (binascii.Error, ValueError):
            return False
        wanted = f"{self._options.key}:{self._options.secret}".encode()
        return scheme.lower() == "basic" and hmac.compare_digest(given, wanted)

    def _issue(self, now_s: float, wall_ms: int) -> dict[str, Any]:
        token = _token()
        life_s = self._options.token_life_s
        self._dies_s = {each: dies for each, dies in self._dies_s.items() if dies > now_s}
        self._dies_s[token] = now_s + life_s
        products = self._options.products
        return {
            "api_product_list": f"[{products}]",
            "api_product_list_json": [each for each in products.split(",") if each],
            "organization_name": "8x8",
            "token_type": "BearerToken",
            "issued_at": str(wall_ms),
            "client_id": self._options.key,
            "access_token": token,
            "application_name": "demo",
            "scope": "",
            "expires_in": f"{life_s:g}",
            "refresh_count": "0",
            "status": "approved",
        }

    def accepts(self, request: Request, now_s: float) -> bool:
        """Whether the request has a valid token."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and self._dies_s.get(token.strip(), now_s) > now_s

    def follow(self, options: Options) -> None:
        """Use these options from now on. If the key or secret changes, revoke all tokens."""
        before, self._options = self._options, options
        if (before.key, before.secret) != (options.key, options.secret):
            self.revoke()

    def revoke(self) -> None:
        """Revoke all tokens."""
        self._dies_s.clear()


def _token() -> str:
    """Make a token as long as a real one, in three parts like a JSON Web Token, of random bytes."""
    parts = (secrets.token_bytes(24), secrets.token_bytes(390), secrets.token_bytes(256))
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)


def _form(request: Request) -> Mapping[str, str]:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        return {}
    return {name: values[0] for name, values in parse_qs(request.body.decode("latin-1")).items()}


class Signer:
    """Signs presigned URLs: a path, the time it expires, and a signature of both."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(32)

    def sign(self, path: str, dies_ms: int, life_s: float) -> str:
        """Return path and query of a URL that is valid until ``dies_ms`` (UTC epoch)."""
        query = {
            "response-content-disposition": "attachment",
            "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
            "X-Amz-Security-Token": "of-the-demo",
            "X-Amz-Expires": f"{life_s:g}",
            "X-Amz-SignedHeaders": "host",
            "dies": str(dies_ms),
            "X-Amz-Signature": self._signature(path, str(dies_ms)),
        }
        return f"{path}?{urlencode(query)}"

    def accepts(self, request: Request, now_ms: int) -> bool:
        """Whether path and expiry are as they were signed, and the URL has not expired."""
        dies = request.query.get("dies", "")
        signature = request.query.get("X-Amz-Signature", "")
        right = hmac.compare_digest(
            self._signature(request.path, dies), signature.encode("ascii", "replace").decode()
        )
        return right and now_ms < int(dies)

    def _signature(self, path: str, dies: str) -> str:
        message = f"{path}\n{dies}".encode("utf-8", "replace")
        return hmac.new(self._secret, message, hashlib.sha256).hexdigest()
