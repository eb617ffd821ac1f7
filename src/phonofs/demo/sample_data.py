"""The agents, callers, conversations and object templates of the sample account.

All of them are read from ``data/sample.toml``.
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any


@dataclass(frozen=True, slots=True)
class Agent:
    """Someone who takes calls."""

    name: str
    extension: str

    @property
    def email(self) -> str:
        """The email address, derived from the name."""
        return f"{self.name.lower().replace(' ', '.')}@example.com"

    @property
    def user_id(self) -> str:
        """The user id, at most 22 characters."""
        return f"ag{self.name.lower().replace(' ', '')}UserId"[:22]


@dataclass(frozen=True, slots=True)
class Topic:
    """A conversation: the spoken lines (agent first, then in turn), notes, summary and mood."""

    name: str
    lines: Sequence[str]
    notes: str
    summary: str
    mood: float


_SAMPLE = tomllib.loads((files("phonofs.demo") / "data" / "sample.toml").read_text("utf-8"))
AGENTS = [Agent(**each) for each in _SAMPLE["agents"]]
TOPICS = [Topic(**each) for each in _SAMPLE["topics"]]
QUEUES: Sequence[Sequence[str]] = _SAMPLE["queues"]
PARTIES: Sequence[str] = _SAMPLE["callers"]
AWKWARD: Sequence[str] = [*_SAMPLE["awkward"], "half a \ud83d emoji"]  # TOML has no surrogates
VOICEMAILS: Sequence[str] = _SAMPLE["voicemails"]
COMMENTS: Sequence[str] = _SAMPLE["comments"]
OBJECTS: Mapping[str, Mapping[str, Any]] = _SAMPLE["objects"]
"""For each type, its ``name``, ``mime_type``, ``delay_s``, ``label``, ``like``, ``tags``, and its
content: a ``clip`` with its ``artist``, a ``text``, or ``json``.
"""
RARE: Sequence[str] = _SAMPLE["rare"]
"""The types that few accounts have."""
