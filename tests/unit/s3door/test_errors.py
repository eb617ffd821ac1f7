"""An error keeps its meaning for clients: what may be tried again, and what is not there."""

import math

import pytest

from phonofs.errors import (
    Archived,
    Changed,
    Corrupt,
    Gone,
    JournalError,
    Malformed,
    NoSuchName,
    PhonofsError,
    Refused,
    ServiceError,
    StaleInode,
    Unavailable,
    Untrusted,
    WrongAccount,
)
from phonofs.s3door.errors import LONGEST_PAUSE_S, STATUSES, S3Error, s3_error

CONTRACT = {
    NoSuchName: "NoSuchKey",
    StaleInode: "NoSuchKey",
    Gone: "NoSuchKey",
    Archived: "InvalidObjectState",
    Changed: "SlowDown",
    Unavailable: "SlowDown",
    Untrusted: "SlowDown",
    JournalError: "SlowDown",
    Refused: "AccessDenied",
    WrongAccount: "AccessDenied",
    Corrupt: "InternalError",
    Malformed: "InternalError",
}


@pytest.mark.parametrize("kind", CONTRACT, ids=lambda kind: kind.__name__)
def test_each_error_has_its_code_and_keeps_its_sentence(kind: type[PhonofsError]) -> None:
    found = s3_error(kind("a sentence"))
    assert (found.code, str(found)) == (CONTRACT[kind], "a sentence")


def subclasses(kind: type[PhonofsError]) -> list[type[PhonofsError]]:
    return [kind, *(each for child in kind.__subclasses__() for each in subclasses(child))]


def test_only_what_the_account_lacks_is_missing() -> None:
    """An outage that reads as NoSuchKey would be taken for a deletion by whoever mirrors."""
    missing = {
        kind for kind in subclasses(ServiceError) if s3_error(kind("away")).status in (404, 410)
    }
    assert missing == {Gone}


@pytest.mark.parametrize(
    ("asked_s", "header"),
    [(None, "5"), (0.0, "1"), (2.1, "3"), (1e12, str(LONGEST_PAUSE_S)), (math.inf, "5")],
)
def test_an_outage_says_when_to_come_back(asked_s: float | None, header: str) -> None:
    assert s3_error(Unavailable("away", asked_s)).headers == (("Retry-After", header),)


def test_a_bug_tells_nothing_of_itself() -> None:
    found = s3_error(ExceptionGroup("", [KeyError("/home/anna/secret")]))
    assert found.code == "InternalError"
    assert "anna" not in str(found)


def test_an_s3_error_stays_itself_also_within_a_group() -> None:
    error = S3Error("InvalidRange", "beyond the end", (("Content-Range", "bytes */3"),))
    assert s3_error(ExceptionGroup("", [error])) is error
    assert error.status == STATUSES["InvalidRange"] == 416
