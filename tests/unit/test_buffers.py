"""Buffers for the kernel."""

import ctypes

import pytest

from phonofs.buffers import PAGE, page_aligned


@pytest.mark.parametrize("size", [0, 1, 4096, 50_000, 1 << 20])
def test_a_buffer_begins_where_a_page_does(size):
    for buffer in [page_aligned(size) for _ in range(5)]:
        assert len(buffer) == size
        assert bytes(buffer) == bytes(size)
        if size:
            assert ctypes.addressof(ctypes.c_char.from_buffer(buffer)) % PAGE == 0


def test_a_buffer_keeps_its_bytes():
    buffer = page_aligned(10_000)
    buffer[:] = bytes(range(250)) * 40
    others = [page_aligned(10_000) for _ in range(20)]
    assert all(bytes(other) == bytes(10_000) for other in others)
    assert bytes(buffer) == bytes(range(250)) * 40
