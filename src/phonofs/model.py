"""The data types that all packages share: a record of the service, a search, a page of results.

Pure data. All times are UTC epoch milliseconds (``_ms``); all sizes and offsets are bytes.
"""

from dataclasses import dataclass, field
from enum import StrEnum

import msgspec


class State(StrEnum):
    """The object states that the service documents; any other is treated as not readable."""

    AVAILABLE = "AVAILABLE"
    ARCHIVED = "ARCHIVED"
    PENDING = "PENDING"
    REVOKED = "REVOKED"
    DELETED = "DELETED"
    FAILED = "FAILED"


LISTED_STATES = frozenset({State.AVAILABLE, State.ARCHIVED})
"""The states of objects that have a file in the tree."""

WITHDRAWN_STATES = frozenset({State.REVOKED, State.DELETED})
"""The states in which the service has withdrawn the object; its cached bytes are deleted too."""


class Record(msgspec.Struct, frozen=True):
    """One object of the service, as its record describes it.

    id          the service's identifier, unique in its region
    region      the region it was found in
    type        e.g. ``callrecording``; unknown types are still files
    mime_type   as given, may be empty
    object_name free text, not unique, not safe as a name
    size        ``storedBytes``, at least 0
    created_ms  ``createdTime``
    updated_ms  ``updatedTime`` (``createdTime`` if that is missing)
    state       one of :class:`State`, or a word unknown to us
    checksum    MD5 as 32 hex digits, or an S3 multipart ETag ``…-N``, or empty; lower case
    tags        key to value; of a repeated key the last value counts
    source      the record's own JSON text, as received (repaired if it was not valid JSON)
    customer    ``customerId``, the owner of the object; empty if the record has none
    """

    id: str
    region: str
    type: str
    mime_type: str
    object_name: str
    size: int
    created_ms: int
    updated_ms: int
    state: str
    checksum: str
    tags: dict[str, str]
    source: bytes
    customer: str = ""

    @property
    def fingerprint(self) -> str:
        """Identifies the content: equal fingerprints mean equal bytes.

        It is the checksum if there is one, or else size and update time, the best substitute.
        """
        return self.checksum or f"{self.size}-{self.updated_ms}"


@dataclass(frozen=True, slots=True)
class Query:
    """A search: which objects of one region, in which order.

    Bounds are half open: ``created_from_ms <= created < created_until_ms``, and likewise for
    ``updated``; ``None`` means no bound. Empty ``types`` means all types; empty ``states`` means
    those that the service returns by default. ``narrow`` is a FIQL filter that must hold, too.
    """

    created_from_ms: int | None = None
    created_until_ms: int | None = None
    updated_from_ms: int | None = None
    updated_until_ms: int | None = None
    types: tuple[str, ...] = ()
    states: tuple[str, ...] = ()
    sort: str = "createdTime"
    descending: bool = False
    narrow: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """One page of the results of a search.

    records    the records that could be parsed, in the order received
    count      how many records the page had, including the rejected ones
    last       whether the service says this is the last page
    next_key   the ``pageKey`` of the next request, an offset
    total      how many results there are in all; None if the service does not say
    rejected   one sentence for each record that was rejected
    """

    records: list[Record]
    count: int
    last: bool
    next_key: int | None = None
    total: int | None = None
    rejected: list[str] = field(default_factory=list)

    @property
    def ids(self) -> list[str]:
        """The ids of the records."""
        return [record.id for record in self.records]

    @property
    def created_span_ms(self) -> tuple[int, int] | None:
        """The first and the last ``created_ms``; None if the records are not in that order."""
        times = [record.created_ms for record in self.records]
        return (times[0], times[-1]) if times and times == sorted(times) else None
