"""Writes transcripts as JSON, with all data, under openai/whisper's field names."""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the command line's help must not wait for numpy
    from batched_whisper.types import DecodedWindow, Segment, Transcript, Word

_SPLITS_OR_ENCODES_BADLY = re.compile("[\x85\u2028\u2029\ud800-\udfff]")
"""Valid in a JSON string, but line breaks for some readers, or not encodable as UTF-8."""


def json_document(transcript: Transcript) -> str:
    """Return the transcript as indented JSON."""
    return _json(as_document(transcript), indent=2) + "\n"


def json_line(transcript: Transcript) -> str:
    """Return the transcript as JSON on one line, with a newline at the end."""
    return _json(as_document(transcript)) + "\n"


def as_document(transcript: Transcript) -> dict[str, Any]:
    """Convert the transcript to JSON types; times in seconds, NaN and infinity as None."""
    return {
        "name": transcript.name,
        "text": transcript.text,
        "language": transcript.language,
        "language_probability": _figure(transcript.language_probability),
        "duration": _figure(transcript.duration),
        "segments": [_segment(segment) for segment in transcript.segments],
        "windows": [_window(window) for window in transcript.windows],
        "warnings": list(transcript.warnings),
    }


def _segment(segment: Segment) -> dict[str, Any]:
    document: dict[str, Any] = {
        "id": segment.id,
        "start": _figure(segment.start),
        "end": _figure(segment.end),
        "text": segment.text,
        "tokens": list(segment.tokens),
        "temperature": _figure(segment.temperature),
        "avg_logprob": _figure(segment.avg_logprob),
        "compression_ratio": _figure(segment.compression_ratio),
        "no_speech_prob": _figure(segment.no_speech_prob),
    }
    if segment.words is not None:
        document["words"] = [_word(word) for word in segment.words]
    if segment.channel is not None:
        document["channel"] = segment.channel
    return document


def _word(word: Word) -> dict[str, Any]:
    return {
        "word": word.word,
        "start": _figure(word.start),
        "end": _figure(word.end),
        "probability": _figure(word.probability),
    }


def _window(window: DecodedWindow) -> dict[str, Any]:
    # Its text and tokens are already in the segments.
    return {
        "start": _figure(window.start),
        "end": _figure(window.end),
        "language": window.language,
        "language_probability": _figure(window.language_probability),
        "temperature": _figure(window.temperature),
        "avg_logprob": _figure(window.avg_logprob),
        "compression_ratio": _figure(window.compression_ratio),
        "no_speech_prob": _figure(window.no_speech_prob),
        "audio_context": window.audio_context,
        "decodes": window.decodes,
    }


def _figure(value: float) -> float | None:
    """Convert NumPy floats to Python floats, and NaN and infinity, which JSON lacks, to None."""
    return float(value) if math.isfinite(value) else None


def _json(document: dict[str, Any], indent: int | None = None) -> str:
    separators = (",", ":") if indent is None else (",", ": ")
    written = json.dumps(
        document, ensure_ascii=False, allow_nan=False, indent=indent, separators=separators
    )
    return _SPLITS_OR_ENCODES_BADLY.sub(lambda match: f"\\u{ord(match[0]):04x}", written)
