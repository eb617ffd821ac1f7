"""The rules of a time zone that change under a catalogue."""

import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from phonofs.fakeservice.account import Account, flat_item
from tests.fault.tools import needs
from tests.support.mounts import files, mounted, standing

pytestmark = pytest.mark.fuse

AT_MS = int(datetime(2026, 3, 2, 18, 30, tzinfo=UTC).timestamp() * 1000)


def compile_zone(folder: Path, offset: str) -> None:
    """``Test/Zone`` with a fixed offset, below ``folder``."""
    source = folder.parent / "zone"
    source.write_text(f"Zone Test/Zone {offset} - TST\n")
    subprocess.run(["zic", "-d", folder, source], check=True)


@pytest.mark.promise("tree-is-the-account")
def test_other_rules_of_the_same_zone_place_everything_anew(tmp_path, monkeypatch):
    """An update of the system's zones moves what is known to the days that it now lies in."""
    needs("zic")
    zones = tmp_path / "zones"
    monkeypatch.setenv("PYTHONTZPATH", str(zones))
    account = Account([flat_item("a", 10, AT_MS)])
    with standing(account) as stand_in:
        for offset, day in [("5:00", "2026-03-02"), ("6:00", "2026-03-03")]:
            compile_zone(zones, offset)
            account.put(flat_item(f"new-{offset[0]}", 10, AT_MS + 120_000))
            with mounted(stand_in.url, tmp_path, timezone="Test/Zone") as mount:
                assert {path.parent.name for path in files(mount.point)} == {day}
                mount.stop()
