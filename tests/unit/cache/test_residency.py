"""Whether the page cache has a range of a file, by what the kernel says."""

import os
from pathlib import Path

import pytest

from phonofs.cache import residency
from phonofs.cache.residency import is_resident

MIB = 1 << 20


@pytest.fixture
def file(tmp_path: Path):
    (tmp_path / "file").write_bytes(b"x" * (MIB + 5))
    descriptor = os.open(tmp_path / "file", os.O_RDWR)
    yield descriptor
    os.close(descriptor)


def kernel_has_it(file: int) -> bool:
    return is_resident(file, 0, 1)


def test_what_was_just_written_is_there_to_its_end_and_no_further(file: int):
    if not kernel_has_it(file):
        pytest.skip("this kernel has no cachestat(2), or no page cache for this file system")
    for offset, size in ((0, MIB + 5), (4095, 2), (MIB, 5), (MIB + 4, 1)):
        assert is_resident(file, offset, size)
    assert not is_resident(file, MIB + 5, 1)
    assert not is_resident(file, MIB - 1, 4098)
    os.fsync(file)
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    if kernel_has_it(file):
        pytest.skip("this file system keeps its pages: it is in memory")
    os.pread(file, 1, MIB // 2)
    assert not is_resident(file, 0, MIB + 5)


def test_a_kernel_that_does_not_say_so_is_taken_for_a_no(
    file: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(residency, "SYSCALL", 100_000)
    assert not is_resident(file, 0, 1)
