"""The catalogue of a profile that is not mounted, as what ``find`` and ``manifest`` search."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from phonofs.account import known
from phonofs.cache.accounts import CATALOGUE, Accounts, key_hash
from phonofs.catalogue.catalogue import Catalogue
from phonofs.catalogue.search import file_named, read, report, search_known
from phonofs.catalogue.types import TreeOptions
from phonofs.cli.account import credentials_of
from phonofs.config.load import load
from phonofs.errors import UsageError
from phonofs.search.answer import Answer, Found
from phonofs.search.condition import Condition

EVERYTHING = Condition()


class CatalogueSource:
    """Searches what the catalogue on disk knows, as of the last mount or index."""

    def __init__(self, catalogue: Catalogue, profile: str) -> None:
        self._catalogue = catalogue
        self.top = ""
        self.profile = profile
        self.zone = catalogue.placement.calendar.zone
        self.answer = Answer()

    def find(self, condition: Condition, what: str, *, records: bool) -> Iterator[list[Found]]:
        """Yield what matches a condition."""
        yield from search_known(self._catalogue, condition, records=records)
        answer = Answer()
        report(self._catalogue, condition, what, time.time_ns() // 1_000_000, answer)
        self.answer.add(answer)

    def files(self, paths: Sequence[str]) -> Iterator[list[Found]]:
        """Yield files with their records."""
        objects = []
        for path in paths:
            found = file_named(self._catalogue, path)
            if found is None:
                self.answer.missing.append(f"{path} is not there, or not known")
            else:
                objects.append((path, found))
        return read(self._catalogue, objects, EVERYTHING)


@contextmanager
def opened(profile: str, options: Sequence[str]) -> Iterator[CatalogueSource]:
    """Open the catalogue of the account that the profile's key is known to belong to.

    Raises UsageError, also if nothing is known of that account or the key is missing.
    """
    settings = load(profile, options)
    nothing = (
        f"nothing is known of the account of profile {profile}: mount it, or run phonofs index"
    )
    if not settings.cache_dir.is_dir():
        raise UsageError(nothing)
    hashed = key_hash(settings.api_url, credentials_of(settings).key)
    accounts = Accounts.open(settings.cache_dir)
    try:
        account = known(accounts, settings, hashed)
        path = accounts.home(account) / CATALOGUE if account is not None else None
        if path is None or not path.exists():
            raise UsageError(nothing)
        catalogue = Catalogue.open(path, TreeOptions.of(settings))
        try:
            yield CatalogueSource(catalogue, profile)
        finally:
            catalogue.close()
    finally:
        accounts.close()
