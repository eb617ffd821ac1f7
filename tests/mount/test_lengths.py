"""Files whose record says another length than they have: the right bytes, or an error.

With real tools through a real mount, eight files each, since what goes wrong is a race between
an answer and the kernel's belief in a size.
"""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from phonofs.fakeservice.account import Account, flat_item
from phonofs.fakeservice.options import Options
from tests.support.accounts import NOON_MS, content_of
from tests.support.mounts import Mount, StandIn, files, mounted, standing

pytestmark = pytest.mark.fuse

MIB = 1 << 20
TIMES = 8
NOTHING_PROVES = [
    "",
    pytest.param("27b75edcb0305a6a6a87d60a1e01f1a4-3", marks=pytest.mark.slow),
]


def account(said: int, real: int, times: int = TIMES, **fields: object) -> Account:
    """So many objects of one length, whose records say another one."""
    return Account(
        replace(flat_item(f"{n:08d}", real, NOON_MS + 60_000 * n, **fields), size=said)
        for n in range(times)
    )


@contextmanager
def served(
    objects: Account,
    folder: Path,
    *faults: dict[str, object],
    way: Literal["range", "stream"] = "range",
    **options: str,
) -> Iterator[tuple[Mount, StandIn]]:
    with (
        standing(objects, Options(content=way)) as stand_in,
        mounted(stand_in.url, folder, **options) as mount,
    ):
        files(mount.point)
        stand_in.faults(*faults)
        yield mount, stand_in


def cp(path: Path, folder: Path) -> bytes | None:
    """What ``cp`` makes of a file; None where it says that it failed."""
    copy = folder / path.name
    done = subprocess.run(["cp", path, copy], capture_output=True, check=False)
    return copy.read_bytes() if done.returncode == 0 else None


def cat(path: Path, folder: Path) -> bytes | None:
    """The same with ``cat``."""
    done = subprocess.run(["cat", path], capture_output=True, check=False)
    return done.stdout if done.returncode == 0 else None


def dd(path: Path, folder: Path) -> bytes | None:
    """The same with ``dd``, in blocks of 64 KiB."""
    command = ["dd", f"if={path}", "bs=64k", "status=none"]
    done = subprocess.run(command, capture_output=True, check=False)
    return done.stdout if done.returncode == 0 else None


def python(path: Path, folder: Path) -> bytes | None:
    """The same with one large read."""
    try:
        return path.read_bytes()
    except OSError:
        return None


TOOLS = [cp, cat, dd, python]


@pytest.mark.promise("real-length-wins")
@pytest.mark.parametrize("checksum", [None, *NOTHING_PROVES])
@pytest.mark.parametrize("said", [1_000_000, 500])
def test_a_real_length_that_the_service_states(
    tmp_path: Path, said: int, checksum: str | None
) -> None:
    """Shorter and longer than the record says: what every tool gets is the content."""
    objects = account(said, 1000, TIMES * len(TOOLS), checksum=checksum)
    with served(objects, tmp_path) as (mount, stand_in):
        for n, (path, item) in enumerate(zip(files(mount.point), objects, strict=True)):
            tool = TOOLS[n % len(TOOLS)]
            assert tool(path, tmp_path) == content_of(stand_in.service, item.id), tool.__name__
            assert path.stat().st_size == 1000


def rsync(path: Path, folder: Path) -> bytes | None:
    """The same with ``rsync``, which goes by the size that it found."""
    copy = folder / path.name
    done = subprocess.run(["rsync", path, copy], capture_output=True, check=False)
    return copy.read_bytes() if done.returncode == 0 else None


@pytest.mark.promise("length-is-proved")
@pytest.mark.parametrize("checksum", [None, *NOTHING_PROVES])
@pytest.mark.parametrize("way", ["range", "stream"])
def test_a_size_of_0_of_a_content_that_is_not_nothing(
    tmp_path: Path, way: Literal["range", "stream"], checksum: str | None
) -> None:
    """The record is not filled in yet: its bytes, whichever tool reads it, and its size."""
    tools = [cp, cat, dd, python, rsync]
    objects = account(0, 300_000, len(tools), checksum=checksum)
    with served(objects, tmp_path, way=way) as (mount, stand_in):
        for tool, path, item in zip(tools, files(mount.point), objects, strict=True):
            assert tool(path, tmp_path) == content_of(stand_in.service, item.id), tool.__name__
            assert path.stat().st_size == 300_000


@pytest.mark.promise("length-is-proved")
def test_a_size_of_0_that_cannot_be_looked_at_is_an_error(tmp_path: Path) -> None:
    """No tool takes it for an empty file."""
    objects = account(0, 300_000, 1)
    no = {"kind": "content", "fail": "status", "status": 403}
    with served(objects, tmp_path, no) as (mount, _):
        (path,) = files(mount.point)
        assert [tool(path, tmp_path) for tool in (cp, cat, dd, python, rsync)] == [None] * 5


def test_an_empty_file_is_empty_and_costs_nothing(tmp_path: Path) -> None:
    """Its checksum is that of nothing."""
    with served(account(0, 0, 1), tmp_path) as (mount, stand_in):
        (path,) = files(mount.point)
        assert [tool(path, tmp_path) for tool in (cp, cat, dd, python)] == [b""] * 4
        assert stand_in.service.counters.requests["content"] == 0


@pytest.mark.promise("length-is-proved")
@pytest.mark.parametrize("checksum", NOTHING_PROVES)
def test_a_cut_body_does_not_pass_for_the_whole(tmp_path: Path, checksum: str) -> None:
    """Without a length, a close says nothing: no copy is half, and no size is remembered."""
    objects = account(1_000_000, 1_000_000, 1, checksum=checksum)
    cut = {"kind": "content", "fail": "unframed", "after": 500_000, "name": "cut"}
    with served(objects, tmp_path, cut, way="stream", read_deadline="2s") as (mount, stand_in):
        for path in files(mount.point):
            assert cp(path, tmp_path) is None
        assert stand_in.service.faults.fired["cut"]
        stand_in.faults()
        assert mount.stop() == 0
        mount.start()
        for path, item in zip(files(mount.point), objects, strict=True):
            assert path.stat().st_size == 1_000_000
            assert cp(path, tmp_path) == content_of(stand_in.service, item.id)


@pytest.mark.promise("length-is-proved")
@pytest.mark.parametrize("checksum", NOTHING_PROVES)
@pytest.mark.parametrize("real", [1000, 2_000_000])
def test_another_length_that_no_answer_states(tmp_path: Path, real: int, checksum: str) -> None:
    """All came, but nothing says that it is all: an error, not half of it or more than it."""
    objects = account(1_000_000, real, 1, checksum=checksum)
    silent = {"kind": "content", "fail": "unframed"}
    with served(objects, tmp_path, silent, way="stream", read_deadline="2s") as (mount, _):
        (path,) = files(mount.point)
        assert [tool(path, tmp_path) for tool in (cp, python)] == [None] * 2


@pytest.mark.promise("length-is-proved")
@pytest.mark.parametrize("checksum", [None, *NOTHING_PROVES])
def test_a_part_in_a_200_is_a_part(tmp_path: Path, checksum: str | None) -> None:
    """A well-known S3 server for tests answers ranges so: no file becomes as short as a part."""
    objects = account(12_345_678, 12_345_678, 1, checksum=checksum)
    with served(objects, tmp_path, {"kind": "content", "fail": "as_200"}) as (mount, stand_in):
        (path,) = files(mount.point)
        assert cat(path, tmp_path) == content_of(stand_in.service, "00000000")
        assert path.stat().st_size == 12_345_678


@pytest.mark.promise("length-is-proved")
@pytest.mark.parametrize(("short", "right"), [({"nth": 1}, True), ({"nth": [1, 3]}, False)])
def test_a_length_that_two_answers_do_not_agree_on(
    tmp_path: Path, short: dict[str, object], right: bool
) -> None:
    """Shorter by 100,000 bytes, in all form, once or every other time: never a shorter file."""
    objects = account(1_000_000, 1_000_000, 1, checksum="")
    rule = {"kind": "content", "fail": "short", "by": 100_000, "name": "short", **short}
    with served(objects, tmp_path, rule, way="stream", read_deadline="3s") as (mount, stand_in):
        (path,) = files(mount.point)
        whole = content_of(stand_in.service, "00000000")
        assert cat(path, tmp_path) == (whole if right else None)
        assert path.stat().st_size == 1_000_000
        assert stand_in.service.faults.fired["short"]


@pytest.mark.promise("length-is-proved")
@pytest.mark.parametrize("part", [5 * MIB, 8 * MIB])
def test_a_checksum_in_parts_proves_a_length(tmp_path: Path, part: int) -> None:
    """Tried with parts of the usual sizes: no second fetch, though no whole states a length."""
    objects = account(12 * MIB, 9 * MIB + 17, 1, multipart_bytes=part)
    with served(objects, tmp_path) as (mount, stand_in):
        (path,) = files(mount.point)
        assert cat(path, tmp_path) == content_of(stand_in.service, "00000000")
        assert path.stat().st_size == 9 * MIB + 17
        assert stand_in.service.counters.of("us-east", "00000000").twice <= 1 * MIB


def test_a_real_length_that_only_the_cache_remembers(tmp_path: Path) -> None:
    """The catalogue is new and has the record's: the size is told before a byte is read."""
    objects = account(1_000_000, 1000, 4 * TIMES)
    with served(objects, tmp_path) as (mount, stand_in):
        for path in files(mount.point):
            assert cat(path, tmp_path) is not None
        assert mount.stop() == 0
        for path in mount.cache.glob("catalogue.sqlite*"):
            path.unlink()
        mount.start()
        for n, (path, item) in enumerate(zip(files(mount.point), objects, strict=True)):
            assert path.stat().st_size == 1_000_000
            tool = TOOLS[n % len(TOOLS)]
            assert tool(path, tmp_path) == content_of(stand_in.service, item.id), tool.__name__
            assert path.stat().st_size == 1000


def direct(path: Path, folder: Path) -> bytes | None:
    """The same with ``dd`` past the page cache."""
    command = ["dd", f"if={path}", "bs=1M", "iflag=direct", "status=none"]
    done = subprocess.run(command, capture_output=True, check=False)
    return done.stdout if done.returncode == 0 else None


@pytest.mark.parametrize(("said", "real"), [(3 * MIB, 4 * MIB), (4 * MIB, 3 * MIB + 1)])
@pytest.mark.parametrize("checksum", [None, ""])
def test_a_real_length_that_is_read_past_the_page_cache(
    tmp_path: Path, said: int, real: int, checksum: str | None
) -> None:
    """The kernel knows the size before it is asked for what lies behind the one it believed."""
    objects = account(said, real, TIMES, checksum=checksum)
    with served(objects, tmp_path) as (mount, stand_in):
        for path, item in zip(files(mount.point), objects, strict=True):
            assert direct(path, tmp_path) == content_of(stand_in.service, item.id)
