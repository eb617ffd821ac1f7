"""Decides when to retry and after which pause. Pure: the caller passes time and random numbers.

``stamina`` is not used: its deadline runs on the system's clock, so a test with its own clock could
not control it; and a pause that the service asks for applies to all requests.
"""

import re

from phonofs.errors import Unavailable, Untrusted
from phonofs.http_dates import http_date_s

FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 8.0
LONGEST_ASKED_S = 600.0
"""A ``Retry-After`` above ten minutes is considered a mistake and cut to this."""


def transient(status: int) -> bool:
    """Return whether a status is temporary: it says nothing about the object itself."""
    return status in (408, 425, 429) or status >= 500


def retryable(error: BaseException) -> bool:
    """Return whether the same request may succeed later."""
    return isinstance(error, Unavailable) and not isinstance(error, Untrusted)


def pause_s(attempt: int, chance: float, asked_s: float | None = None) -> float:
    """Return the pause in seconds after failure number ``attempt`` (from 0), at least ``asked_s``.

    The pause doubles up to 8 s. ``chance`` (0…1) shortens it by up to half, so that requests that
    failed together are not retried together.
    """
    longest = min(FIRST_PAUSE_S * 2.0 ** min(attempt, 16), LONGEST_PAUSE_S)
    return max(longest * (1 - chance / 2), asked_s or 0.0)


def retry_after_s(value: str | None, date: str | None, now_s: float) -> float | None:
    """Return the seconds that a ``Retry-After`` header asks to wait; None if it cannot be read.

    ``value`` is a number of seconds or an HTTP date (RFC 9110, 10.2.3). A date is compared with
    the response's own ``Date``, because our clock may be wrong, or else with ``now_s`` (epoch
    seconds).
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
