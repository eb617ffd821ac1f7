"""Sets up the log: where it goes, without secrets and control characters.

Used by ``app.py`` and the commands. If systemd reads the stream, levels are written as journal
priorities (sd-daemon(3)). A mount in the background writes to syslog.
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
"""The most lines held back while a mount starts; more lines cause all to be written."""

LINES_PER_S = 50.0
"""More than a person can read; a burst of failures must not fill the journal."""

_REDACTIONS = (
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]+"), r"\1 [redacted]"),
    (re.compile(r"(https?://[^\s?'\"]*)\?[^\s'\"]*"), r"\1?[redacted]"),
    (re.compile(r"(?i)((?:secret|secret_key|password|access_token)['\"]?\s*[:=]\s*['\"]?)[^\s'\",}]+"),
     r"\1[redacted]"),
    (re.compile(r"(https?://)[^\s/@]+@"), r"\1[redacted]@"),
    (re.compile(r"(?i)(signature=)[0-9a-f]+"), r"\1[redacted]"),
)  # fmt: skip
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069]")
_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3}


def redact(text: str) -> str:
    """Return ``text`` without tokens, URL queries and secrets, and with control chars escaped."""
    for pattern, replacement in _REDACTIONS:
        text = pattern.sub(replacement, text)
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", text)


class RedactingFormatter(logging.Formatter):
    """Redacts the finished line, so that tracebacks are covered too."""

    def __init__(self, layout: str, *, priorities: bool = False) -> None:
        super().__init__(layout)
        self._priorities = priorities

    def format(self, record: logging.LogRecord) -> str:
        """Return the log text; under systemd, each of its lines starts with the priority."""
        text = redact(super().format(record))
        if not self._priorities:
            return text
        prefix = f"<{_PRIORITIES.get(record.levelno, 5)}>"
        return prefix + text.replace("\n", f"\n{prefix}")


class RateLimit(logging.Filter):
    """A token bucket with one second's worth of lines; the next line counts the dropped ones.

    Owns the bucket: ``0 <= _tokens <= LINES_PER_S``.
    """

    def __init__(self) -> None:
        super().__init__()
        self._tokens = LINES_PER_S
        self._last = time.monotonic()
        self._dropped = 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the line may be written."""
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
    """Send the log to ``file`` if given, else in the background to syslog, else to stderr.

    Lines for stderr are held back until the returned function is called, so that a command that
    fails before prints only its error, not also the log. Raises UsageError if the file cannot be
    written.
    """
    logging.raiseExceptions = False  # a line that cannot be written (disk full) is dropped
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
    """Holds lines back from a handler until they are released or exceed ``HELD_LINES``."""

    def __init__(self, handler: logging.Handler) -> None:
        super().__init__(handler.level)  # released lines are not compared with the level again
        self._handler = handler
        self._lines: list[logging.LogRecord] | None = []

    def emit(self, record: logging.LogRecord) -> None:
        """Hold a line back, or pass it on after the release."""
        if self._lines is None:
            self._handler.handle(record)
            return
        self._lines.append(record)
        if len(self._lines) > HELD_LINES:
            self.write_out()

    def write_out(self) -> None:
        """Write the lines held back; pass later lines on at once."""
        lines, self._lines = self._lines or [], None
        for record in lines:
            self._handler.handle(record)


def _use(handler: logging.Handler) -> None:
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)


def set_level(level: str) -> None:
    """Set the log level of phonofs: debug, info, warning or error."""
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
        if background and not journal:  # the terminal of a command that will return soon
            handler.setLevel(logging.WARNING)
    return handler
