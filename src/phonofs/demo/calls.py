"""From a call to its objects: recording, transcripts, notes, survey, sentiment, summary. Pure.

Fields and tags are those of the vendor's published examples, one type a function.
"""

import json
import random
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from phonofs.demo.media import mp3, mp4, wav
from phonofs.demo.sample_data import Agent, Topic
from phonofs.fakeservice.account import Item
from phonofs.fakeservice.content import Content, text

TENANT = "acmecorp01"
PBX = "acmecorp"
COMMENT_MS = 4_000
"""What a caller says to a survey's question; its record has no duration."""
MP3, JSON = "audio/mpeg", "application/json"


@dataclass(frozen=True)
class CallFacts:
    """One call. ``contact``: of the contact centre, else an extension's own; ``id`` is ``callId``.

    ``duration_ms`` is a multiple of an MP3's frame. ``seed`` decides what is left to chance.
    """

    id: str
    contact: bool
    start_ms: int
    duration_ms: int
    agent: Agent
    party: str
    number: str
    direction: str
    queue: tuple[str, str]
    topic: Topic
    region: str
    seed: str

    def new_id(self, what: str) -> str:
        """The id of one of the call's objects: always the same for the same call and word."""
        bits = random.Random(f"{self.seed}:{self.id}:{what}").getrandbits(128)  # noqa: S311
        return str(uuid.UUID(int=bits, version=4))

    @property
    def start(self) -> datetime:
        """When it began, UTC."""
        return datetime.fromtimestamp(self.start_ms / 1000, UTC)

    @property
    def end_ms(self) -> int:
        """When it was over."""
        return self.start_ms + self.duration_ms


def _item(
    call: CallFacts,
    what: str,
    type: str,
    name: str,
    mime_type: str,
    content: Content,
    tags: Mapping[str, str],
    late_s: int,
) -> Item:
    """An object of the call, made ``late_s`` seconds after its end (whole seconds, as records)."""
    created_ms = (call.end_ms // 1000 + late_s) * 1000
    return Item(
        id=call.new_id(what),
        type=type,
        name=name,
        mime_type=mime_type,
        created_ms=created_ms,
        updated_ms=created_ms + 4000,
        content=content,
        region=call.region,
        tags=tags,
        user_id=call.agent.user_id,
        bucket_id=call.new_id("bucket"),
    )


def work_recording(call: CallFacts) -> Item:
    """``callrecording``: one side of the company, mono."""
    name = (
        f"ipbx:{PBX}:callrecording:users:{call.agent.extension}:{call.start_ms}-{call.id}"
        f"-{call.agent.extension}-{call.number}_E.mp3"
    )
    tags = {
        "guid": call.new_id("bucket"),
        "pbxId": "EhS7MdQXSX2zElaIeTt49Q",
        "callId": call.id,
        "ipbxid": PBX,
        "pbxname": PBX,
        "address": call.number,
        "endTime": str(call.end_ms),
        "branchId": "ZANgBY7WRyOZq_HYzQ48wQ",
        "duration": str(call.duration_ms),
        "userName": call.agent.name,
        "callLogId": f"{call.agent.user_id}{call.id}",
        "direction": call.direction,
        "startTime": str(call.start_ms),
        "userEmail": call.agent.email,
        "extensionId": call.agent.user_id,
        "extensionNumber": call.agent.extension,
        "media-processed": "true",
        ("calleeName" if call.direction == "OUTBOUND" else "callerName"): call.party,
    }
    content = mp3(call.id, call.agent.name, call.duration_ms, stereo=False)
    return _item(call, "recording", "callrecording", name, MP3, content, tags, 8)


def _contact_tags(call: CallFacts) -> dict[str, str]:
    outward = call.direction == "OUTBOUND"
    return {
        "callId": call.id,
        "ipbxid": PBX,
        "address": call.party,
        "agentId": call.agent.user_id,
        "branchId": "mnvMZsd9Rt6YbInURyVzzzz",
        "calleeId": (call.number if outward else "12025550100").lstrip("+"),
        "callerId": ("12025550100" if outward else call.number).lstrip("+"),
        "duration": str(call.duration_ms),
        "mediaUrl": f"R{call.start:%Y%m%d%H%M%S}0001.wav",
        "tenantId": TENANT,
        "agentName": call.agent.name,
        "direction": call.direction,
        "queueName": call.queue[0],
        "startTime": str(call.start_ms),
        "calleeName": call.party if outward else call.agent.name,
        "callerName": call.agent.name if outward else call.party,
        "channelName": "Main Support",
        "queueNumber": call.queue[1],
        "holdDuration": "0",
        "callSnippetId": "",
        "transactionId": str(call.start_ms // 1000 % 100_000),
        "extensionNumber": call.agent.extension,
        "billingTelephoneNumber": "12025550100",
    }


def contact_recording(call: CallFacts) -> Item:
    """``callcenterrecording``: stereo, its checksum that of an upload in one part."""
    content = mp3(call.id, call.agent.name, call.duration_ms, stereo=True)
    item = _item(
        call, "recording", "callcenterrecording", f"{call.id}.mp3", MP3, content,
        _contact_tags(call), 40,
    )  # fmt: skip
    return replace(item, part_bytes=5 * 1024 * 1024)


def screen_recording(call: CallFacts) -> Item:
    """``screenrecording``: as long as the call, in whole seconds."""
    seconds = max(1, call.duration_ms // 1000)
    tags = {
        "callId": call.id,
        "agentId": call.agent.user_id,
        "duration": str(seconds * 1000),
        "tenantId": TENANT,
        "startTime": str(call.start_ms),
        "startedBy": "vcc-agui",
        "identifier": f"NA12_{TENANT}",
        "transactionId": str(call.start_ms // 1000 % 100_000),
        "recording_start_time": f"{call.start:%Y%m%dT%H%M%S}",
        "relativePath": f"{TENANT}/{call.start:%Y/%m/%d}",
    }
    content = mp4(call.id, seconds)
    return _item(
        call, "screen", "screenrecording", f"{call.id}.mp4", "video/mp4", content, tags, 60
    )


def voicemail(call: CallFacts) -> Item:
    """``voicemail`` of an extension, or ``callcentervoicemail`` of a queue."""
    content = mp3(call.id, call.party, call.duration_ms, stereo=False)
    if not call.contact:
        recording = work_recording(call)
        tags = {**recording.tags, "direction": "INBOUND", "callerName": call.party}
        name = f"ipbx:{PBX}:voicemail:users:{call.agent.extension}:msg{call.id}.mp3"
        return _item(call, "voicemail", "voicemail", name, MP3, content, tags, 5)
    none = dict.fromkeys(("agentName", "agentEmail", "calleeName", "extensionNumber"), "")
    tags = {
        **_contact_tags(call),
        **none,
        "queueName": f"{call.queue[0]} Voice Mail",
        "originalCallId": f"{call.id}-original",
    }
    name = f"{call.id}.mp3"
    return _item(call, "voicemail", "callcentervoicemail", name, MP3, content, tags, 30)


def meeting(call: CallFacts) -> Item:
    """``meeting``: a recorded conference."""
    content = mp4(call.id, max(1, call.duration_ms // 1000))
    tags = {
        "callId": call.id,
        "duration": str(call.duration_ms // 1000 * 1000),
        "startTime": str(call.start_ms),
        "endTime": str(call.end_ms),
        "userName": call.agent.name,
        "userEmail": call.agent.email,
        "meetingTitle": "Weekly service review",
        "meetingUrl": f"https://meet.example.com/{PBX}/{call.id}",
        "sessionId": call.new_id("session"),
    }
    name = f"meetings/{call.agent.email}/Weekly service review {call.id}.mp4"
    return _item(call, "meeting", "meeting", name, "video/mp4", content, tags, 120)


def transcript(
    call: CallFacts, of: Item, speaker: str = "", said: tuple[str, ...] = (), late_s: int = 75
) -> Item:
    """``transcription`` of a recording; of a Work call one for each side (``speaker``).

    ``said``: in place of the call's own turns.
    """
    duration_ms = int(of.tags.get("duration", COMMENT_MS))
    turns = _turns(said or call.topic.turns, duration_ms, speaker)
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
    name = f"{of.name.rpartition('.')[0]}{suffix}.json"
    what = f"transcript{of.type}{speaker}"
    return _item(call, what, "transcription", name, JSON, _json(spoken), tags, late_s)


def _turns(said: tuple[str, ...], duration_ms: int, speaker: str) -> list[dict[str, Any]]:
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


def _small_tags(call: CallFacts, **more: str) -> dict[str, str]:
    return {"callId": call.id, "ipbxid": PBX, "tenantId": TENANT, **more}


def notes(call: CallFacts) -> Item:
    """``agentnotes``: text, with an extension of its own."""
    content = text(f"{call.topic.notes}\n{call.agent.name}, {call.start:%d %B %Y}, {call.id}\n")
    name = f"{call.id}.agentnotes"
    tags = _small_tags(call)
    return _item(call, "notes", "agentnotes", name, "text/plain", content, tags, 95)


def survey(call: CallFacts) -> Item:
    """``postcallsurvey``: its name has no extension."""
    score = 1 + round((call.topic.mood + 1) * 2)
    answers = [
        {"question": "How satisfied are you with the call?", "answer": score},
        {"question": "Was your concern solved?", "answer": "yes" if score > 2 else "no"},
    ]
    content = _json({"pcsId": call.id, "callId": call.id, "answers": answers})
    tags = {"pcsId": call.id, "callId": call.id, "agentId": call.agent.user_id, "tenantId": TENANT}
    return _item(call, "survey", "postcallsurvey", call.id, JSON, content, tags, 110)


def voice_comment(call: CallFacts) -> Item:
    """``voicecommentrecording``: what the caller said to a survey's question, a WAV."""
    content = wav(f"{call.id}-q1", COMMENT_MS)
    tags = {**survey(call).tags, "pcsQuestionNumber": "1", "transcription-processed": "true"}
    name = f"{call.id}-q1.wav"
    return _item(call, "comment", "voicecommentrecording", name, "audio/wav", content, tags, 115)


def sentiment(call: CallFacts) -> Item:
    """``sentimentScore`` of the transcript."""
    mood = call.topic.mood
    scores = [
        {"turn": at, "score": round(mood * (at + 1) / len(call.topic.turns), 3)}
        for at in range(len(call.topic.turns))
    ]
    content = _json({"callId": call.id, "overall": mood, "scores": scores})
    tags = _small_tags(
        call, sourceObjectType="transcription", contentObjectType="callcenterrecordingchannel",
        sentimentProcessed="true",
    )  # fmt: skip
    return _item(call, "sentiment", "sentimentScore", f"{call.id}.json", JSON, content, tags, 130)


def summary(call: CallFacts, of: Item) -> Item:
    """``summary`` of the transcript ``of``."""
    content = _json({"callId": call.id, "topic": call.topic.name, "summary": call.topic.summary})
    tags = _small_tags(
        call, result="ok", sourceObjectId=of.id, sourceObjectType="transcription",
        contentObjectType="callcenterrecordingchannel",
    )  # fmt: skip
    return _item(call, "summary", "summary", f"{call.id}.json", JSON, content, tags, 140)


def rare(call: CallFacts) -> Iterator[Item]:
    """One of each type that few accounts have and no document describes."""
    states = [{"state": state, "at": call.start_ms} for state in ("queued", "offered", "ended")]
    peaks = [abs(at % 40 - 20) for at in range(200)]
    chat = [{"from": "visitor", "text": turn} for turn in call.topic.turns]
    for at, (type, extension, mime_type, value) in enumerate(
        (
            ("calladditionalfields", ".json", JSON, {"crmId": call.id, "reason": call.topic.name}),
            ("statehistory", ".json", JSON, states),
            ("tcltransactions", ".json", JSON, {"codes": [call.topic.name]}),
            ("waveform", ".json", JSON, {"samplesPerSecond": 2, "peaks": peaks}),
            ("chattranscription", ".json", JSON, chat),
            ("meetings_transcriptions", ".json", JSON, {"transcript": " ".join(call.topic.turns)}),
            ("cm-report", ".csv", "text/csv", f"call,agent\n{call.id},{call.agent.name}\n"),
        )
    ):
        content = text(value) if isinstance(value, str) else _json({"callId": call.id, "of": value})
        name, tags = f"{call.id}-{type}{extension}", _small_tags(call)
        yield _item(call, type, type, name, mime_type, content, tags, 150 + at)
