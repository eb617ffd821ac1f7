"""Who works and calls in the sample account, what they say, and what their objects look like.

All of it is data, in ``data/sample.toml``.
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
        """The address made of the name."""
        return f"{self.name.lower().replace(' ', '.')}@example.com"

    @property
    def user_id(self) -> str:
        """The id of the user, 22 characters at most."""
        return f"ag{self.name.lower().replace(' ', '')}UserId"[:22]


@dataclass(frozen=True, slots=True)
class Topic:
    """What a call is about: lines (agent first, then in turn), and what is written of it."""

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
"""For each type its ``name``, ``mime_type``, ``delay_s``, ``label``, ``like`` and ``tags``."""
