"""Splits decoded windows into segments with times in the recording.

The rules for timestamp tokens are those of openai/whisper (``transcribe.py``), with one difference:
text after the last closed segment of a window is kept as a segment that ends with the window,
because no later window transcribes it again. With word timestamps, a segment lasts from its first
word to its last one, as in openai/whisper's ``timing.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from batched_whisper.types import TIMESTAMP_STEP_S, DecodedWindow, Segment, Word

Decode = Callable[[Sequence[int]], str]


@dataclass(frozen=True)
class TimestampTokens:
    """The timestamp tokens: those from `begin` on, `TIMESTAMP_STEP_S` apart."""

    begin: int

    def is_timestamp(self, token: int) -> bool:
        """Whether ``token`` is a timestamp."""
        return token >= self.begin

    def seconds(self, token: int) -> float:
        """Convert a timestamp to seconds from the start of the window."""
        return (token - self.begin) * TIMESTAMP_STEP_S

    def token(self, at_s: float) -> int:
        """Return the timestamp nearest to ``at_s`` seconds from the start of the window."""
        return self.begin + round(at_s / TIMESTAMP_STEP_S)

    def moved(self, token: int, n_steps: int) -> int:
        """Shift a timestamp by ``n_steps``, down to the first one; other tokens are unchanged."""
        return max(token + n_steps, self.begin) if self.is_timestamp(token) else token


@dataclass(frozen=True)
class _SegmentTokens:
    """The tokens of one segment, with its times within the window, in seconds."""

    tokens: tuple[int, ...]
    start_s: float
    end_s: float


def window_segments(
    window: DecodedWindow, timestamps: TimestampTokens, decode: Decode
) -> Iterator[Segment]:
    """Yield the segments of one window, all with ``id`` 0; those without text are left out.

    ``decode`` converts tokens to text.
    """
    left = iter(window.words or ())
    for piece in _pieces(window, timestamps):
        text = decode([token for token in piece.tokens if token < timestamps.begin])
        words = None if window.words is None else _take_words(text, left)
        if text.strip():
            yield _segment(window, piece, text, words)


def _take_words(text: str, words: Iterator[Word]) -> tuple[Word, ...]:
    """Take the next words, as many as make up the text."""
    taken = list[Word]()
    n_left = len(text)
    while n_left > 0:
        word = next(words, None)
        if word is None:
            break
        taken.append(word)
        n_left -= len(word.word)
    return tuple(taken)


def _segment(
    window: DecodedWindow, piece: _SegmentTokens, text: str, words: tuple[Word, ...] | None
) -> Segment:
    return Segment(
        id=0,
        start=words[0].start if words else window.start + piece.start_s,
        end=words[-1].end if words else window.start + piece.end_s,
        text=text,
        tokens=piece.tokens,
        temperature=window.temperature,
        avg_logprob=window.avg_logprob,
        compression_ratio=window.compression_ratio,
        no_speech_prob=window.no_speech_prob,
        words=words,
    )


def _pieces(window: DecodedWindow, timestamps: TimestampTokens) -> Iterator[_SegmentTokens]:
    """Split at pairs of timestamps; times are clamped to the window and in order."""
    duration_s = window.end - window.start
    start_s, held = 0.0, list[int]()
    for token in window.tokens:
        if not timestamps.is_timestamp(token):
            held.append(token)
            continue
        at_s = min(max(timestamps.seconds(token), start_s), duration_s)
        if held:
            yield _SegmentTokens(tuple(held), start_s, at_s)
            held = []
        start_s = at_s
    if held:
        yield _SegmentTokens(tuple(held), start_s, duration_s)
