"""Prevents the secrets of this process from leaving its memory."""

import ctypes
import resource

PR_SET_DUMPABLE = 4  # linux/prctl.h


def keep_secrets_in_memory() -> None:
    """Forbid core dumps, and forbid the user's other processes to read this one's memory.

    A process that is not dumpable cannot be traced, and root owns its /proc files (prctl(2)).
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
