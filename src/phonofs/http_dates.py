"""Reads and writes the dates of HTTP headers (RFC 9110, 5.6.7). Pure.

Used by the client of the service, and by the S3 door.
"""

from datetime import UTC
from email.utils import parsedate_to_datetime
from wsgiref.handlers import format_date_time


def http_date_s(text: str) -> float | None:
    """Return the epoch seconds of an HTTP date, or None if it is not one."""
    try:
        moment = parsedate_to_datetime(text)
        return moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def http_date(at_s: float) -> str:
    """Return the HTTP date of a time in epoch seconds, cut to a whole second."""
    return format_date_time(at_s // 1)
