"""What is noted beside a change may fail; the change is told all the same."""

import time

import pytest

from phonofs.catalogue.catalogue import Catalogue, TreeOptions
from phonofs.catalogue.notes import Notes
from phonofs.errors import CatalogueError
from phonofs.fakeservice.account import change
from tests.fault.scene import RecordingKernel, fast, living, settings_of, standing, until
from tests.support.accounts import flat

pytestmark = pytest.mark.expected_log("the pending restores could not be saved")


@fast
async def test_the_kernel_is_told_though_the_note_fails(tmp_path, monkeypatch):
    """An object that was asked back is there: names and pages of it must not stay as they were
    because the disk does not take the note that nobody waits for it any more."""
    account = flat(1000, state="ARCHIVED")
    async with standing(account) as service:
        async with living(service, tmp_path) as scene:
            assert await scene.tree()
        known = tmp_path / "cache/catalogue.sqlite"
        catalogue = Catalogue.open(known, TreeOptions.of(settings_of(service.url, tmp_path)))
        catalogue.notes.remember("restores", [["us-east", "00000000", time.time()]])
        catalogue.close()
        remember = Notes.remember

        def failing(self, key, value):
            if key == "restores":
                raise CatalogueError("the disk is full")
            remember(self, key, value)

        monkeypatch.setattr(Notes, "remember", failing)
        async with living(
            service, tmp_path, kernel=(told := RecordingKernel()), poll_interval="1s"
        ) as scene:
            assert scene.app.status.document()["restores"]["pending"] == 1
            assert await scene.tree()
            change(account, "us-east", "00000000", service.now_ms(), state="AVAILABLE")

            async def is_told() -> bool:
                return any(one.record.state == "AVAILABLE" for one in told.changes)

            await until(is_told, 60, 1)
            assert scene.app.status.document()["restores"]["pending"] == 0
            followed = scene.app.status.document()["catalogue"]["followed"]
            assert followed["us-east"]["failures"] == 0
