"""Reports the error that ended a command."""

import sys

from phonofs.errors import PhonofsError
from phonofs.units import printable

EXIT_USAGE = 1
EXIT_IN_PART = 4  # done in part, and what is missing was said
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as in shells


def report(error: BaseException) -> int:
    """Print one sentence on stderr, except for Ctrl-C; return the exit status.

    It may name a file that somebody else named, so it must not control the terminal.
    """
    if isinstance(error, PhonofsError):
        print(f"phonofs: {printable(str(error))}", file=sys.stderr)
        return error.exit_status
    if isinstance(error, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    print(f"phonofs: internal fault: {type(error).__name__}; the log has more", file=sys.stderr)
    return EXIT_USAGE
