"""Collects what phonofs logs during a test, so that an unexpected warning fails it."""

import logging


class LogCheck(logging.Handler):
    """Collects the warnings of phonofs, except those that contain an expected word."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.expected: list[str] = []
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Record one line."""
        self.seen.append(f"{record.levelname} {record.name}: {record.getMessage()}")

    def expect(self, *words: str) -> None:
        """Accept lines that contain one of these words; ``''`` accepts every line."""
        self.expected.extend(words)

    def unexpected(self) -> list[str]:
        """Return the lines that were not expected."""
        return [line for line in self.seen if not any(word in line for word in self.expected)]
