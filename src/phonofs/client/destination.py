"""Memory for bytes that are received: they are not copied again, and cost few page faults."""

import ctypes
import io
import mmap

LARGE = 8 << 20
"""From this size on, huge pages are asked for. 512 MiB in pages of 4 KiB are 130,000 page faults,
which take five times as long as the copy itself."""

PAGE = mmap.PAGESIZE

_madvise = ctypes.CDLL(None).madvise


class Destination:
    """Bytes that are received in pieces.

    A ``BytesIO`` shares the bytes that it is made of, and gives them back, for as long as nobody
    else has a reference to them.
    """

    def __init__(self, size: int) -> None:
        self._buffer = io.BytesIO(bytes(size))
        self.view = self._buffer.getbuffer()
        if size >= LARGE:
            _ask_for_huge_pages(self.view)

    def __enter__(self) -> "Destination":
        return self

    def __exit__(self, *_: object) -> None:
        self.view.release()

    def content(self) -> bytes:
        """Return the bytes, once the ``with`` block has ended."""
        return self._buffer.getvalue()


def _ask_for_huge_pages(view: memoryview) -> None:
    """Advise the kernel about memory that was not touched yet; it may decline, or have none."""
    first = ctypes.addressof(ctypes.c_char.from_buffer(view))
    start = -(-first // PAGE) * PAGE
    stop = (first + len(view)) // PAGE * PAGE
    _madvise(ctypes.c_void_p(start), ctypes.c_size_t(stop - start), mmap.MADV_HUGEPAGE)
