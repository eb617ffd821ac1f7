"""What a server on top of the mount needs: file handles that outlive caches and remounts (NFS)."""

import ctypes
import os
import struct
from pathlib import Path

import pytest

from tests.support.accounts import content_of, flat
from tests.support.calls import calls
from tests.support.mounts import files, mounted, standing

pytestmark = pytest.mark.fuse

AT_FDCWD = -100
HANDLE_MAX = 128  # bytes; MAX_HANDLE_SZ of linux/exportfs.h

libc = ctypes.CDLL(None, use_errno=True)


def handle_of(path: Path) -> bytes:
    """The file handle that nfsd would give to a client (open_by_handle_at(2))."""
    buffer = ctypes.create_string_buffer(struct.pack("Ii", HANDLE_MAX, 0), 8 + HANDLE_MAX)
    mount = ctypes.c_int()
    name = os.fsencode(path)
    if libc.name_to_handle_at(AT_FDCWD, name, buffer, ctypes.byref(mount), 0) != 0:
        raise OSError(ctypes.get_errno(), "name_to_handle_at")
    return buffer.raw


def opened(point: Path, handle: bytes) -> int:
    """A descriptor for a handle, as nfsd opens it; needs CAP_DAC_READ_SEARCH."""
    folder = os.open(point, os.O_RDONLY | os.O_DIRECTORY)
    try:
        descriptor = libc.open_by_handle_at(folder, handle, os.O_RDONLY)
        if descriptor < 0:
            raise OSError(ctypes.get_errno(), "open_by_handle_at")
        return int(descriptor)
    finally:
        os.close(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="open_by_handle_at(2) is root's")
def test_a_file_handle_is_good_after_a_remount(tmp_path):
    """Inode numbers are permanent: a client of NFS goes on where it was, for files and folders."""
    with standing(flat(1000, 2000)) as stand_in:
        with mounted(stand_in.url, tmp_path) as mount:
            path = files(mount.point)[1]
            handles = [handle_of(path), handle_of(path.parent)]
            mount.stop()
        with mounted(stand_in.url, tmp_path) as mount:
            file, folder = (opened(mount.point, handle) for handle in handles)
            try:
                assert os.read(file, 4096) == content_of(stand_in.service, "00000001")
                assert len(os.listdir(folder)) == 2
            finally:
                os.close(file)
                os.close(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="open_by_handle_at(2) is root's")
def test_a_file_handle_of_a_text_is_good_after_a_remount(tmp_path):
    """Its inode number is that of an object, so that it can be found again without its name."""
    with standing(calls()) as stand_in:
        with mounted(stand_in.url, tmp_path) as mount:
            day = mount.point / ".views/by-day/2026-03-02"
            paths = [next(day.glob("*Ann*.srt")), day / "calls.csv"]
            handles = [(handle_of(path), path.read_bytes()) for path in paths]
            mount.stop()
        with mounted(stand_in.url, tmp_path) as mount:
            for handle, content in handles:
                file = opened(mount.point, handle)
                assert os.read(file, 100_000) == content
                os.close(file)


@pytest.mark.skipif(os.geteuid() != 0, reason="open_by_handle_at(2) is root's")
@pytest.mark.parametrize("name", ["views", ".views"])
def test_a_file_handle_of_a_folder_of_a_view_is_good_after_a_remount(tmp_path, name):
    """Its inode number says where it is; the kernel then looks for its name in the folder above.

    It finds no name that is not listed, so ``.views`` has to be looked up by its name once.
    """
    with standing(calls()) as stand_in:
        with mounted(stand_in.url, tmp_path, views=name) as mount:
            views = mount.point / name
            paths = [views / "by-agent/2026-03/Ann-Lee", views / "by-queue/2026-03/Queue-1",
                     views / "by-day/2026-03-02", views / "text/2026/2026-03", views / "latest",
                     views / "by-day", views]  # fmt: skip
            handles = [(handle_of(path), sorted(os.listdir(path)), path) for path in paths]
            mount.stop()
        with mounted(stand_in.url, tmp_path, views=name) as mount:
            if name == ".views":
                with pytest.raises(OSError, match="open_by_handle_at"):
                    opened(mount.point, handles[0][0])
                views.stat()
            for handle, names, path in handles:
                folder = opened(mount.point, handle)
                assert sorted(os.listdir(folder)) == names
                assert os.readlink(f"/proc/self/fd/{folder}") == str(path)
                os.close(folder)
