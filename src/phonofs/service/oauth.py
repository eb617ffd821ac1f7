"""The token request and its response (OAuth 2.0 client credentials, the vendor's dialect). Pure.

All numbers in the response are strings; ``token_type`` is ``BearerToken`` although the header says
``Bearer`` (developer guide, "Authentication").
"""

import base64
import re
from dataclasses import dataclass, field
from typing import Any

from phonofs.config import Secret
from phonofs.errors import CredentialsRefused, Malformed
from phonofs.service.tolerant_json import decode

TOKEN_PATH = "/oauth/v2/token"  # noqa: S105 (a path)
BODY = b"grant_type=client_credentials"

ASSUMED_LIFE_S = 600
"""Life of a token if the response gives none, or less than a second, too short for any request. It
is a third of the shortest life in the vendor's documents (1799 s). If the token expires earlier,
the service answers 401.
"""

LONGEST_LIFE_S = 86_400
"""A day: a token is renewed at least this often, whatever the response says."""

_TOKEN = re.compile(r"[!-~]{1,16384}")


@dataclass(frozen=True, slots=True)
class Grant:
    """The token that the token endpoint granted, and its life in seconds from the response on."""

    token: str = field(repr=False)
    life_s: float


def headers(key: str, secret: Secret) -> dict[str, str]:
    """Return the headers of the token request: HTTP Basic, with key as user, secret as password."""
    pair = base64.b64encode(f"{key}:{secret.reveal()}".encode()).decode()
    return {
        "Authorization": f"Basic {pair}",
        "Content-Type": "application/x-www-form-urlencoded",
        "Accept": "application/json",
    }


def parse_grant(body: bytes) -> Grant:
    """Return the token in a response with status 200.

    Raises Malformed if there is none. Raises CredentialsRefused if the key lacks the product
    *Call Recordings & Storage* (``api_product_list``), the most common mistake in setting up a key.
    """
    answer = decode(body, "a token")
    if not isinstance(answer, dict):
        raise Malformed("the answer for a token is not an object")
    token = answer.get("access_token")
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        raise Malformed("the answer for a token holds no usable access_token")
    if not _may_use_storage(answer):
        raise CredentialsRefused(
            "the API key works, but lacks the product 'Call Recordings & Storage': "
            "add it to the app in the 8x8 Admin Console and wait a few minutes"
        )
    return Grant(token, _life_s(answer.get("expires_in")))


def refusal(status: int) -> CredentialsRefused | None:
    """Return the error if the status means that key and secret are not accepted, else None."""
    if status not in (400, 401, 403):
        return None
    return CredentialsRefused(
        f"the service does not accept the API key and secret (status {status}): "
        "run 'phonofs login' with the right ones; a new key may take some minutes to work"
    )


def _life_s(value: object) -> float:
    text = str(value).strip()
    if not re.fullmatch(r"-?\d{1,12}(\.\d{1,12})?", text, re.ASCII):
        return ASSUMED_LIFE_S
    life_s = float(text)
    return min(life_s, LONGEST_LIFE_S) if life_s >= 1 else ASSUMED_LIFE_S


def _may_use_storage(answer: dict[str, Any]) -> bool:
    """Return whether the key's products include storage; True if the response lists none."""
    lists = [answer.get("api_product_list_json"), answer.get("api_product_list")]
    known = [str(products) for products in lists if products is not None]
    return not known or any("storage" in products.lower() for products in known)
