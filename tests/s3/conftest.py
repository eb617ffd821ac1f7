"""The S3 door over the made-up account, and another S3 server with the same objects."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from phonofs.demo.dataset import demo_account
from phonofs.fakeservice.account import Account, flat_item
from tests.support.mounts import standing
from tests.support.s3 import Door, Endpoint, Tree, content, put_all, s3_door, seaweed

TODAY = datetime(2026, 3, 2, tzinfo=UTC).date()
NAMES = [
    "Müller & Söhne", "שרה כהן", "🎧 DJ Ömür", "日本語", "100% a+b=c;d,e #f ~g", "it's (a) 'name'!",
]  # fmt: skip
"""Agents whose names clients have to encode, and sign as they were encoded."""


def account() -> Account:
    """The made-up account, with names that are hard, nothing at all, and some megabytes."""
    made = demo_account(TODAY)
    at_ms = int(datetime(2026, 2, 20, 9, tzinfo=UTC).timestamp() * 1000)
    for number, name in enumerate(NAMES):
        item = flat_item(f"odd{number}", 1000 + number, at_ms + number * 1000)
        made.put(replace(item, tags={**item.tags, "agentName": name}))
    made.put(flat_item("nothing", 0, at_ms + 60_000))
    made.put(flat_item("large", 9_000_001, at_ms + 61_000))
    return made


@pytest.fixture(scope="package")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """For tests that only read."""
    folder = tmp_path_factory.mktemp("door")
    with (
        standing(account()) as stand_in,
        s3_door(stand_in.service, folder) as door,
    ):
        yield door


@pytest.fixture(scope="package")
def tree(door: Door) -> Tree:
    return door.tree


@pytest.fixture(scope="package")
def oracle(tree: Tree, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """For tests that only read."""
    with seaweed(tmp_path_factory.mktemp("oracle") / "weed") as endpoint:
        put_all(endpoint, tree)
        yield endpoint


@pytest.fixture(params=["door", "oracle"])
def endpoint(request: pytest.FixtureRequest, door: Door, oracle: Endpoint) -> Endpoint:
    """Each of both: a client that fails with both was asked wrongly."""
    return door.endpoint if request.param == "door" else oracle


@pytest.fixture(scope="package")
def plain(tree: Tree, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the same bytes as files, archived ones too."""
    root = tmp_path_factory.mktemp("plain")
    for key, item in tree.items.items():
        (root / key).parent.mkdir(parents=True, exist_ok=True)
        (root / key).write_bytes(content(item))
    return root
