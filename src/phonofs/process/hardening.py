"""Keeps the secrets of this process in its memory."""

import ctypes
import resource

PR_SET_DUMPABLE = 4  # linux/prctl.h


def keep_secrets_in_memory() -> None:
    """Allow no core dump, and no other process of the user to read the memory of this one.

    prctl(2): a process that is not dumpable cannot be traced, and its /proc files are root's.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
