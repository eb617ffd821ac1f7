"""The errors that S3 clients get, and which of them each error of phonofs is. Pure.

Used by all of ``s3door/``. Codes and statuses are Amazon's: "Error responses" in the Amazon S3 API
Reference. Clients decide by them whether they try again: they do after 500 and 503, not after 4xx.
"""

import math

from phonofs.errors import (
    Archived,
    Changed,
    CrawlerRefused,
    CredentialsRefused,
    Gone,
    IsAFolder,
    JournalError,
    NoSuchName,
    NotAFolder,
    PhonofsError,
    ReadOnlyTree,
    Refused,
    Unavailable,
    UnknownAccount,
    WrongAccount,
    unwrap,
)

STATUSES = {
    "AccessDenied": 403,
    "AuthorizationHeaderMalformed": 400,
    "AuthorizationQueryParametersError": 400,
    "EntityTooLarge": 400,
    "InternalError": 500,
    "InvalidAccessKeyId": 403,
    "InvalidArgument": 400,
    "InvalidObjectState": 403,
    "InvalidRange": 416,
    "InvalidRequest": 400,
    "InvalidToken": 400,
    "InvalidURI": 400,
    "KeyTooLongError": 400,
    "MalformedXML": 400,
    "MethodNotAllowed": 405,
    "NoSuchBucket": 404,
    "NoSuchKey": 404,
    "NotImplemented": 501,
    "PreconditionFailed": 412,
    "RequestHeaderSectionTooLarge": 400,
    "RequestTimeTooSkewed": 403,
    "RequestTimeout": 400,
    "RestoreAlreadyInProgress": 409,
    "SignatureDoesNotMatch": 403,
    "SlowDown": 503,
    "XAmzContentSHA256Mismatch": 400,
}
"""The codes in use, with their HTTP status."""

CODES: dict[type[PhonofsError], str] = {
    NoSuchName: "NoSuchKey",
    NotAFolder: "NoSuchKey",
    IsAFolder: "NoSuchKey",
    Gone: "NoSuchKey",
    Archived: "InvalidObjectState",
    Changed: "SlowDown",  # the next try gets the new content
    Unavailable: "SlowDown",
    UnknownAccount: "SlowDown",
    JournalError: "SlowDown",
    CrawlerRefused: "AccessDenied",
    CredentialsRefused: "AccessDenied",
    Refused: "AccessDenied",
    WrongAccount: "AccessDenied",
    ReadOnlyTree: "MethodNotAllowed",
}
"""The code of each error; that of its nearest base class counts. All others: ``InternalError``."""

PAUSE_S = 5
"""``Retry-After`` of ``SlowDown`` if the service asked for no pause of its own."""

LONGEST_PAUSE_S = 3600


class S3Error(PhonofsError):
    """A request that is refused or has failed, as the client is told.

    code     one of ``STATUSES``
    status   the HTTP status that belongs to it
    headers  further fields of the response, such as ``Retry-After``
    """

    def __init__(self, code: str, message: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.status = STATUSES[code]
        self.headers = headers


def s3_error(error: BaseException) -> S3Error:
    """Return what a client is told of an error: itself if it is an S3Error already.

    Its message is the error's own sentence, unless the error is none of phonofs' (a bug): then it
    tells nothing of it.
    """
    cause = unwrap(error)
    if isinstance(cause, S3Error):
        return cause
    if not isinstance(cause, PhonofsError):
        return S3Error("InternalError", "phonofs failed through a fault of its own")
    code = next((CODES[kind] for kind in type(cause).__mro__ if kind in CODES), "InternalError")
    headers = (("Retry-After", _pause(cause)),) if code == "SlowDown" else ()
    return S3Error(code, str(cause), headers)


def _pause(error: PhonofsError) -> str:
    """Return the seconds for ``Retry-After``, which has no fractions (RFC 9110, 10.2.3)."""
    asked_s = error.retry_after_s if isinstance(error, Unavailable) else None
    if asked_s is None or not math.isfinite(asked_s):
        return str(PAUSE_S)
    return str(max(1, min(math.ceil(asked_s), LONGEST_PAUSE_S)))
