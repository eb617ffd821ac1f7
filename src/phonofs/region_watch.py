"""Finds out which regions an account has: at each mount, and every hour while mounted.

Used by ``app.py``. Regions named in the configuration are not asked for.
"""

import logging
from collections.abc import Sequence

import trio

from phonofs.catalogue.catalogue import Catalogue
from phonofs.discovery.follower import Follower
from phonofs.discovery.lister import Lister
from phonofs.errors import PhonofsError, ServiceError, Unavailable
from phonofs.service.auth import TokenProvider
from phonofs.service.client import Client

log = logging.getLogger(__name__)

START_S = 3.0
"""How long a mount that already knows its regions waits for the service to name them."""

INTERVAL_S = 3600.0
RETRY_S = 60.0
"""Pauses between requests, after a success and after a failure; new regions are years apart."""


class RegionWatch:
    """Asks for the regions. Owns those that are shown only after the next mount (``to_come``)."""

    def __init__(
        self,
        client: Client,
        catalogue: Catalogue,
        token: TokenProvider,
        lister: Lister,
        follower: Follower,
    ) -> None:
        self._client = client
        self._catalogue = catalogue
        self._token = token
        self._lister = lister
        self._follower = follower
        self._wanted = trio.Event()
        self.to_come: list[str] = []

    async def at_start(self) -> list[str]:
        """Return the regions that the service names, or the known ones if it does not in time.

        Raises ServiceError if none is known.
        """
        known = self._catalogue.discovered()
        if not known:
            return self._catalogue.discover(await self._client.regions())
        error: ServiceError = Unavailable(f"no answer within {START_S:g} s")
        with trio.move_on_after(START_S):
            try:
                return self._catalogue.discover(await self._client.regions())
            except ServiceError as failed:
                error = failed
        log.warning("the known regions are shown, since the service does not name them: %s", error)
        self._wanted.set()
        return known

    def ask_now(self) -> None:
        """End the present pause."""
        self._wanted.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Ask for the regions after each pause, until cancelled."""
        task_status.started()
        pause_s = INTERVAL_S if self._token.current() else RETRY_S
        while True:
            with trio.move_on_after(pause_s):
                await self._wanted.wait()
            self._wanted = trio.Event()
            try:
                self._show_new(self._catalogue.discover(await self._client.regions()))
                pause_s = INTERVAL_S
            except PhonofsError as error:
                log.info("the regions cannot be asked for: %s", error)
                pause_s = RETRY_S

    def message(self) -> str:
        """Return a message about regions that are not shown yet, '' if there are none."""
        if not self.to_come:
            return ""
        names = ", ".join(self.to_come)
        which = f"the region {names} is" if len(self.to_come) == 1 else f"the regions {names} are"
        then = "which puts the years into a folder for each region"
        return f"{which} shown after the next mount, {then}"

    def _show_new(self, found: Sequence[str]) -> None:
        """Show new regions, unless only one is shown: then its year directories would move."""
        shown = self._catalogue.regions()
        new = [region for region in found if region not in shown]
        if len(shown) == 1:
            news = bool(new) and new != self.to_come
            self.to_come = new
            if news:
                log.warning("%s", self.message())
        elif new:
            self._catalogue.set_regions([*shown, *new])
            for region in new:
                self._follower.follow(region)
            self._lister.begin()
