"""What is known of how each region delivers content. Pure, apart from trio's clock.

Used by :class:`phonofs.service.content.ContentFetcher`, which sends the requests.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import trio

log = logging.getLogger(__name__)


class DeliveryMethod(StrEnum):
    """How a region delivers content."""

    RANGE = "range"
    PRESIGN = "presign"
    REDIRECT = "redirect"
    STREAM = "stream"


RANGE, PRESIGN, REDIRECT, STREAM = DeliveryMethod
REMEMBERED = frozenset({RANGE, PRESIGN, REDIRECT})
"""Methods that are believed from an earlier run; ``stream``, the worst, is determined again."""

MOST_IGNORED_RANGES = 3
"""After this many ignored ranges in a row, a region that honoured them no longer does."""

MOST_UNREACHABLE_LINKS = 2
"""After this many unreachable fresh links in a row, the method counts as failed."""

FAILED_S = 600.0
"""How long a failed method is not used. Not for good: with whole streams, a far seek waits long."""


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why a method failed, and until when it is not used (trio's clock)."""

    reason: str
    until: float


class DeliveryMethods:
    """The delivery method of each region, learned from successful responses only.

    Owns what is known of the regions. A method counts as failed only once another one worked.

    _methods            the method of each region
    _seekable           whether a body can start in the middle of an object
    _ignored_ranges     ranges that were ignored in a row
    _unreachable_links  fresh links in a row that could not be reached
    _failures           the methods that are not used for a while
    _retried            regions whose failed methods are being tried again
    """

    def __init__(self, known: Mapping[str, str]) -> None:
        """``known`` has the methods of an earlier run."""
        self._methods = {
            region: DeliveryMethod(method)
            for region, method in known.items()
            if method in REMEMBERED
        }
        self._seekable = dict.fromkeys(self._methods, True)
        self._ignored_ranges: dict[str, int] = {}
        self._unreachable_links: dict[str, int] = {}
        self._failures: dict[str, dict[DeliveryMethod, _Failure]] = {}
        self._retried: set[str] = set()

    def all(self) -> dict[str, str]:
        """Return the method of each region in which it is known."""
        return {region: method.value for region, method in self._methods.items()}

    def failed(self) -> dict[str, dict[str, str]]:
        """Return the failed methods of each region that are not used for now, and why."""
        return {
            region: {method.value: failure.reason for method, failure in failures.items()}
            for region, failures in self._failures.items()
        }

    def get(self, region: str) -> DeliveryMethod | None:
        """Return the method of a region; None if it is not known."""
        return self._methods.get(region)

    def seekable(self, region: str) -> bool | None:
        """Whether a body can start in the middle of an object; None if that is not known yet."""
        return self._seekable.get(region)

    def has_failed(self, region: str, method: DeliveryMethod) -> bool:
        """Whether a method is not to be used for now."""
        return region not in self._retried and method in self._failures.get(region, {})

    def learn(
        self, region: str, method: DeliveryMethod, *, is_partial: bool, as_wanted: bool
    ) -> None:
        """Learn from a successful response by ``method``.

        ``is_partial`` says that it was a part of an object; ``as_wanted``, that it was not but
        need not have been.
        """
        if is_partial != (method == RANGE) and method in (RANGE, STREAM):
            return  # this response does not show that the method works
        if self._methods.get(region) != method:
            self._methods[region] = method
            log.info("region %s gives content by way of: %s", region, method)
        if region in self._retried and method != STREAM:
            self._retried.discard(region)
            self._failures.pop(region, None)
        if is_partial:
            self._seekable[region] = True
            self._ignored_ranges.pop(region, None)
        elif method == STREAM or not as_wanted:
            self._seekable[region] = False

    def forget(self, region: str, method: DeliveryMethod | None = None) -> None:
        """Have the region's method determined again, or only if it is ``method``."""
        if method in (None, self._methods.get(region)):
            self._methods.pop(region, None)
            self._seekable.pop(region, None)
            self._ignored_ranges.pop(region, None)

    def retry_failed(self, region: str) -> None:
        """Have the region's method determined again if one failed long enough ago."""
        now = trio.current_time()
        failures = self._failures.get(region, {})
        if any(failure.until <= now for failure in failures.values()):
            for method, failure in failures.items():
                failures[method] = _Failure(failure.reason, now + FAILED_S)
            self._unreachable_links[region] = MOST_UNREACHABLE_LINKS - 1
            self.forget(region)
            self._retried.add(region)

    def end_retry(self, region: str) -> None:
        """A failed method that was tried again has failed again."""
        self._retried.discard(region)

    def fail(self, region: str, method: DeliveryMethod, reason: str) -> bool:
        """Do not use a method for a while. Return whether another one had failed before."""
        failures = self._failures.setdefault(region, {})
        failures[method] = _Failure(reason, trio.current_time() + FAILED_S)
        self.forget(region)
        return len(failures) > 1

    def forgive(self, region: str) -> None:
        """Use the failed methods again, because there is no other."""
        self._failures.pop(region, None)

    def range_ignored(self, region: str) -> bool:
        """Count an ignored range. Return whether the region still counts as honouring ranges."""
        if self._methods.get(region) != RANGE:
            return False
        self._ignored_ranges[region] = self._ignored_ranges.get(region, 0) + 1
        if self._ignored_ranges[region] < MOST_IGNORED_RANGES:
            return True
        log.info("region %s no longer honours ranges", region)
        self.forget(region)
        return False

    def link_unreachable(self, region: str) -> bool:
        """Count an unreachable fresh link. Return whether those in a row are too many."""
        self._unreachable_links[region] = self._unreachable_links.get(region, 0) + 1
        return self._unreachable_links[region] >= MOST_UNREACHABLE_LINKS

    def link_reached(self, region: str) -> None:
        """A link worked: the next one that cannot be reached is the first in a row."""
        self._unreachable_links.pop(region, None)
