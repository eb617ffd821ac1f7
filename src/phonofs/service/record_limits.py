"""What a record of the service may hold at most; what lies beyond is set aside or cut. Pure."""

from datetime import UTC, datetime

LARGEST_OBJECT = 1 << 40
"""1 TiB: far above any recording, far below what overflows in a file system."""

LARGEST_RECORD = 1 << 18
"""256 KiB of JSON; the vendor's examples have 1 to 3 KB."""

USUAL_RECORD = 1 << 14
"""16 KiB: what the records of a page may have on average, five times the largest example."""

MOST_VALUES = 50_000
"""Values (commas and brackets) of a record: more than LARGEST_RECORD usefully holds."""

USUAL_VALUES = 200
"""Values that the records of a page may have on average; the examples have up to 105."""

MOST_RECORDS = 2000
"""Records of a page: twice the largest ``page_size``, for a service that gives more than asked."""

MOST_TAGS = 1000
LONGEST_TEXT = 4096
"""Characters of a name or tag; a longer one is cut, the source keeps it."""


USUAL_PAGE = 100
"""Records that a page may have whatever was asked for: a service may not look at ``limit``."""


def largest_page(limit: int) -> int:
    """Bytes that the answer to a search for ``limit`` records may have: one may be large."""
    return LARGEST_RECORD + max(limit, USUAL_PAGE) * USUAL_RECORD


def most_values(limit: int) -> int:
    """Values that it may have; one record may have many."""
    return MOST_VALUES + max(limit, USUAL_PAGE) * USUAL_VALUES


EARLIEST_MS = int(datetime(1990, 1, 1, tzinfo=UTC).timestamp()) * 1000
LATEST_MS = int(datetime(2200, 1, 1, tzinfo=UTC).timestamp()) * 1000
