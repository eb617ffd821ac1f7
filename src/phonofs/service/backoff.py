"""When to try again, and after which pause. Pure: time and chance are handed in.

``stamina`` was not taken: its deadline runs on the system's clock, so that a test with a clock
of its own could not hold it to one; and the pause the service asks for is one of all requests.
"""

import re
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime

from phonofs.errors import Unavailable, Untrusted

FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 8.0
LONGEST_ASKED_S = 600.0
"""A ``Retry-After`` beyond ten minutes is taken for a mistake, and cut to this."""


def transient(status: int) -> bool:
    """Whether a status says nothing about the object, only about now."""
    return status in (408, 425, 429) or status >= 500


def retryable(error: BaseException) -> bool:
    """Whether the same request may succeed later."""
    return isinstance(error, Unavailable) and not isinstance(error, Untrusted)


def pause_s(attempt: int, chance: float, asked_s: float | None = None) -> float:
    """The pause in seconds after failure number ``attempt`` (from 0), never below ``asked_s``.

    Doubles up to 8 s; ``chance`` (0…1) takes up to half of it away, so that many who failed
    together do not come back together.
    """
    longest = min(FIRST_PAUSE_S * 2.0 ** min(attempt, 16), LONGEST_PAUSE_S)
    return max(longest * (1 - chance / 2), asked_s or 0.0)


def pause_for(error: BaseException, attempt: int, chance: float) -> float:
    """The pause after ``error``: what the service asked for, and at least :func:`pause_s`."""
    asked_s = error.retry_after_s if isinstance(error, Unavailable) else None
    return pause_s(attempt, chance, asked_s)


def retry_after_s(value: str | None, date: str | None, now_s: float) -> float | None:
    """Seconds to wait that a ``Retry-After`` header asks for; None where it says nothing.

    ``value`` is a number of seconds or an HTTP date (RFC 9110, 10.2.3); a date is compared with
    the answer's own ``Date``, else with ``now_s`` (epoch seconds), since our clock may be off.
    """
    text = (value or "").strip()
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", text, re.ASCII):
        return min(float(text), LONGEST_ASKED_S)
    until_s = http_date_s(text)
    if until_s is None:
        return None
    sent_s = http_date_s(date or "")
    wait_s = until_s - (now_s if sent_s is None else sent_s)
    return max(0.0, min(wait_s, LONGEST_ASKED_S))


def http_date_s(text: str) -> float | None:
    """Epoch seconds of an HTTP date, or None where it is none."""
    try:
        moment = parsedate_to_datetime(text)
        return moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def asked_pause_s(status: int, headers: Mapping[str, str], now_s: float) -> float | None:
    """Return the pause that a response asks for before the next try; ``now_s`` in epoch seconds.

    With a 429 it applies to all requests to the origin, with other statuses to this one.
    """
    if not transient(status):
        return None
    return retry_after_s(headers.get("retry-after"), headers.get("date"), now_s)
