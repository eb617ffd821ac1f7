"""Makes the objects of a call: recording, transcripts, notes, survey, summary and others. Pure.

Names, tags and most contents are in ``data/sample.toml``; names and tags follow the vendor's
published examples.
"""

import json
import random
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from phonofs.demo.media import mp3, mp4, wav
from phonofs.demo.sample_data import OBJECTS, Agent, Topic
from phonofs.fakeservice.account import Item
from phonofs.fakeservice.content import Content, plain

COMMENT_MS = 4_000
"""Length of a caller's answer to a survey question; its record states no duration."""
JSON = "application/json"
COMPANY = "12025550100"
"""The company's number, as it appears in tags."""


@dataclass(frozen=True)
class CallFacts:
    """One call; ``id`` is its ``callId``.

    ``contact`` is true for a call of the contact centre, false for a call of an extension.
    ``duration_ms`` is a multiple of an MP3 frame. ``seed`` determines the random ids.
    """

    id: str
    contact: bool
    start_ms: int
    duration_ms: int
    agent: Agent
    party: str
    number: str
    direction: str
    queue: Sequence[str]
    topic: Topic
    region: str
    seed: str

    def new_id(self, label: str) -> str:
        """Return the id of one of the call's objects; it follows from seed, call and label."""
        bits = random.Random(f"{self.seed}:{self.id}:{label}").getrandbits(128)  # noqa: S311
        return str(uuid.UUID(int=bits, version=4))

    def attributes(self) -> dict[str, Any]:
        """Return the values that the names and tags of its objects may refer to."""
        outward, number = self.direction == "OUTBOUND", self.number.lstrip("+")
        return {
            **vars(self),
            "start": self.start,
            "end_ms": self.end_ms,
            "seconds": self.seconds,
            "transaction": self.start_ms // 1000 % 100_000,
            "bucket_id": self.new_id("bucket"),
            "session_id": self.new_id("session"),
            "transcript_id": self.new_id("transcriptcallcenterrecording"),
            "party_tag": "calleeName" if outward else "callerName",
            "callee": self.party if outward else self.agent.name,
            "caller": self.agent.name if outward else self.party,
            "callee_id": number if outward else COMPANY,
            "caller_id": COMPANY if outward else number,
        }

    @property
    def start(self) -> datetime:
        """When the call began, UTC."""
        return datetime.fromtimestamp(self.start_ms / 1000, UTC)

    @property
    def end_ms(self) -> int:
        """When the call ended, UTC epoch milliseconds."""
        return self.start_ms + self.duration_ms

    @property
    def seconds(self) -> int:
        """The duration of the call in whole seconds, at least 1."""
        return max(1, self.duration_ms // 1000)


def made(call: CallFacts, type: str, value: Any = None) -> Item:
    """Make an object of the call, as the sample data describes its type.

    A ``value`` is encoded in JSON, and replaces the content that the sample data describes.
    """
    sample = OBJECTS[type]
    alike = OBJECTS.get(sample.get("like", ""), {})
    known = call.attributes()
    return _item(
        call,
        sample.get("label", type),
        (call.end_ms // 1000 + sample["delay_s"]) * 1000,  # records have whole seconds
        type=type,
        name=sample["name"].format_map(known),
        mime_type=sample.get("mime_type", JSON),
        content=_content(call, sample, known) if value is None else _json(value),
        tags=_filled({**alike.get("tags", {}), **sample.get("tags", {})}, known),
        multipart_bytes=sample.get("multipart_bytes", 0),
    )


def _item(call: CallFacts, label: str, created_ms: int, **fields: Any) -> Item:
    return Item(
        id=call.new_id(label),
        created_ms=created_ms,
        updated_ms=created_ms + 4000,
        region=call.region,
        user_id=call.agent.user_id,
        bucket_id=call.new_id("bucket"),
        **fields,
    )


def _content(call: CallFacts, sample: Mapping[str, Any], known: Mapping[str, Any]) -> Content:
    match sample:
        case {"clip": "screen"}:
            return mp4(call.id, call.seconds)
        case {"clip": "tone"}:
            return wav(call.id, COMMENT_MS)
        case {"clip": clip}:
            artist = sample.get("artist", "{agent.name}").format_map(known)
            return mp3(call.id, artist, call.duration_ms, stereo=clip == "stereo")
        case {"text": template}:
            return plain(template.format_map(known).encode())
    return _json(_filled(sample["json"], known))


def _filled(value: Any, known: Mapping[str, Any]) -> Any:
    """Return the value with all texts in it filled in."""
    if isinstance(value, dict):
        return {_filled(name, known): _filled(each, known) for name, each in value.items()}
    if isinstance(value, list):
        return [_filled(each, known) for each in value]
    return value.format_map(known)


def transcript(call: CallFacts, of: Item, speaker: str, said: Sequence[str]) -> Item:
    """Make the ``transcription`` of a recording; a Work call has one for each ``speaker``.

    ``said`` replaces the lines of the call's topic, unless it is empty.
    """
    duration_ms = int(of.tags.get("duration", COMMENT_MS))
    turns = _turns(said or call.topic.lines, duration_ms, speaker)
    spoken = {
        "callId": call.id,
        "language": "en-US",
        "duration": duration_ms / 1000,
        "transcript": " ".join(turn["text"] for turn in turns),
        "segments": turns,
    }
    kept = {k: v for k, v in of.tags.items() if k not in ("duration", "media-processed")}
    tags = {
        **kept,
        "result": "ok",
        "duration": str(duration_ms // 1000),
        "language": "en-US",
        "provider": "voci",
        "sourceId": of.id,
        "sourceObjectType": f"{of.type}channel" if speaker else of.type,
        **({"speaker": speaker} if speaker else {}),
    }
    suffix = f"_{speaker}" if speaker else ""
    return _item(
        call,
        f"transcript{of.type}{speaker}",
        of.created_ms + 35_000,
        type="transcription",
        name=f"{of.name.rpartition('.')[0]}{suffix}.json",
        mime_type=JSON,
        content=_json(spoken),
        tags=tags,
    )


def _turns(said: Sequence[str], duration_ms: int, speaker: str) -> list[dict[str, Any]]:
    step = duration_ms / 1000 / len(said)
    turns = [
        {
            "speaker": "external" if at % 2 else "owner",
            "start": round(at * step, 2),
            "end": round((at + 0.9) * step, 2),
            "text": each,
        }
        for at, each in enumerate(said)
    ]
    return [turn for turn in turns if speaker in ("", turn["speaker"])]


def _json(value: Any) -> Content:
    return plain((json.dumps(value, ensure_ascii=False, indent=1) + "\n").encode())


def survey(call: CallFacts) -> Item:
    """Make a ``postcallsurvey``; its name has no extension."""
    score = 1 + round((call.topic.mood + 1) * 2)
    answers = [
        {"question": "How satisfied are you with the call?", "answer": score},
        {"question": "Was your concern solved?", "answer": "yes" if score > 2 else "no"},
    ]
    content = {"pcsId": call.id, "callId": call.id, "answers": answers}
    return made(call, "postcallsurvey", content)


def sentiment(call: CallFacts) -> Item:
    """Make the ``sentimentScore`` of the transcript."""
    mood, turns = call.topic.mood, len(call.topic.lines)
    scores = [{"turn": at, "score": round(mood * (at + 1) / turns, 3)} for at in range(turns)]
    content = {"callId": call.id, "overall": mood, "scores": scores}
    return made(call, "sentimentScore", content)
