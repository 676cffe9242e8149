"""Decides whether a decoded window is accepted, and how a rejected one is decoded again.

Thresholds and temperatures are openai/whisper's (``transcribe.py``). Added to them is a first
retry for windows that were decoded on a fitted audio context: before the temperature rises they
are decoded once more on the full context, because a context that ends too soon after the speech
makes the decoder repeat itself (see docs/lab-log.md).

It evaluates a text and its probabilities; it knows no engine and no queue.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from enum import Enum

MIN_LANGUAGE_PROBABILITY = 0.7
"""A language that is less probable than this on a fitted context is detected on the full one.

Speech in a known language has above 0.9; a short context misleads the detection now and then.
"""

_REPEATED_PHRASE = re.compile(rb"(.{12,200})\1", re.DOTALL)
"""A phrase directly followed by itself, in bytes; a letter has one to three."""


class Verdict(Enum):
    """The evaluation of a decoded window."""

    ACCEPTED = "accepted"
    SILENCE = "no speech"
    LOOPS = "the text repeats itself"
    SAYS_TWICE = "the text repeats a phrase once"
    UNLIKELY = "low log-probability"
    NOISE = "very low log-probability: no text"
    ENDLESS = "the text reached the token limit"

    @property
    def has_text(self) -> bool:
        """Whether the text is output if no attempt is left."""
        return self not in (Verdict.SILENCE, Verdict.NOISE)


@dataclass(frozen=True)
class Attempt:
    """One way to decode a window.

    ``max_tokens`` is a limit below the caller's, or None: on a fitted context more tokens than
    anyone speaks in that time are a loop.
    """

    audio_context: int
    temperature: float = 0.0
    max_tokens: int | None = None


@dataclass(frozen=True)
class TextMetrics:
    """What a verdict is made of; as in `types.DecodedWindow`.

    ``ended`` is false where the text ran into a limit that is not the caller's own.
    """

    compression_ratio: float
    avg_logprob: float
    no_speech_prob: float
    ended: bool
    says_twice: bool = False


def measure(text: str, *, avg_logprob: float, no_speech_prob: float, ended: bool) -> TextMetrics:
    """Return the metrics of a text and of its probabilities."""
    ratio, repeated = compression_ratio(text), says_twice(text)
    return TextMetrics(ratio, avg_logprob, no_speech_prob, ended, repeated)


NOISE = -2.0
"""The mean log-probability below which a result is noise, and its text is not output.

Less than 14 % per token, as when the model picks words at random because the audio has none:
openai/whisper would output them, after all temperatures were tried (docs/lab-log.md, "What is made
of silence and noise"). The value is measured, so it does not rise with the caller's threshold. For
a threshold below -1 it is twice the threshold.
"""


@dataclass(frozen=True)
class Thresholds:
    """The limits of acceptance; the defaults are openai/whisper's. None disables a check."""

    compression_ratio: float | None = 2.4
    logprob: float | None = -1.0
    no_speech: float | None = 0.6

    def evaluate(self, metrics: TextMetrics) -> Verdict:
        """Return the verdict. Silence is checked first, so that it is not decoded again."""
        likely = self.logprob is None or metrics.avg_logprob >= self.logprob
        if self._is_silence(metrics):
            return Verdict.SILENCE
        if self.logprob is not None and metrics.avg_logprob < min(NOISE, 2 * self.logprob):
            return Verdict.NOISE
        highest = self.compression_ratio
        if highest is not None and metrics.compression_ratio > highest:
            return Verdict.LOOPS
        if not metrics.ended:
            return Verdict.ENDLESS
        if not likely:
            return Verdict.UNLIKELY
        return Verdict.SAYS_TWICE if metrics.says_twice else Verdict.ACCEPTED

    def _is_silence(self, metrics: TextMetrics) -> bool:
        """Return whether the window is silent. A likely text overrides ``no_speech_prob``."""
        if self.no_speech is None or metrics.no_speech_prob <= self.no_speech:
            return False
        return self.logprob is None or metrics.avg_logprob < self.logprob


OPENAI_THRESHOLDS = Thresholds()


@dataclass(frozen=True)
class FallbackPolicy:
    """The order of the attempts at one window.

    Attributes:
        full_context: the model's encoder positions.
        temperatures: the temperatures of the attempts, in order.
    """

    full_context: int
    temperatures: tuple[float, ...] = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)

    def first(self, audio_context: int, max_tokens: int | None = None) -> Attempt:
        """Return the first attempt; the token limit applies to a fitted context only."""
        fitted = audio_context < self.full_context
        return Attempt(audio_context, self.temperatures[0], max_tokens if fitted else None)

    def after(self, attempt: Attempt, verdict: Verdict) -> Attempt | None:
        """Return the next attempt; None if accepted, silence, or the last attempt."""
        if verdict in (Verdict.ACCEPTED, Verdict.SILENCE):
            return None
        if attempt.audio_context < self.full_context:
            return Attempt(self.full_context, attempt.temperature)
        if verdict is Verdict.SAYS_TWICE:  # the full context gives it too, so it is in the audio
            return None
        higher = [each for each in self.temperatures if each > attempt.temperature]
        return Attempt(self.full_context, higher[0]) if higher else None

    def after_language(self, attempt: Attempt, probability: float) -> Attempt | None:
        """Return the attempt to detect the language again; None to accept the language."""
        if attempt.audio_context < self.full_context and probability < MIN_LANGUAGE_PROBABILITY:
            return Attempt(self.full_context, attempt.temperature)
        return None


NO_FALLBACK = FallbackPolicy(full_context=0, temperatures=())
"""Decodes once, whatever the verdict."""


def says_twice(text: str) -> bool:
    """Return whether a phrase of some words is directly followed by itself.

    With an audio context that ends too soon, small models do this before they stop. People do it
    too, so the window is decoded again, but the text is not rejected.
    """
    letters = "".join(filter(str.isalnum, text.casefold()))
    return _REPEATED_PHRASE.search(letters.encode("utf-8")) is not None


def compression_ratio(text: str) -> float:
    """Return the bytes of the text divided by those of its zlib stream; high for repetitions."""
    data = text.encode("utf-8")
    return len(data) / len(zlib.compress(data))
