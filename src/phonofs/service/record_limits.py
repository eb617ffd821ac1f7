"""Limits for records of the service; records beyond them are set aside, long texts cut. Pure."""

from datetime import UTC, datetime

LARGEST_OBJECT = 1 << 40
"""1 TiB: far larger than any recording, far below the sizes that overflow in a file system."""

LARGEST_RECORD = 1 << 18
"""256 KiB of JSON; the vendor's examples have 1 to 3 KB each."""

USUAL_RECORD = 1 << 14
"""16 KiB: the limit for the average record of a page, five times the largest example."""

MOST_VALUES = 50_000
"""Values (commas and brackets) in a record: more than a record of LARGEST_RECORD bytes needs."""

USUAL_VALUES = 200
"""Values that the records of a page may have on average; the vendor's examples have up to 105."""

MOST_RECORDS = 2000
"""Records in a page: twice the largest ``page_size``, in case the service sends more than asked."""

MOST_TAGS = 1000
LONGEST_TEXT = 4096
"""Characters in a name or tag; longer ones are cut, but stay whole in the source of the record."""


USUAL_PAGE = 100
"""Records that a page may have whatever was asked for: the service may ignore ``limit``."""


def largest_page(limit: int) -> int:
    """Return the limit in bytes for the response to a search for ``limit`` records.

    One record may have LARGEST_RECORD bytes.
    """
    return LARGEST_RECORD + max(limit, USUAL_PAGE) * USUAL_RECORD


def most_values(limit: int) -> int:
    """Return the limit in values for the same response; one record may have MOST_VALUES."""
    return MOST_VALUES + max(limit, USUAL_PAGE) * USUAL_VALUES


EARLIEST_MS = int(datetime(1990, 1, 1, tzinfo=UTC).timestamp()) * 1000
LATEST_MS = int(datetime(2200, 1, 1, tzinfo=UTC).timestamp()) * 1000
