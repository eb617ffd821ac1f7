"""``UPath("phonofs://…")``: a pathlib path of recordings, which cannot be written to.

Found by universal_pathlib's entry point; that package need not be installed otherwise.
"""

from typing import Any, NoReturn

from fsspec import register_implementation
from upath import UnsupportedOperation, UPath

from phonofs.spec.filesystem import PhonofsFileSystem

register_implementation("phonofs", PhonofsFileSystem, clobber=True)
"""As fsspec does it itself once it has opened the first URL; universal_pathlib may come earlier."""


class PhonofsPath(UPath):
    """A path below a profile. What writes raises UnsupportedOperation, as pathlib has it."""

    __slots__ = ()

    def _unsupported(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Raise UnsupportedOperation."""
        raise UnsupportedOperation("recordings are read-only")

    mkdir = rmdir = touch = unlink = rename = replace = _unsupported
    write_bytes = write_text = _unsupported
