"""What a record of the service may hold at most; what lies beyond is set aside or cut. Pure."""

from datetime import UTC, datetime

LARGEST_OBJECT = 1 << 40
"""1 TiB: far above any recording, far below what overflows in a file system."""

LARGEST_RECORD = 1 << 18
"""256 KiB of JSON; the vendor's examples have 1 to 3 KB."""

MOST_TAGS = 1000
LONGEST_TEXT = 4096
"""Characters of a name or tag; a longer one is cut, the source keeps it."""

EARLIEST_MS = int(datetime(1990, 1, 1, tzinfo=UTC).timestamp()) * 1000
LATEST_MS = int(datetime(2200, 1, 1, tzinfo=UTC).timestamp()) * 1000
