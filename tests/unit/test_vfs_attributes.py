"""Extended attributes as the file system has them: by name, and the ones that are listed."""

import json

import pytest
import trio

from phonofs.errors import NoSuchAttribute, WrongAccount
from phonofs.tree.layout import ROOT
from phonofs.vfs import Vfs
from tests.support.catalogue_world import files, make, uuid, world

DAY = "2024/2024-09/2024-09-03"


async def test_one_attribute_costs_no_other(tmp_path):
    """To ask how much is cached has it written to disk, so that only who asks that pays for it."""
    asked = []
    async with world(tmp_path, [make(uuid(1), "2024-09-03T10:00:00Z", callId="7")]) as here:
        vfs = Vfs(
            here.catalogue,
            here.lister,
            None,
            cached_bytes=lambda record: asked.append(record.id) or 5,
            status=lambda: asked.append("status") or {},
        )
        day = await here.open(DAY)
        (entry,) = here.catalogue.children(day)
        assert vfs.attribute(entry.ino, "user.phonofs.id") == uuid(1).encode()
        assert vfs.attribute(entry.ino, "user.phonofs.tag.callId") == b"7"
        assert json.loads(vfs.attribute(entry.ino, "user.phonofs.json"))["id"] == uuid(1)
        assert vfs.attribute(entry.ino, "user.phonofs.path").decode() == files(here.catalogue)[0]
        assert vfs.attribute(day, "user.phonofs.path").decode() == DAY
        assert vfs.attribute(ROOT, "user.phonofs.path") == b""
        assert vfs.attributes(ROOT) == vfs.attributes(day) == []
        assert "user.phonofs.id" in vfs.attributes(entry.ino)
        for ino, name in [(entry.ino, "user.phonofs.none"), (day, "user.phonofs.id")]:
            with pytest.raises(NoSuchAttribute):
                vfs.attribute(ino, name)
        assert asked == []
        assert vfs.attribute(entry.ino, "user.phonofs.cached") == b"5"
        assert vfs.attribute(ROOT, "user.phonofs.status") == b"{}"
        assert asked == [uuid(1), "status"]


async def test_what_is_listed_does_not_depend_on_the_order_of_tags(tmp_path):
    """The service may give them in another order the next time."""
    tags = {f"tag{number:02}": "x" * (50 + number % 7) for number in range(80)}
    backwards = dict(reversed(tags.items()))
    records = [
        make(uuid(1), "2024-09-03T10:00:00Z", **tags),
        make(uuid(2), "2024-09-03T10:00:01Z", **backwards),
    ]
    async with world(tmp_path, records) as here:
        vfs = Vfs(here.catalogue, here.lister, None, cached_bytes=lambda record: 0, status=dict)
        entries = here.catalogue.children(await here.open(DAY))
        first, second = (vfs.attributes(entry.ino) for entry in entries)
        assert first == second
        assert 20 < len(first) < 60


@pytest.mark.parametrize(
    "ask", [lambda vfs: vfs.lookup(ROOT, "2024"), lambda vfs: vfs.open_folder(ROOT)]
)
async def test_what_is_asked_for_when_the_mount_is_refused_is_not_given(tmp_path, ask):
    """The answer comes after the kernel forgot all names: it would keep this one."""
    async with world(tmp_path, [make(uuid(1), "2024-09-03T10:00:00Z")]) as here:
        refused = []

        def check() -> None:
            for each in refused:
                raise each

        vfs = Vfs(
            here.catalogue,
            here.lister,
            None,
            cached_bytes=lambda record: 0,
            status=dict,
            check=check,
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(given_nothing, ask, vfs)
            await trio.lowlevel.checkpoint()
            refused.append(WrongAccount("another account"))


async def given_nothing(ask, vfs):
    with pytest.raises(WrongAccount):
        await ask(vfs)
