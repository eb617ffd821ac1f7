"""The one map from what httpx, trio and the system raise to the words of :mod:`phonofs.errors`."""

import os
import re
import socket
import ssl
from collections.abc import Iterable, Iterator

import httpx
import trio

from phonofs.errors import Malformed, ServiceError, Unavailable, Untrusted

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
"""What may go wrong on the way; anything else is a fault of ours, and stays one."""


def explained(error: Exception, host: str, timeout_s: float) -> ServiceError:
    """What an error of httpx, trio or the system means, in one sentence without secrets."""
    if isinstance(error, ServiceError):
        return error
    if isinstance(error, trio.TooSlowError | httpx.TimeoutException):
        return Unavailable(f"{host} did not answer within {timeout_s:g} s")
    causes = list(_causes(error))
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


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what led to it, also within groups; at most a few dozen."""
    left: list[BaseException | None] = [error]
    for _ in range(40):
        if not left:
            return
        found = left.pop()
        if found is None:
            continue
        yield found
        left += [found.__context__, found.__cause__]
        if isinstance(found, BaseExceptionGroup):
            left += found.exceptions


def _reason(causes: Iterable[BaseException]) -> str:
    """Why there is no connection, as the system or TLS puts it; '' where neither says."""
    for cause in causes:
        if isinstance(cause, ssl.SSLError):
            return f" (TLS: {cause.reason})" if cause.reason else ""
        if isinstance(cause, socket.gaierror):
            return f" ({cause.strerror})"
        if isinstance(cause, OSError) and cause.errno:
            return f" ({os.strerror(cause.errno)})"
    return ""
