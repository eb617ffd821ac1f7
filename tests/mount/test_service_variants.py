"""A mount works whichever way the service answers where its documents leave a choice."""

from pathlib import Path

import pytest

from phonofs.fakeservice.options import Options
from tests.support.accounts import content_of, flat
from tests.support.mounts import files, mounted, standing

pytestmark = pytest.mark.fuse

MANY = 230
"""Objects in one day: three pages."""
LARGE = 5_000_011
"""Bytes of an object that is read in parts."""


def ids(point: Path) -> list[str]:
    """The last part of each file's name."""
    return sorted(path.stem.rpartition("_")[2] for path in files(point))


@pytest.mark.parametrize("total", ["pages", "records", "absent"])
def test_a_folder_of_many_pages_is_whole_whatever_total_counts(tmp_path, total):
    """Every object once, from three pages, and one that comes later too."""
    account = flat(*range(1, MANY + 1))
    with (
        standing(account, Options(total=total)) as stand_in,
        mounted(stand_in.url, tmp_path) as mount,
    ):
        assert ids(mount.point) == [f"{number:08d}" for number in range(MANY)]
        last = max(files(mount.point))
        assert last.read_bytes() == content_of(stand_in.service, f"{MANY - 1:08d}")


PRESIGNED = [
    ("presign", "store", "refuse", "object"),
    ("presign", "store", "ignore", "string"),
    ("presign", "api", "refuse", "text"),
    ("presign", "api", "ignore", "object"),
    ("redirect", "api", "refuse", "object"),
]
"""How content is had, where the URL leads, what that does with a token, how the URL is said."""


@pytest.mark.parametrize(("way", "host", "token", "said"), PRESIGNED)
def test_content_comes_from_behind_any_presigned_url(tmp_path, way, host, token, said):
    """A small object, and a part from the middle of a large one; the token goes nowhere else."""
    options = Options(content=way, presign_host=host, presign_token=token, presign_answer=said)
    with (
        standing(flat(1000, LARGE), options) as stand_in,
        mounted(stand_in.url, tmp_path) as mount,
    ):
        small, large = files(mount.point)
        assert small.read_bytes() == content_of(stand_in.service, "00000000")
        whole = content_of(stand_in.service, "00000001")
        with large.open("rb") as file:
            file.seek(LARGE // 2)
            assert file.read(1000) == whole[LARGE // 2 :][:1000]
        assert large.read_bytes() == whole
        service = stand_in.service
        behind = [each for each in service.counters.seen if each.kind == "store"]
        assert behind
        assert not any("authorization" in each.headers for each in behind)


@pytest.mark.parametrize("host", ["store", "api"])
def test_content_streams_if_its_presigned_url_wants_the_token(tmp_path, host):
    """The token is not sent there; /content gives the bytes all the same."""
    options = Options(content="presign", presign_host=host, presign_token="want")
    with (
        standing(flat(1000, LARGE), options) as stand_in,
        mounted(stand_in.url, tmp_path) as mount,
    ):
        small, large = files(mount.point)
        assert small.read_bytes() == content_of(stand_in.service, "00000000")
        assert large.read_bytes() == content_of(stand_in.service, "00000001")
        seen = stand_in.service.counters.seen
        assert not any("authorization" in each.headers for each in seen if each.kind == "store")
