"""From decoded windows to segments with times of the recording.

The rules for timestamp tokens are openai/whisper's (``transcribe.py``), with one difference: what
comes after the last closed segment of a window is kept as a segment that ends with the window,
because no later window says it again. Where the words have times, a segment lasts from its first
word to its last one, as in openai/whisper's ``timing.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from batched_whisper.types import TIMESTAMP_STEP_S, DecodedWindow, Segment, Word

Decode = Callable[[Sequence[int]], str]


@dataclass(frozen=True)
class TimestampTokens:
    """Which tokens are timestamps: from `begin` on, `TIMESTAMP_STEP_S` apart."""

    begin: int

    def is_timestamp(self, token: int) -> bool:
        """Whether it is one."""
        return token >= self.begin

    def seconds(self, token: int) -> float:
        """Seconds from the start of the window."""
        return (token - self.begin) * TIMESTAMP_STEP_S

    def token(self, at_s: float) -> int:
        """The timestamp nearest to so many seconds from the start of the window."""
        return self.begin + round(at_s / TIMESTAMP_STEP_S)

    def moved(self, token: int, n_steps: int) -> int:
        """A timestamp so much later, or the first one of all; any other token as it is."""
        return max(token + n_steps, self.begin) if self.is_timestamp(token) else token


@dataclass(frozen=True)
class _Piece:
    """Tokens of one segment with its times within the window, in seconds."""

    tokens: tuple[int, ...]
    start_s: float
    end_s: float


def window_segments(
    window: DecodedWindow, timestamps: TimestampTokens, decode: Decode
) -> Iterator[Segment]:
    """The segments of one window, all with the number 0; those without text are left out.

    ``decode`` gives the text of tokens.
    """
    left = iter(window.words or ())
    for piece in _pieces(window, timestamps):
        text = decode([token for token in piece.tokens if token < timestamps.begin])
        words = None if window.words is None else _spelling(text, left)
        if text.strip():
            yield _segment(window, piece, text, words)


def _spelling(text: str, words: Iterator[Word]) -> tuple[Word, ...]:
    """The next words, as many as make up the text."""
    spelled = list[Word]()
    n_left = len(text)
    while n_left > 0:
        word = next(words, None)
        if word is None:
            break
        spelled.append(word)
        n_left -= len(word.word)
    return tuple(spelled)


def _segment(
    window: DecodedWindow, piece: _Piece, text: str, words: tuple[Word, ...] | None
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


def _pieces(window: DecodedWindow, timestamps: TimestampTokens) -> Iterator[_Piece]:
    """Cut at the pairs of timestamps; times are kept within the window and in order."""
    duration_s = window.end - window.start
    start_s, held = 0.0, list[int]()
    for token in window.tokens:
        if not timestamps.is_timestamp(token):
            held.append(token)
            continue
        at_s = min(max(timestamps.seconds(token), start_s), duration_s)
        if held:
            yield _Piece(tuple(held), start_s, at_s)
            held = []
        start_s = at_s
    if held:
        yield _Piece(tuple(held), start_s, duration_s)
