"""faster-whisper as the engine of the recipes: pip install faster-whisper, on each worker.

Not run here: its weights are downloaded, which the tests cannot do.
"""

from functools import cache
from typing import Any, BinaryIO


@cache
def model() -> Any:
    """Load the model, once a process."""
    from faster_whisper import WhisperModel

    return WhisperModel("large-v3", device="auto", compute_type="auto")


def transcribe(audio: BinaryIO) -> dict[str, Any]:
    """Return the language and the segments of a recording."""
    segments, about = model().transcribe(audio, vad_filter=True)
    return {
        "language": about.language,
        "segments": [
            {"start": round(each.start, 2), "end": round(each.end, 2), "text": each.text.strip()}
            for each in segments
        ],
    }
