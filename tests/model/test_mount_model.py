"""The same against a real mount: what the kernel shows is the reference, after every change.

The fake service runs in a thread of the test; phonofs shows a change within two polls.
"""

import os
import random
import time
from pathlib import Path
from typing import Any

import pytest

from phonofs.fakeservice.account import Account, Item, change, flat_item
from phonofs.fakeservice.content import ramp
from tests.model.world import Look, reference
from tests.support.mounts import Mount, StandIn, mounted, standing, until

pytestmark = pytest.mark.fuse

HOUR_MS = 3_600_000
SIZES = [0, 1, 4096, 131_073, 700_001]
AGENTS = ["", "A", "a", "../A"]
SAID = ("id", "state", "checksum")
CACHE_SIZE = 1_500_000
OPTIONS = {
    "poll_interval": "0.2s",
    "cache_size": str(CACHE_SIZE),
    "name_template": "{time}_{name}_{id8}",
    "read_deadline": "10s",
}


class Chance:
    """What happens next, from a seed. Owns the ids given out."""

    def __init__(self, account: Account, seed: int) -> None:
        self.account = account
        self._random = random.Random(seed)
        self._ids = 0

    def item(self) -> Item:
        chance, now_ms = self._random, time.time_ns() // 1_000_000
        self._ids += 1
        return flat_item(
            f"samesame-{self._ids}",
            chance.choice(SIZES),
            now_ms // HOUR_MS * HOUR_MS - chance.randrange(100) * HOUR_MS,
            updated_ms=now_ms,
            tags={"startTime": "1700000000000", "agentName": chance.choice(AGENTS)},
        )

    def happen(self) -> str:
        """One change of the account; what it was."""
        chance, now_ms = self._random, time.time_ns() // 1_000_000
        items = list(self.account)
        if not items or chance.random() < 0.3:
            self.account.put(item := self.item())
            return f"add {item.id}"
        item = chance.choice(items)
        now_ms = max(now_ms, item.updated_ms + 1000)  # times have seconds: none shows two changes
        fields: dict[str, Any] = chance.choice(
            [
                {"state": chance.choice(["AVAILABLE", "ARCHIVED", "REVOKED", "DELETED"])},
                {"tags": {**item.tags, "agentName": chance.choice(AGENTS)}},
                {"content": ramp(f"{item.id}{now_ms}", chance.choice(SIZES))},
            ]
        )
        change(self.account, item.region, item.id, now_ms, **fields)
        return f"change {item.id}: {fields}"


class Story:
    """One mount and the account behind it; remembers each object's inode number."""

    def __init__(self, stand_in: StandIn, mount: Mount, chance: Chance) -> None:
        self.stand_in = stand_in
        self.mount = mount
        self.chance = chance
        self.numbers: dict[str, int] = {}
        self.read_bytes = 0

    @property
    def account(self) -> Account:
        return self.chance.account

    def shown(self) -> dict[str, list[str]]:
        """Path to id, state, checksum, by system calls; what goes meanwhile is left out."""
        found = {}
        for folder, _, names in os.walk(self.mount.point):
            for name in names:
                path = Path(folder, name)
                try:
                    said = [os.getxattr(path, f"user.phonofs.{name}").decode() for name in SAID]
                except FileNotFoundError:
                    continue
                found[str(path.relative_to(self.mount.point))] = said
        return found

    def expected(self) -> dict[str, list[str]]:
        return {
            path: [key[1], self.item(key[1]).state, self.item(key[1]).sum]
            for path, key in reference(self.account, Look()).items()
        }

    def item(self, id: str) -> Item:
        item = self.account.item("us-east", id)
        assert item is not None
        return item

    def check(self, what: list[str]) -> None:
        """The tree becomes the reference within a few polls, and every byte is right."""
        try:
            until(lambda: self.shown() == self.expected(), within_s=10)
        except AssertionError:
            pytest.fail(f"{what}: {self.shown()} is not {self.expected()}")
        for path, (id, _, _) in self.shown().items():
            self.check_file(self.mount.point / path, id)

    def check_file(self, path: Path, id: str) -> None:
        item, found = self.item(id), path.stat()
        assert self.numbers.setdefault(id, found.st_ino) == found.st_ino
        assert found.st_size == item.content.size
        if item.state == "ARCHIVED":
            with pytest.raises(OSError, match="No data available"):
                path.open()
            return
        assert path.read_bytes() == item.content.read(0, item.content.size)
        self.read_bytes += item.content.size


def live(folder: Path, seed: int, turns: int) -> None:
    chance = Chance(Account([], ["us-east"]), seed)
    for _ in range(4):
        chance.account.put(chance.item())
    with standing(chance.account) as stand_in, mounted(stand_in.url, folder, **OPTIONS) as mount:
        story = Story(stand_in, mount, chance)
        for turn in range(turns):
            story.check([chance.happen() for _ in range(3)] if turn else [])
            if turn % 4 == 3:
                faults = stand_in.faults({"probability": 0.3, "fail": "status", "status": 503})
                story.check([chance.happen()])
                until(lambda faults=faults: sum(faults.fired.values()) > 0)
                stand_in.faults()
            if turn % 6 == 5:
                assert mount.stop() == 0
                mount.start()
        assert story.read_bytes > CACHE_SIZE, "nothing was evicted"
        assert "Traceback" not in mount.log_text()


@pytest.mark.promise("tree-is-the-account", "inodes-permanent")
@pytest.mark.expected_log("")
def test_a_real_mount_is_what_the_object_list_says(tmp_path):
    """Changes, faults, evictions and a remount; names, numbers, sizes, bytes after each."""
    live(tmp_path, seed=1, turns=8)


@pytest.mark.slow
@pytest.mark.expected_log("")
@pytest.mark.parametrize("seed", range(2, 12))
def test_a_real_mount_for_long(tmp_path, seed):
    """The same, other things happening."""
    live(tmp_path, seed, turns=25)
