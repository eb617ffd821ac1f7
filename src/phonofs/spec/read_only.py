"""A file system that cannot be written to: every method of fsspec that writes raises EROFS."""

from typing import Any

from fsspec.spec import AbstractFileSystem

from phonofs.spec.entries import read_only


class ReadOnlyFileSystem(AbstractFileSystem):  # type: ignore[misc]
    """Refuses what would write, before anything is asked or sent."""

    def _refuse(self, path: Any, *args: Any, **kwargs: Any) -> Any:
        """Raise EROFS for the path."""
        raise read_only(path)

    def _refuse_target(self, source: Any, target: Any, *args: Any, **kwargs: Any) -> Any:
        """Raise EROFS for the second path, which would be written."""
        raise read_only(target)

    mkdir = makedir = makedirs = mkdirs = rmdir = touch = _refuse
    rm = rm_file = _rm = delete = _refuse
    pipe = pipe_file = write_text = write_bytes = _refuse
    mv = move = rename = _refuse
    cp_file = copy = cp = put = put_file = upload = _refuse_target
