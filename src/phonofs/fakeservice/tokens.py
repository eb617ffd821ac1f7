"""Issues and checks bearer tokens, and signs and checks presigned URLs."""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Callable
from urllib.parse import parse_qs, urlencode

import trio

from phonofs.fakeservice.options import Options
from phonofs.fakeservice.responses import Answer, Request, of_json


class Tokens:
    """The issued tokens. Owns them and the second each expires at (on trio's clock)."""

    def __init__(self) -> None:
        self._dies_s: dict[str, float] = {}

    def answer(self, request: Request, options: Options, now_ms: int) -> Answer:
        """Answer a token request, with 200 if a token was issued."""
        client = base64.b64encode(f"{options.key}:{options.secret}".encode()).decode()
        if request.headers.get("authorization", "") != f"Basic {client}":
            return of_json(401, {"error": "invalid_client", "ErrorCode": "invalid_client"})
        kind = request.headers.get("content-type", "").lower()
        is_form = kind.startswith("application/x-www-form-urlencoded")
        form = parse_qs(request.body.decode("latin-1")) if is_form else {}
        if form.get("grant_type") != ["client_credentials"]:
            return of_json(400, {"error": "unsupported_grant_type"})
        token, life_s, now_s = _token(), options.token_life_s, trio.current_time()
        self._dies_s = {each: dies for each, dies in self._dies_s.items() if dies > now_s}
        self._dies_s[token] = now_s + life_s
        grant = {
            "api_product_list": f"[{options.products}]",
            "api_product_list_json": options.products.split(","),
            "organization_name": "8x8",
            "token_type": "BearerToken",
            "issued_at": str(now_ms),
            "client_id": options.key,
            "access_token": token,
            "application_name": "demo",
            "scope": "",
            "expires_in": f"{life_s:g}",
            "refresh_count": "0",
            "status": "approved",
        }
        return of_json(200, grant)

    def accepts(self, request: Request) -> bool:
        """Whether the request has a valid token."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and self._dies_s.get(token, 0) > trio.current_time()

    def revoke(self) -> None:
        """Revoke all tokens."""
        self._dies_s.clear()


def _token() -> str:
    """Make a token as long as a real one, in three parts like a JSON Web Token, of random bytes."""
    parts = (secrets.token_bytes(24), secrets.token_bytes(390), secrets.token_bytes(256))
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)


class Signer:
    """Signs presigned URLs: a path, the time it expires (UTC epoch ms), a signature of both."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        self._secret = secrets.token_bytes(32)

    def sign(self, path: str, life_s: float) -> str:
        """Return path and query of a URL that is valid for ``life_s`` seconds."""
        dies = str(self._now_ms() + int(life_s * 1000))
        query = {
            "response-content-disposition": "attachment",
            "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
            "X-Amz-Security-Token": "of-the-demo",
            "X-Amz-Expires": f"{life_s:g}",
            "X-Amz-SignedHeaders": "host",
            "dies": dies,
            "X-Amz-Signature": self._signature(path, dies),
        }
        return f"{path}?{urlencode(query)}"

    def accepts(self, request: Request) -> bool:
        """Whether path and expiry are as they were signed, and the URL has not expired."""
        dies, given = (request.query.get(name, "") for name in ("dies", "X-Amz-Signature"))
        return given == self._signature(request.path, dies) and self._now_ms() < int(dies)

    def _signature(self, path: str, dies: str) -> str:
        message = f"{path}\n{dies}".encode("utf-8", "replace")
        return hmac.new(self._secret, message, hashlib.sha256).hexdigest()
