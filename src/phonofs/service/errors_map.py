"""Maps exceptions of httpx, trio and the system, and HTTP statuses, to :mod:`phonofs.errors`."""

import os
import re
import socket
import ssl
import time
from collections.abc import Iterable

import httpx
import trio

from phonofs.errors import (
    Archived,
    Gone,
    Malformed,
    Refused,
    ServiceError,
    Unavailable,
    Untrusted,
    chain_of,
)
from phonofs.service.backoff import retry_after_s, transient

REDIRECTS = frozenset({301, 302, 303, 307, 308})

EXPECTED = (
    httpx.HTTPError,
    httpx.InvalidURL,
    httpx.StreamError,
    OSError,
    ServiceError,
    trio.BrokenResourceError,
    trio.ClosedResourceError,
    trio.TooSlowError,
)
"""Errors that the network or the service may cause. Any other exception is a bug."""


def explained(error: Exception, host: str, timeout_s: float) -> ServiceError:
    """Return our error for one of httpx, trio or the system; its message has no secrets."""
    if isinstance(error, ServiceError):
        return error
    if isinstance(error, trio.TooSlowError | httpx.TimeoutException):
        return Unavailable(f"{host} did not answer within {timeout_s:g} s")
    causes = list(chain_of(error))
    for cause in causes:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return Untrusted(
                f"the certificate of {host} cannot be verified ({cause.verify_message}): is the "
                "clock right, and is your network's own authority in the system's trust store?"
            )
    if isinstance(error, httpx.ProxyError) and (status := re.match(r"\d{3}\b", str(error))):
        return Unavailable(f"{host} cannot be reached: the proxy answers {status[0]}")
    if isinstance(error, httpx.ConnectError | httpx.ProxyError):
        return Unavailable(f"{host} cannot be reached{_reason(causes)}")
    if isinstance(error, httpx.LocalProtocolError | httpx.UnsupportedProtocol | httpx.InvalidURL):
        return Malformed(f"the request to {host} cannot be sent ({type(error).__name__})")
    return Unavailable(f"the connection to {host} broke ({type(error).__name__})")


def failure(
    response: httpx.Response, what: str, *, body: bytes = b"", of_object: bool = False
) -> ServiceError:
    """Return the error for an unsuccessful response to a request for ``what``.

    Only for an object (``of_object``) does 404 mean that it is gone; elsewhere it means that the
    URL is wrong.
    """
    status = response.status_code
    if transient(status):
        return Unavailable(
            f"the service answers {what} with status {status}", asked_pause_s(response)
        )
    if of_object and status in (403, 409, 400) and _says_archived(body):
        return Archived(f"{what} lies in cold storage and must be restored first")
    if status == 401:
        return Refused(f"the service refuses {what} even with a fresh token")
    if status == 403:
        return Refused(
            f"the API key is not allowed to ask for {what}: the user who made it may lack the role "
            "'Storage API', which the 8x8 Admin Console gives"
        )
    if of_object and status in (404, 410):
        return Gone(f"the service has no {what} any more")
    if status in REDIRECTS:
        return Malformed(f"the service answers {what} with a redirect")
    return Malformed(f"the service answers {what} with status {status}")


def check(response: httpx.Response, body: bytes, what: str, *, of_object: bool = False) -> None:
    """Raise the error for a response if it is unsuccessful; the arguments are :func:`failure`'s."""
    if not response.is_success:
        raise failure(response, what, body=body, of_object=of_object)


def asked_pause_s(response: httpx.Response) -> float | None:
    """Return the seconds that a response asks to wait before a retry, if it is a temporary failure.

    The pause of a 429 applies to all requests to the origin, that of other statuses to this one.
    """
    if not transient(response.status_code):
        return None
    headers = response.headers
    return retry_after_s(headers.get("retry-after"), headers.get("date"), time.time())


def _reason(causes: Iterable[BaseException]) -> str:
    """Return why there is no connection, in the words of the system or TLS; '' if unknown."""
    for cause in causes:
        if isinstance(cause, ssl.SSLError):
            return f" (TLS: {cause.reason})" if cause.reason else ""
        if isinstance(cause, socket.gaierror):
            return f" ({cause.strerror})"
        if isinstance(cause, OSError) and cause.errno:
            return f" ({os.strerror(cause.errno)})"
    return ""


def _says_archived(body: bytes) -> bool:
    """S3 calls it ``InvalidObjectState``; the service's own word is not documented."""
    text = body[:4096].lower()
    return b"invalidobjectstate" in text or b"archived" in text
