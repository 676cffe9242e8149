"""The request to decode one window, and its result: plain data, which can be pickled.

It has no reference to a recording, a tokenizer, a thread or a future, so a request may be decoded
in another process. A `Detokenizer`, given to the loop once, makes texts of tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Protocol

from batched_whisper.decoding.beam import SINGLE_BEAM, Beams
from batched_whisper.decoding.fallback import (
    NO_FALLBACK,
    OPENAI_THRESHOLDS,
    Attempt,
    FallbackPolicy,
    Thresholds,
    Verdict,
)
from batched_whisper.decoding.rules import Rules
from batched_whisper.engines.interface import Alignment
from batched_whisper.types import Features, Samples


class Detokenizer(Protocol):
    """Turns tokens into text. Used by several threads at a time."""

    def text(self, tokens: Sequence[int], /) -> str:
        """Return the text of sampled tokens, without their timestamps."""


class NoText:
    """A `Detokenizer` for callers that need no text: every text is empty."""

    def text(self, tokens: Sequence[int], /) -> str:
        """Return an empty text."""
        return ""


@dataclass(frozen=True)
class AlignmentPrompt:
    """The tokens before a text that is aligned with its audio, for word timestamps.

    Attributes:
        after_language: the tokens after the start of the transcript and the language.
        max_tokens: the most tokens, with prompt and end, that the model accepts.
    """

    after_language: tuple[int, ...]
    max_tokens: int


@dataclass(frozen=True, eq=False)
class DecodeRequest:
    """One window and how to decode it. Two requests are equal if all their data is.

    Attributes:
        audio: features ``[n_mels, n_frames]`` for the first attempt's audio context or more, or
            samples ``[n_samples]`` at 16 kHz. The encoder pads features to a longer context.
        sot: the token that starts the transcript.
        after_language: the tokens between the language (or the start, if English-only) and text.
        rules: which tokens may be sampled.
        max_tokens: the number of tokens after which a text without an end is cut.
        first: the first attempt.
        prefix: the prompt's tokens before the start of the transcript.
        language: the token of the language that the caller gave.
        languages: the tokens of the languages to detect; empty for English-only models.
        fallback: the attempts after the first one.
        thresholds: which attempts are accepted.
        max_tokens_asked: the caller's own limit, if any; a text cut at it counts as ended.
        alignment: the tokens before the text when it is aligned; None without word timestamps.
        seed: of the random choices above temperature 0.
        beams: how to search at temperature 0.
    """

    audio: Features | Samples
    sot: int
    after_language: tuple[int, ...]
    rules: Rules
    max_tokens: int
    first: Attempt
    prefix: tuple[int, ...] = ()
    language: int | None = None
    languages: frozenset[int] = frozenset()
    fallback: FallbackPolicy = NO_FALLBACK
    thresholds: Thresholds = OPENAI_THRESHOLDS
    max_tokens_asked: int | None = None
    alignment: AlignmentPrompt | None = None
    seed: int = 0
    beams: Beams = SINGLE_BEAM

    @property
    def n_slots(self) -> int:
        """The slots that it needs: one per beam. Later attempts need no more of them."""
        return self.beams.size if self.first.temperature == 0 else 1

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DecodeRequest) and self._compared() == other._compared()

    def __hash__(self) -> int:
        return hash((self.sot, self.prefix, self.first, self.seed))

    def _compared(self) -> tuple[object, ...]:
        audio = (self.audio.shape, self.audio.dtype, self.audio.tobytes())
        return (audio, *(getattr(self, each.name) for each in fields(self) if each.name != "audio"))


@dataclass(frozen=True)
class DetectedLanguage:
    """A language's token and its probability among the languages."""

    token: int
    probability: float


@dataclass(frozen=True)
class AlignedText:
    """The tokens to align: ``n_prompt`` from the start of the transcript, then the text."""

    tokens: tuple[int, ...]
    n_prompt: int


@dataclass(frozen=True)
class DecodedTokens:
    """The result of the last attempt at a window.

    Attributes:
        tokens: the sampled tokens, without the end of text.
        text: their text, without timestamps.
        sum_logprob: of the tokens and the end of text.
        no_speech_prob: the probability of the no-speech token at the start of the transcript.
        compression_ratio: bytes of the text per byte of its zlib stream.
        verdict: whether it was accepted, or the reason for rejection.
        language: as given or detected; None in an English-only model.
        attempt: how it was decoded.
        decodes: the number of attempts.
        ended: false if the token limit came before the end of text.
        aligned: the text that was aligned with the audio; None without word timestamps.
        alignment: the result of the alignment; None without word timestamps.
    """

    tokens: tuple[int, ...]
    text: str
    sum_logprob: float
    no_speech_prob: float
    compression_ratio: float
    verdict: Verdict
    language: DetectedLanguage | None
    attempt: Attempt
    decodes: int
    ended: bool
    aligned: AlignedText | None = None
    alignment: Alignment | None = None

    @property
    def avg_logprob(self) -> float:
        """Mean log-probability of the tokens and the end of text, as openai/whisper counts it."""
        return mean_logprob(self.sum_logprob, len(self.tokens))


def mean_logprob(sum_logprob: float, n_tokens: int) -> float:
    """Return the mean per token; the end of text counts as one."""
    return sum_logprob / (n_tokens + 1)
