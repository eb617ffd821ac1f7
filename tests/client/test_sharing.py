"""What programs cost the service, however many they are."""

import hashlib
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("fsspec", reason="fsspec is not installed")

from phonofs.fakeservice.account import Account, flat_item
from tests.support.accounts import NOON_MS
from tests.support.doors import PROFILE, Served, served
from tests.support.mounts import is_followed, standing, until
from tests.support.programs import as_programs_of

FILES = 60

PAGES = 7
"""Pages of ten that a day of so many files has; each begins with the last file of the former."""

READ_ALL = f"""
import fsspec, hashlib
fs = fsspec.filesystem("phonofs", autostart=False)
contents = fs.cat(fs.find("{PROFILE}"))
print(hashlib.md5(b"".join(contents.values())).hexdigest())
"""


def account() -> Account:
    return Account(flat_item(f"{n:08}", 50_000, NOON_MS + 60_000 * n) for n in range(FILES))


def begin(daemon: Served) -> None:
    """Wait until changes are followed, and list all that is above the day.

    From then on nothing is searched for again because time has passed, or because the first poll
    came after a listing.
    """
    until(lambda: is_followed(daemon.status()))
    with daemon.connect() as client:
        for above in ("", "2026", "2026/2026-03"):
            client.ls(above)


def read_by(processes: int, folder: Path) -> Counter[str]:
    """Have so many processes read a cold account at once; return the requests by kind."""
    folder.mkdir()
    with (
        standing(account()) as stand_in,
        served(stand_in.url, folder, poll_interval="1h", page_size="10") as daemon,
        as_programs_of(daemon),
    ):
        begin(daemon)
        counted = stand_in.service.counters
        counted.clear()
        readers = [
            subprocess.Popen([sys.executable, "-c", READ_ALL], stdout=subprocess.PIPE, text=True)
            for _ in range(processes)
        ]
        sums = {reader.communicate(timeout=100)[0].strip() for reader in readers}
        whole = b"".join(item.content.read(0, 50_000) for item in stand_in.service.account)
        assert sums == {hashlib.md5(whole).hexdigest()}
        assert counted.bytes == len(whole)
        return counted.requests.copy()


@pytest.mark.promise("one-owner-a-machine")
def test_eight_processes_cost_the_service_as_one(tmp_path: Path):
    """Who reads a cold account at once: each byte is sent once, each page is searched once."""
    one, eight = read_by(1, tmp_path / "one"), read_by(8, tmp_path / "eight")
    assert eight["content"] == one["content"] == FILES
    assert eight["search"] == one["search"] == PAGES
