"""Transcripts for the tests of formats."""

from __future__ import annotations

from batched_whisper.types import Segment, Transcript, Word


def transcript(*parts: Segment, **fields: object) -> Transcript:
    whole = {
        "text": "".join(part.text for part in parts),
        "language": "en",
        "language_probability": 0.5,
        "duration": 3.0,
        "segments": parts,
        "windows": (),
        **fields,
    }
    return Transcript(**whole)  # type: ignore[arg-type]


def segment(text: str, start_s: float = 0.0, end_s: float = 1.0, **fields: object) -> Segment:
    figures = dict.fromkeys(
        ("temperature", "avg_logprob", "compression_ratio", "no_speech_prob"), 0.0
    )
    return Segment(0, start_s, end_s, text, (5,), **{**figures, **fields})  # type: ignore[arg-type]


def timed(*words: str | Word, start_s: float = 0.0, **fields: object) -> Segment:
    """A segment of words; those without a time last half a second, one after the other."""
    placed: list[Word] = []
    for word in words:
        begin_s = placed[-1].end if placed else start_s
        placed.append(Word(begin_s, begin_s + 0.5, word, 0.9) if isinstance(word, str) else word)
    text = "".join(word.word for word in placed)
    return segment(text, placed[0].start, placed[-1].end, words=tuple(placed), **fields)
