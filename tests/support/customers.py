"""Two customers of one service: each key sees only the objects of its own customer."""

import base64
from collections.abc import Iterator
from contextlib import contextmanager

from phonofs.fakeservice.account import Account, flat_item
from phonofs.fakeservice.options import DEMO_KEY, DEMO_SECRET, Options
from phonofs.fakeservice.responses import Answer, Request
from tests.support.accounts import NOON_MS
from tests.support.counted_service import Service
from tests.support.mounts import StandIn

OTHER_KEY = "other-key"
ROTATED_KEY = "rotated-key"


def objects_of(customer: str, mark: str, *sizes: int, region: str = "us-east") -> Account:
    """Make objects ``{mark}0000``, ``{mark}0001`` … of a customer, a minute apart."""
    return Account(
        flat_item(
            f"{mark}{index:04d}",
            size,
            NOON_MS + 60_000 * index,
            region=region,
            extra={"customerId": customer},
        )
        for index, size in enumerate(sizes)
    )


class SeveralCustomers(Service):
    """One origin with a service for each key. ``by_key`` may be changed while it runs."""

    def __init__(self, accounts: dict[str, Account]) -> None:
        super().__init__(next(iter(accounts.values())))
        self.by_key: dict[str, Service] = {}
        for key, account in accounts.items():
            self.add_key(key, account)

    def add_key(self, key: str, account: Account) -> None:
        """Accept another key, which sees the objects of this account."""
        self.by_key[key] = Service(account, Options(key=key, secret=DEMO_SECRET))

    async def answer(self, request: Request) -> Answer:
        """Answer by the service of the key, or of the token's key."""
        for service in self.by_key.values():
            service.url, service.store_url = self.url, self.store_url
        chosen = self._chosen(request)
        if chosen is None:
            return await super().answer(request)
        chosen.faults = self.faults
        return await chosen.answer(request)

    def _chosen(self, request: Request) -> Service | None:
        scheme, _, word = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "basic":
            key = base64.b64decode(word).decode().partition(":")[0]
            return self.by_key.get(key)
        for service in self.by_key.values():
            if service.tokens.accepts(request):
                return service
        return None


class Customers(StandIn):
    """The services of several customers, in a thread."""

    def __init__(self, accounts: dict[str, Account]) -> None:
        super().__init__(next(iter(accounts.values())))
        self.service = SeveralCustomers(accounts)


@contextmanager
def customers(accounts: dict[str, Account]) -> Iterator[Customers]:
    """Run a service that accepts these keys."""
    stand_in = Customers(accounts)
    stand_in.start()
    try:
        yield stand_in
    finally:
        stand_in.stop()


__all__ = ["DEMO_KEY", "OTHER_KEY", "ROTATED_KEY", "Customers", "customers", "objects_of"]
