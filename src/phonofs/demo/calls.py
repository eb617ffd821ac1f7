"""Makes the objects of a call: recording, transcripts, notes, survey, summary and others. Pure.

Names and tags follow the vendor's published examples; they are in ``data/sample.toml``.
"""

import json
import random
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from phonofs.demo.media import mp3, mp4, wav
from phonofs.demo.sample_data import OBJECTS, Agent, Topic
from phonofs.fakeservice.account import Item
from phonofs.fakeservice.content import Content, text

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


def _item(call: CallFacts, type: str, content: Content, of: Item | None = None) -> Item:
    """Make an object of the call, derived from ``of``, as the sample data describes its type."""
    sample = OBJECTS[type]
    alike = OBJECTS.get(sample.get("like", ""), {})
    tags = {**alike.get("tags", {}), **sample.get("tags", {})}
    known = {**call.attributes(), "of": of}
    return _made(
        call,
        sample.get("label", type),
        sample["delay_s"],
        type=type,
        name=sample["name"].format_map(known),
        mime_type=sample.get("mime_type", JSON),
        content=content,
        tags={key.format_map(known): value.format_map(known) for key, value in tags.items()},
    )


def _made(call: CallFacts, label: str, delay_s: int, **fields: Any) -> Item:
    """Make an object created ``delay_s`` seconds after the call; records have whole seconds."""
    created_ms = (call.end_ms // 1000 + delay_s) * 1000
    return Item(
        id=call.new_id(label),
        created_ms=created_ms,
        updated_ms=created_ms + 4000,
        region=call.region,
        user_id=call.agent.user_id,
        bucket_id=call.new_id("bucket"),
        **fields,
    )


def work_recording(call: CallFacts) -> Item:
    """Make a ``callrecording``, mono."""
    content = mp3(call.id, call.agent.name, call.duration_ms, stereo=False)
    return _item(call, "callrecording", content)


def contact_recording(call: CallFacts) -> Item:
    """Make a ``callcenterrecording``: stereo, its checksum as after a multipart upload."""
    content = mp3(call.id, call.agent.name, call.duration_ms, stereo=True)
    return replace(_item(call, "callcenterrecording", content), multipart_bytes=5 * 1024 * 1024)


def screen_recording(call: CallFacts) -> Item:
    """Make a ``screenrecording`` as long as the call, in whole seconds."""
    return _item(call, "screenrecording", mp4(call.id, call.seconds))


def voicemail(call: CallFacts) -> Item:
    """Make a ``voicemail`` for an extension, or a ``callcentervoicemail`` for a queue."""
    content = mp3(call.id, call.party, call.duration_ms, stereo=False)
    return _item(call, "callcentervoicemail" if call.contact else "voicemail", content)


def meeting(call: CallFacts) -> Item:
    """Make a ``meeting``: a recorded conference."""
    return _item(call, "meeting", mp4(call.id, call.seconds))


def transcript(
    call: CallFacts,
    of: Item,
    speaker: str = "",
    said: Sequence[str] = (),
    delay_s: int = 75,
) -> Item:
    """Make the ``transcription`` of a recording; a Work call has one for each ``speaker``.

    ``said`` replaces the lines of the call's topic.
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
    return _made(
        call,
        f"transcript{of.type}{speaker}",
        delay_s,
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
    return text(json.dumps(value, ensure_ascii=False, indent=1) + "\n")


def notes(call: CallFacts) -> Item:
    """Make ``agentnotes``: a text whose file name has its own extension."""
    written = f"{call.topic.notes}\n{call.agent.name}, {call.start:%d %B %Y}, {call.id}\n"
    return _item(call, "agentnotes", text(written))


def survey(call: CallFacts) -> Item:
    """Make a ``postcallsurvey``; its name has no extension."""
    score = 1 + round((call.topic.mood + 1) * 2)
    answers = [
        {"question": "How satisfied are you with the call?", "answer": score},
        {"question": "Was your concern solved?", "answer": "yes" if score > 2 else "no"},
    ]
    content = _json({"pcsId": call.id, "callId": call.id, "answers": answers})
    return _item(call, "postcallsurvey", content)


def voice_comment(call: CallFacts) -> Item:
    """Make a ``voicecommentrecording``: the caller's answer to a survey question, as WAV."""
    return _item(call, "voicecommentrecording", wav(f"{call.id}-q1", COMMENT_MS))


def sentiment(call: CallFacts) -> Item:
    """Make the ``sentimentScore`` of the transcript."""
    mood = call.topic.mood
    scores = [
        {"turn": at, "score": round(mood * (at + 1) / len(call.topic.lines), 3)}
        for at in range(len(call.topic.lines))
    ]
    content = _json({"callId": call.id, "overall": mood, "scores": scores})
    return _item(call, "sentimentScore", content)


def summary(call: CallFacts, of: Item) -> Item:
    """Make the ``summary`` of the transcript ``of``."""
    content = _json({"callId": call.id, "topic": call.topic.name, "summary": call.topic.summary})
    return _item(call, "summary", content, of)


def rare(call: CallFacts) -> Iterator[Item]:
    """Yield one object of each type that few accounts have and no document describes."""
    peaks = [abs(at % 40 - 20) for at in range(200)]
    for type, value in {
        "calladditionalfields": {"crmId": call.id, "reason": call.topic.name},
        "statehistory": [
            {"state": state, "at": call.start_ms} for state in ("queued", "offered", "ended")
        ],
        "tcltransactions": {"codes": [call.topic.name]},
        "waveform": {"samplesPerSecond": 2, "peaks": peaks},
        "chattranscription": [{"from": "visitor", "text": turn} for turn in call.topic.lines],
        "meetings_transcriptions": {"transcript": " ".join(call.topic.lines)},
    }.items():
        yield _item(call, type, _json({"callId": call.id, "of": value}))
    yield _item(call, "cm-report", text(f"call,agent\n{call.id},{call.agent.name}\n"))
