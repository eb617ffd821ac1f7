"""Collects what phonofs logs during a test, so that an unexpected warning fails it."""

import logging


class LogCheck(logging.Handler):
    """Keeps the warnings of phonofs; those that hold an expected word are let pass."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.expected: list[str] = []
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one line."""
        self.seen.append(f"{record.levelname} {record.name}: {record.getMessage()}")

    def expect(self, *words: str) -> None:
        """Let lines that hold one of these words pass; ``''`` lets everything pass."""
        self.expected.extend(words)

    def unexpected(self) -> list[str]:
        """The lines nobody expected."""
        return [line for line in self.seen if not any(word in line for word in self.expected)]
