"""An account of calls with what was made of them: transcripts, summaries, notes."""

import json
from collections.abc import Iterator

from phonofs.fakeservice.account import Account, Item
from phonofs.fakeservice.content import Content, plain, ramp
from tests.support.accounts import NOON_MS

DAY_MS = 86_400_000
MINUTE_MS = 60_000
AUDIO_BYTES = 3000


def text(words: str) -> Content:
    """Return content that is this text in UTF-8."""
    return plain(words.encode())


def transcript_json(*lines: str, speaker: str = "") -> str:
    """Return a transcript in the form of the speech engine, a line every four seconds."""
    spoken = [
        {"start": 4 * n + 0.5, "end": 4 * n + 3, "speaker": speaker or "owner", "text": line}
        for n, line in enumerate(lines)
    ]
    return json.dumps({"utterances": spoken}, ensure_ascii=False)


def call(
    number: int, created_ms: int, agent: str, queue: str = "Support", words: str = "hello"
) -> Iterator[Item]:
    """Yield the objects of a call: a recording, transcripts of both sides, a summary, notes."""
    tags = {
        "callId": f"call{number}",
        "agentName": agent,
        "queueName": queue,
        "direction": "INBOUND",
        "callerName": f"Caller {number}",
        "startTime": str(created_ms),
        "duration": "60000",
    }
    recording = f"{number:08d}-0"
    audio = ramp(recording, AUDIO_BYTES)
    yield Item(recording, "callcenterrecording", "a.mp3", "audio/mpeg", created_ms, audio,
               tags=tags)  # fmt: skip
    made = {**tags, "sourceId": recording, "result": "ok", "duration": "60"}
    for side, speaker in enumerate(("owner", "external"), 1):
        said = text(transcript_json(f"{words} {speaker} {number}", "yes", speaker=speaker))
        yield Item(f"{number:08d}-{side}", "transcription", "t.json", "application/json",
                   created_ms + MINUTE_MS, said, tags={**made, "speaker": speaker})  # fmt: skip
    later_ms = created_ms + MINUTE_MS
    only = {"callId": f"call{number}"}
    summary = text(json.dumps({"summary": f"Summary of {words} {number}"}))
    yield Item(f"{number:08d}-3", "summary", "s.json", "application/json", later_ms, summary,
               tags=only)  # fmt: skip
    yield Item(f"{number:08d}-4", "agentnotes", "n.agentnotes", "text/plain", later_ms,
               text(f"Note {number}\n"), tags=only)  # fmt: skip


def calls(
    days: int = 2, agents: tuple[str, ...] = ("Ann Lee", "Bob Ray"), each: int = 3
) -> Account:
    """Make an account: each agent takes some calls on each day, in turn."""
    items: list[Item] = []
    number = 0
    for day in range(days):
        for nth in range(each):
            for agent in agents:
                at_ms = NOON_MS + day * DAY_MS + nth * 10 * MINUTE_MS + number * 1000
                items += call(number, at_ms, agent, queue=f"Queue {nth % 2}")
                number += 1
    return Account(items)
