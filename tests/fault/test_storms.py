"""Storms of stat and of names over a mount, while its files are read."""

import os

import pytest

from tests.fault.storms import NAMES, names, overlaid, stats, storm
from tests.fault.tools import needs, quiet, reading, status
from tests.support.accounts import content_of, flat
from tests.support.mounts import files, mounted, standing, until

pytestmark = pytest.mark.fuse

FILES = 300
SIZE = 20_000


@pytest.fixture
def mount(tmp_path):
    needs("stress-ng")
    (tmp_path / "temporary").mkdir()
    with (
        standing(flat(*[SIZE] * FILES)) as stand_in,
        mounted(stand_in.url, tmp_path, cache_size="2M", poll_interval="0.2s") as mount,
    ):
        mount.stand_in = stand_in
        mount.temporary = tmp_path / "temporary"
        mount.paths = files(mount.point)
        mount.day = mount.paths[0].parent
        yield mount


def all_is_as_before(mount, before):
    assert os.listdir(mount.day) == before
    for number, path in enumerate(mount.paths):
        assert path.read_bytes() == content_of(mount.stand_in.service, f"{number:08d}")
    until(lambda: quiet(mount))
    assert status(mount)["fuse"]["open_folders"] == 0
    assert set(status(mount)["fuse"]["errnos"]) <= {"ENOENT", "EOPNOTSUPP", "ENODATA"}
    assert mount.stop() == 0
    assert "Traceback" not in mount.log_text()
    assert "WARNING" not in mount.log_text()


def test_a_storm_of_stat(mount):
    """stress-ng's fstat over a folder that is read and followed: every answer is right."""
    before = os.listdir(mount.day)
    with (
        storm(mount.temporary, 1, *stats(mount.day, 4)) as running,
        reading((path, 0, SIZE) for path in mount.paths) as readers,
    ):
        assert {got for got, _ in readers.ends()} == {SIZE}
        assert running.operations()["fstat"] > 0
    all_is_as_before(mount, before)


def test_a_storm_of_names(mount, tmp_path):
    """stress-ng's file and dentry stressors in an overlay over the mount, since they write.

    The mount is asked for each name at the top of the overlay, and lists its part of it.
    """
    if os.geteuid() != 0:
        pytest.skip("mounting an overlay needs root")
    before = os.listdir(mount.day)
    with overlaid(mount.day, tmp_path) as merged:
        with (
            storm(merged, 60, *names()) as running,
            reading((path, 0, SIZE) for path in mount.paths) as readers,
        ):
            assert {got for got, _ in readers.ends()} == {SIZE}
            done = running.operations()
        assert {name: done[name] >= NAMES[name] for name in done} == dict.fromkeys(NAMES, True)
        assert status(mount)["fuse"]["errnos"]["ENOENT"] >= len(NAMES), "it was not asked"
        assert sorted(os.listdir(merged)) == sorted(before)
    all_is_as_before(mount, before)
