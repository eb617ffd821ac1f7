"""Raises how many files this process may have open. Used by ``lifecycle.py``."""

import resource
from contextlib import suppress

OPEN_FILES_MAX = 65_536
"""More are never used: 800 connections, and the files of the cache."""


def allow_many_files() -> None:
    """Raise the soft limit of open files as far as the user may.

    It is 1024 by default, for programs that use select(2), which knows no higher descriptors; the
    hard limit is for all others (systemd.exec(5), LimitNOFILE). A kernel that allows fewer files
    than the hard limit (sysctl fs.nr_open) refuses; then the limit stays, and fewer files are kept
    open.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = OPEN_FILES_MAX if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES_MAX)
    if soft != resource.RLIM_INFINITY and soft < most:
        with suppress(ValueError, OSError):  # ValueError is Python's EPERM
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
