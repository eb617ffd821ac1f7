"""The token request and its answer (OAuth 2.0 client credentials, the vendor's dialect). Pure.

All numbers of the answer are texts; ``token_type`` is ``BearerToken`` although the header says
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
"""Where the answer does not say, or says less than a second, in which nothing could be asked; a
third of the shortest life the documents show (1799 s). One that is dead before is met with a 401.
"""

LONGEST_LIFE_S = 86_400
"""A day: a token is renewed at least that often, whatever the answer says."""

_TOKEN = re.compile(r"[!-~]{1,16384}")


@dataclass(frozen=True, slots=True)
class Grant:
    """What the token endpoint gave: the token, and its life in seconds from the answer on."""

    token: str = field(repr=False)
    life_s: float


def headers(key: str, secret: Secret) -> dict[str, str]:
    """The headers of the token request: HTTP Basic, key as the user and secret as the password."""
    pair = base64.b64encode(f"{key}:{secret.reveal()}".encode()).decode()
    return {
        "Authorization": f"Basic {pair}",
        "Content-Type": "application/x-www-form-urlencoded",
        "Accept": "application/json",
    }


def parse_grant(body: bytes) -> Grant:
    """The token in a 200 answer.

    Raises Malformed when there is none, CredentialsRefused when the key lacks the product
    *Call Recordings & Storage* (``api_product_list``), the commonest mistake in setting one up.
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
    """The error when the status of a token answer says that key and secret are not accepted."""
    if status not in (400, 401, 403):
        return None
    return CredentialsRefused(
        f"the service does not accept the API key and secret (status {status}): "
        "check them, or run 'phonofs login'; a new key may take some minutes to work"
    )


def _life_s(value: object) -> float:
    text = str(value).strip()
    if not re.fullmatch(r"-?\d{1,12}(\.\d{1,12})?", text, re.ASCII):
        return ASSUMED_LIFE_S
    life_s = float(text)
    return min(life_s, LONGEST_LIFE_S) if life_s >= 1 else ASSUMED_LIFE_S


def _may_use_storage(answer: dict[str, Any]) -> bool:
    """Whether one of the key's products is storage; yes where the answer lists none."""
    lists = [answer.get("api_product_list_json"), answer.get("api_product_list")]
    known = [str(products) for products in lists if products is not None]
    return not known or any("storage" in products.lower() for products in known)
