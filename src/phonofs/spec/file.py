"""An open file of ``phonofs://``."""

from collections.abc import Mapping
from typing import Any

from fsspec.spec import AbstractBufferedFile

from phonofs.client import OpenFile
from phonofs.spec.entries import Info


class PhonofsFile(AbstractBufferedFile):  # type: ignore[misc]
    """An open file: one content, also after a restart of the daemon, a fork, or being pickled."""

    def __init__(
        self,
        fs: Any,
        info: Info,
        block_size: int,
        cache_type: str,
        cache_options: Mapping[str, Any] | None,
    ) -> None:
        self._content: OpenFile = fs.opened(info)
        super().__init__(
            fs,
            info["name"],
            block_size=block_size,
            cache_type=cache_type,
            cache_options=dict(cache_options or {}),
            size=info["size"],
        )
        self.details = info
        self._cache_type = cache_type

    def open_now(self) -> None:
        """Open it at the daemon. Raises ENODATA if it is archived."""
        self._content.open()

    def read(self, length: int | None = -1) -> bytes:
        """Return bytes from here on; all that are left by default."""
        size: int = max(self.size - self.loc, 0)
        if length is not None and length >= 0:
            size = min(length, size)
        if size <= self.blocksize or self.closed:
            data: bytes = super().read(size)
            return data
        data = self._content.read(self.loc, size)  # into what is returned, past the buffer
        self.loc += size
        return data

    def _fetch_range(self, start: int, end: int) -> bytes:
        return self._content.read(start, end - start) if end > start else b""

    def close(self) -> None:
        """Close it, here and at the daemon."""
        super().close()
        content = getattr(self, "_content", None)  # not there if __init__ failed
        if content is not None:
            content.close()

    def __reduce__(self) -> Any:
        return _opened_again, (self.fs, self.details, self.blocksize, self._cache_type, self.loc)


def _opened_again(fs: Any, info: Info, block_size: int, cache_type: str, at: int) -> PhonofsFile:
    """Return an unpickled file; its first read opens it."""
    file = PhonofsFile(fs, info, block_size, cache_type, None)
    file.seek(at)
    return file
