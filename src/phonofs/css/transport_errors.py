"""The one map from what httpx, trio and the system raise to the words of :mod:`phonofs.errors`."""

import ssl

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
    certificate = _certificate_error(error)
    if certificate is not None:
        return Untrusted(
            f"the certificate of {host} cannot be verified ({certificate.verify_message}): is the "
            "clock right, and is your network's own authority in the system's trust store?"
        )
    if isinstance(error, httpx.ConnectError | httpx.ProxyError):
        return Unavailable(f"{host} cannot be reached")
    if isinstance(error, httpx.LocalProtocolError | httpx.UnsupportedProtocol | httpx.InvalidURL):
        return Malformed(f"the request to {host} cannot be sent ({type(error).__name__})")
    return Unavailable(f"the connection to {host} broke ({type(error).__name__})")


def _certificate_error(error: BaseException) -> ssl.SSLCertVerificationError | None:
    seen: BaseException | None = error
    for _ in range(10):
        if seen is None or isinstance(seen, ssl.SSLCertVerificationError):
            return seen
        seen = seen.__cause__ or seen.__context__
    return None
