"""How many files this process has open."""

import gc
import os


def descriptors() -> int:
    """Count them."""
    return len(os.listdir("/proc/self/fd"))


def settled_descriptors() -> int:
    """Count them once what other tests left as garbage has closed its own: later it would do so."""
    gc.collect()
    return descriptors()
