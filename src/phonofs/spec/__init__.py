"""``phonofs://PROFILE/PATH`` for fsspec: what Dask, Ray, pandas, Arrow, DuckDB and others read by.

fsspec finds it by its entry point; the daemon does everything else (``phonofs.client``). It is
synchronous, and keeps nothing but idle connections: the daemon's catalogue is the cache of
listings, and it is told of changes. What cannot be asked is an error here, never absence or a
shorter listing, where fsspec's own methods would have it so.
"""

from phonofs.spec.file import PhonofsFile
from phonofs.spec.filesystem import PhonofsFileSystem

__all__ = ["PhonofsFile", "PhonofsFileSystem"]
