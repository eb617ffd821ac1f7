"""What the handlers make of the answers of the file system."""

from types import SimpleNamespace

import pytest

from phonofs.errors import Unavailable
from phonofs.fuse.interrupts import InterruptibleRequests
from phonofs.fuse.operations import Operations, Ownership
from phonofs.vfs import Vfs
from tests.support.catalogue_world import FakeService, make, uuid, world

DAY = "2024/2024-09/2024-09-03"
NOBODY = SimpleNamespace(pid=0)


def handlers(vfs) -> Operations:
    """The handlers over a file system, in an outage in which one operation has failed."""
    kernel = SimpleNamespace(changes=0, opened=lambda ino: None)
    operations = Operations(vfs, InterruptibleRequests(60.0), Ownership(0, 0, 0), kernel)
    operations.error_stats.answer("read", Unavailable("gone"))
    return operations


@pytest.mark.expected_log("gone; what is cached", "the service answers again")
async def test_a_known_folder_that_is_shown_does_not_end_an_outage(tmp_path):
    """It is shown although the service has not answered."""
    async with world(tmp_path, [make(uuid(1), "2024-09-03T10:00:00Z")]) as here:
        await here.ls(DAY)
    service = FakeService(here.service.records, error=Unavailable("gone"))
    async with world(tmp_path, service=service) as here:
        vfs = Vfs(here.catalogue, here.lister, None, cached_bytes=len, status=dict)
        operations = handlers(vfs)
        day = await here.open(DAY.rpartition("/")[0])
        day = here.catalogue.lookup(day, DAY.rpartition("/")[2]).ino
        asked = len(service.asked)
        await operations.opendir(day, NOBODY)
        assert len(service.asked) > asked
        assert operations.statistics()["failed_in_outage"] == 1
        service.error = None
        here.lister._looked.clear()
        await operations.opendir(day, NOBODY)
        assert operations.statistics()["failed_in_outage"] == 0


@pytest.mark.expected_log("gone; what is cached", "the service answers again")
async def test_bytes_from_the_disk_do_not_end_an_outage():
    """A read waits for the disk, too."""
    vfs = SimpleNamespace(lend_now=lambda *_: None, reads_answered=7)

    async def read(handle, offset, size):
        return b"there"

    vfs.lend = read
    operations = handlers(vfs)
    operations._files[1] = SimpleNamespace(
        handle=SimpleNamespace(told=5), believed=5, direct=False, ino=9, pid=0, reads_little=False
    )
    assert await operations.read(1, 0, 5) == b"there"
    assert operations.statistics()["failed_in_outage"] == 1

    async def read_from_service(handle, offset, size):
        vfs.reads_answered += 1
        return b"there"

    vfs.lend = read_from_service
    assert await operations.read(1, 0, 1 << 20) == b"there"
    assert operations.statistics()["failed_in_outage"] == 0
