"""Where the log goes and what it may hold: one line a fact, no secret, no control character.

Used by the composition root and the commands. Levels are journal priorities where systemd
reads the stream (sd-daemon(3)); a mount in the background without a terminal writes to syslog.
"""

import logging
import logging.handlers
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

from phonofs.errors import UsageError
from phonofs.trusted_path import check_trusted

SYSLOG = Path("/dev/log")
HELD_LINES = 1000
"""Kept while a mount starts; more are written at once."""

LINES_PER_S = 50.0
"""More than a person reads; a storm of failures must not fill the journal."""

_REDACTIONS = (
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]+"), r"\1 [redacted]"),
    (re.compile(r"(https?://[^\s?'\"]*)\?[^\s'\"]*"), r"\1?[redacted]"),
    (re.compile(r"(?i)((?:secret|password|access_token)['\"]?\s*[:=]\s*['\"]?)[^\s'\",}]+"),
     r"\1[redacted]"),
    (re.compile(r"(https?://)[^\s/@]+@"), r"\1[redacted]@"),
)  # fmt: skip
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069]")
_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3}


def redact(text: str) -> str:
    """``text`` without tokens, queries of URLs and secrets, control characters escaped."""
    for pattern, replacement in _REDACTIONS:
        text = pattern.sub(replacement, text)
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", text)


class RedactingFormatter(logging.Formatter):
    """Redacts the finished line, so that tracebacks are covered too."""

    def __init__(self, layout: str, *, priorities: bool = False) -> None:
        super().__init__(layout)
        self._priorities = priorities

    def format(self, record: logging.LogRecord) -> str:
        """The line; under systemd each of its lines carries the priority."""
        text = redact(super().format(record))
        if not self._priorities:
            return text
        prefix = f"<{_PRIORITIES.get(record.levelno, 5)}>"
        return prefix + text.replace("\n", f"\n{prefix}")


class RateLimit(logging.Filter):
    """A token bucket of one second's lines; what was dropped is counted on the next line.

    Owns the bucket: ``0 <= _tokens <= LINES_PER_S``.
    """

    def __init__(self) -> None:
        super().__init__()
        self._tokens = LINES_PER_S
        self._last = time.monotonic()
        self._dropped = 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line may be written."""
        now = time.monotonic()
        self._tokens = min(LINES_PER_S, self._tokens + (now - self._last) * LINES_PER_S)
        self._last = now
        if self._tokens < 1:
            self._dropped += 1
            return False
        self._tokens -= 1
        if self._dropped:
            record.msg = f"{record.getMessage()} ({self._dropped} lines were left out before)"
            record.args = ()
            self._dropped = 0
        return True


def set_up(level: str, file: Path | None, *, background: bool = False) -> Callable[[], None]:
    """Send phonofs' log to ``file``, else to stderr, else (in the background) to syslog.

    What goes to stderr is held back until the returned function is called: a command that
    fails before that says one sentence, not the log's as well. Raises UsageError when the file
    can't be written.
    """
    logging.raiseExceptions = False  # a line that a full disk does not take is left out
    handler = _handler(file, background=background)
    handler.addFilter(RateLimit())
    held = _Held(handler)
    _use(held if type(handler) is logging.StreamHandler else handler)
    logging.getLogger().setLevel(logging.WARNING)
    set_level(level)
    logging.captureWarnings(True)

    def release() -> None:
        held.write_out()
        _use(handler)

    return release


class _Held(logging.Handler):
    """Keeps lines for a handler until they are released, or more than ``HELD_LINES`` are."""

    def __init__(self, handler: logging.Handler) -> None:
        super().__init__(handler.level)  # what is released is not compared with it again
        self._handler = handler
        self._lines: list[logging.LogRecord] | None = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line, or pass it on."""
        if self._lines is None:
            self._handler.handle(record)
            return
        self._lines.append(record)
        if len(self._lines) > HELD_LINES:
            self.write_out()

    def write_out(self) -> None:
        """Write what was kept; from now on lines go straight through."""
        lines, self._lines = self._lines or [], None
        for record in lines:
            self._handler.handle(record)


def _use(handler: logging.Handler) -> None:
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)


def set_level(level: str) -> None:
    """Change how much phonofs says: debug, info, warning or error."""
    logging.getLogger("phonofs").setLevel(level.upper())


def _handler(file: Path | None, *, background: bool) -> logging.Handler:
    layout = "%(asctime)s %(levelname)s %(name)s: %(message)s"
    handler: logging.Handler
    if file is not None:
        check_trusted(file, "log_file", groups=False)
        try:
            handler = logging.handlers.WatchedFileHandler(file, encoding="utf-8")
        except OSError as error:
            raise UsageError(f"log_file {file} cannot be written: {error.strerror}") from None
        handler.setFormatter(RedactingFormatter(layout))
    elif background and SYSLOG.exists():
        handler = logging.handlers.SysLogHandler(str(SYSLOG))
        handler.ident = f"phonofs[{os.getpid()}]: "
        handler.setFormatter(RedactingFormatter("%(name)s: %(message)s"))
    else:
        journal = "JOURNAL_STREAM" in os.environ
        handler = logging.StreamHandler(sys.stderr)
        layout = "%(name)s: %(message)s" if journal else "phonofs: %(levelname)s: %(message)s"
        handler.setFormatter(RedactingFormatter(layout, priorities=journal))
        if background and not journal:  # the terminal of a command that is about to succeed
            handler.setLevel(logging.WARNING)
    return handler
