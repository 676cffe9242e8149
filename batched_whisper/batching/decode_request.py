"""What the engine is asked about one window, and what it answers: plain data, which can be pickled.

Nothing in it leads back to a recording, a tokenizer, a thread or a future, so a request may be
decoded in another process. What needs text is asked of a `Detokenizer`, given to the loop once.
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
        """The text of sampled tokens, without their timestamps."""


class NoText:
    """A `Detokenizer` where nobody asks for text: every text is empty."""

    def text(self, tokens: Sequence[int], /) -> str:
        """Empty."""
        return ""


@dataclass(frozen=True)
class AlignmentPrompt:
    """What stands before a text that is aligned with its audio, for the times of its words.

    Attributes:
        after_language: the tokens after the start of the transcript and the language.
        max_tokens: the most tokens, with prompt and end, that the model takes at once.
    """

    after_language: tuple[int, ...]
    max_tokens: int


@dataclass(frozen=True, eq=False)
class DecodeRequest:
    """What is asked about one window. Two requests are equal if all their data is.

    Attributes:
        audio: features ``[n_mels, n_frames]`` for the first attempt's audio context or more, or
            samples ``[n_samples]`` at 16 kHz. Who encodes pads features to a longer context.
        sot: the token that starts the transcript.
        after_language: the tokens between the language, or the start in an English-only model, and
            the text.
        rules: which tokens may be sampled.
        max_tokens: where to stop if the end of text does not come.
        first: the first attempt.
        prefix: the prompt's tokens before the start of the transcript.
        language: the token of the language that the caller gave.
        languages: the tokens to detect it among; empty for English-only models.
        fallback: the attempts after the first one.
        thresholds: which attempts are accepted.
        max_tokens_asked: the caller's own limit, if there is one: a text of that many tokens is cut
            because the caller asked for it.
        alignment: what stands before the text when it is aligned; None if no words are wanted.
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
        """How many slots it takes: one per beam. Temperatures only rise."""
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
    """The tokens to align, from the start of the transcript on; the first ``n_prompt`` of them
    stand before the text."""

    tokens: tuple[int, ...]
    n_prompt: int


@dataclass(frozen=True)
class DecodedTokens:
    """What came out of the last attempt at a window.

    Attributes:
        tokens: those sampled, without the end of text.
        text: what they say, without timestamps.
        sum_logprob: of the tokens and the end of text.
        no_speech_prob: the probability of the no-speech token where the transcript starts.
        compression_ratio: bytes of the text per byte of its zlib stream.
        verdict: whether it was accepted, or what speaks against it.
        language: as given or detected; None in an English-only model.
        attempt: how it was decoded.
        decodes: how many attempts there were.
        ended: false where the token limit came before the end of text.
        aligned: the text that was aligned with the audio, if the request asks for that.
        alignment: what came of that.
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
    """Per token, the end of text counted as one."""
    return sum_logprob / (n_tokens + 1)
