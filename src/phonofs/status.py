"""The status document: what ``phonofs status --json`` prints and the metrics are made from.

Used by ``app.py``. Collects the gauges of the services at each call and keeps none of them.
"""

import os
import time
from collections.abc import Callable, Mapping
from typing import Any

from phonofs import __version__
from phonofs.access import Access
from phonofs.account import Admission
from phonofs.cache.cache import Cache
from phonofs.catalogue.catalogue import Catalogue
from phonofs.catalogue.search import known_by_region
from phonofs.changes import AccountChanges
from phonofs.control.server import Control
from phonofs.discovery.follower import Follower
from phonofs.reader.reader import Reader
from phonofs.region_watch import RegionWatch
from phonofs.service.auth import TokenProvider
from phonofs.service.client import Client
from phonofs.units import format_count

Statistics = Callable[[], Mapping[str, object]]
"""Returns the gauges and counts of a service, by their names in the document."""


class Status:
    """Describes the mount. Owns the time when it began."""

    def __init__(
        self,
        profile: str,
        mountpoint: str,
        *,
        admission: Admission,
        catalogue: Catalogue,
        token: TokenProvider,
        client: Client,
        cache: Cache,
        reader: Reader,
        follower: Follower,
        regions: RegionWatch,
        changes: AccountChanges,
        control: Control,
        access: Access,
    ) -> None:
        self._profile = profile
        self._mountpoint = mountpoint
        self._begun_s = _since_boot_s()
        self._admission = admission
        self._catalogue = catalogue
        self._token = token
        self._follower = follower
        self._regions = regions
        self._control = control
        self._access = access
        self._sections: dict[str, Statistics] = {
            "catalogue": self._catalogue_section,
            "restores": changes.restores,
            "service": client.statistics,
            "cache": cache.statistics,
            "reader": reader.statistics,
            "opens": access.statistics,
            "journal": access.journal_statistics,
            "fuse": dict,
            "s3": dict,
        }

    def add(self, section: str, statistics: Statistics) -> None:
        """Add the gauges of a service that is built later, or replace those of a section."""
        self._sections[section] = statistics

    def condition(self) -> str:
        """Return one line: what is wrong, or else how much is known."""
        if self._admission.refusal is not None:
            return f"nothing is served: {self._admission.refusal}"
        if journal := self._access.condition():
            return journal
        token = self._token.statistics()
        if token["error"] and not token["valid"]:
            return f"no token: {token['error']}; what is cached goes on working"
        if trouble := self._follower.local_trouble():
            return f"changes cannot be noted: {trouble}"
        followed: Any = self._follower.statistics()["followed"]
        if away := [region for region, seen in followed.items() if seen["failures"]]:
            return f"no news from {', '.join(away)}: the service cannot be asked"
        how = "mounted" if self._mountpoint else "serving"
        known = f"{how}, {format_count(self._catalogue.totals()[0], 'object')} known"
        return "; ".join(filter(None, (known, self._regions.message())))

    def document(self) -> dict[str, object]:
        """Return all gauges and counts."""
        return {
            "version": __version__,
            "pid": os.getpid(),
            "profile": self._profile,
            "mountpoint": self._mountpoint,
            "condition": self.condition(),
            "uptime_s": round(_since_boot_s() - self._begun_s, 1),
            "control": str(self._control.path) if self._control.path else None,
            "control_error": self._control.trouble,
            "control_shared": self._control.shared,
            **{name: statistics() for name, statistics in self._sections.items()},
        }

    def _catalogue_section(self) -> Mapping[str, object]:
        objects, size = self._catalogue.totals()
        return {
            "objects": objects,
            "bytes": size,
            "regions": self._catalogue.regions(),
            "regions_to_come": list(self._regions.to_come),
            "known": known_by_region(self._catalogue),
            **self._follower.statistics(),
        }


def _since_boot_s() -> float:
    """Return seconds since boot: the clock cannot be set, and it includes time in suspend."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
