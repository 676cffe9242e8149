"""Voice activity detection: its protocols and options, and the rule for spans.

A detector processes a recording block by block and emits spans of speech, in samples. This module
turns speech probabilities into spans; `batched_whisper.audio.silero` computes the probabilities.
Knows nothing of windows or of transcription.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from batched_whisper.errors import OptionError
from batched_whisper.types import SAMPLING_RATE, Samples, SpeechSpan


@dataclass(frozen=True)
class SpeechOptions:
    """What counts as speech.

    The defaults miss as little speech as possible: the transcription model can still reject noise,
    but it cannot transcribe missing audio. They were measured (docs/lab-log.md, "Voice activity
    detection").

    Raises:
        OptionError: a value is out of range.
    """

    threshold: float = 0.35
    """The probability at which speech begins."""
    hysteresis: float = 0.15
    """How far below `threshold` the probability must fall before speech may end."""
    min_speech_s: float = 0.1
    """Shorter speech, in seconds, is ignored."""
    min_silence_s: float = 0.3
    """Shorter silence, in seconds, is part of the speech around it."""
    pad_s: float = 0.25
    """Padding before and after speech, in seconds; less in a short pause."""

    def __post_init__(self) -> None:
        require_between("threshold", self.threshold, 0.01, 0.99)
        require_between("hysteresis", self.hysteresis, 0.0, 0.98)
        require_between("min_speech_s", self.min_speech_s, 0.0, 10.0)
        require_between("min_silence_s", self.min_silence_s, 0.05, 10.0)
        require_between("pad_s", self.pad_s, 0.0, 5.0)

    @property
    def release_threshold(self) -> float:
        """The probability below which speech may end."""
        return max(self.threshold - self.hysteresis, 0.01)


def require_between(name: str, value: float, low: float, high: float) -> None:
    """Raise OptionError if the value of an option is not from `low` to `high`."""
    if not low <= value <= high:
        raise OptionError(f"{name}={value!r} is out of range: it must be from {low:g} to {high:g}")


@dataclass(frozen=True)
class SpeechUpdate:
    """The result of processing one more block of a recording.

    Ongoing speech is emitted as far as it is certain: a span that starts at the end of the previous
    one continues the same speech. Between spans that do not touch there is a pause.
    """

    spans: tuple[SpeechSpan, ...]
    """New spans of speech, in order, without overlaps."""
    watermark_sample: int
    """The watermark: all speech before this sample has been emitted."""


class SpeechStream(Protocol):
    """Processes one recording from start to end; used by one thread at a time."""

    def process(self, block: Samples) -> SpeechUpdate:
        """Process the next samples, ``[n_samples]``, of any length; they are not kept or changed.

        The emitted speech, touching spans joined, does not depend on the block boundaries.
        """
        ...

    def end(self) -> SpeechUpdate:
        """End the recording; returns the rest of the speech. Nothing may be added afterwards."""
        ...


class SpeechDetector(Protocol):
    """Finds speech; shared by many recordings and threads."""

    def new_stream(self) -> SpeechStream:
        """Start detecting in a new recording."""
        ...


class SpeechTracker:
    """Turns the speech probabilities of a recording's frames into spans, incrementally.

    Speech begins at `threshold`. It ends where the probability fell below the lower release
    threshold and did not reach `threshold` again for `min_silence_s`: the rule of Silero's
    ``get_speech_timestamps``. Unlike there, padding never closes a pause: one frame of it remains.

    Args:
        frame_samples: samples per frame; frames follow each other without gaps.
        options: what counts as speech.
    """

    def __init__(self, frame_samples: int, options: SpeechOptions) -> None:
        self._frame_samples, self._options = frame_samples, options
        self._min_speech = int(options.min_speech_s * SAMPLING_RATE)
        self._min_silence = int(options.min_silence_s * SAMPLING_RATE)
        self._emitter = _SpanEmitter(int(options.pad_s * SAMPLING_RATE), frame_samples)
        self._now = 0  # the end of the frames so far
        self._speech_from: int | None = None
        self._silence_from: int | None = None  # of a silence that may still be too short

    def track(self, probabilities: Iterable[float]) -> SpeechUpdate:
        """Add the speech probabilities of the next frames."""
        for probability in probabilities:
            self._track(probability)
        if self._speech_from is None:
            self._emitter.no_speech_until(self._now)
        elif self._is_long_enough(self._certain_until()):
            self._emitter.add_speech(self._speech_from, self._certain_until())
        else:
            self._emitter.no_speech_until(self._speech_from)
        return self._emitter.update()

    def end(self, probabilities: Iterable[float], n_samples: int) -> SpeechUpdate:
        """Add the last frames; the last one may extend beyond the end of the recording."""
        for probability in probabilities:
            self._track(probability)
        if self._speech_from is not None:
            self._close(min(self._certain_until(), n_samples))
        return self._emitter.end(n_samples)

    def _track(self, probability: float) -> None:
        start, self._now = self._now, self._now + self._frame_samples
        if probability >= self._options.threshold:
            self._silence_from = None
            if self._speech_from is None:
                self._speech_from = start
        elif probability < self._options.release_threshold and self._speech_from is not None:
            if self._silence_from is None:
                self._silence_from = start
            if self._now - self._silence_from >= self._min_silence:
                self._close(self._silence_from)

    def _certain_until(self) -> int:
        return self._now if self._silence_from is None else self._silence_from

    def _is_long_enough(self, end: int) -> bool:
        return self._speech_from is not None and end - self._speech_from >= self._min_speech

    def _close(self, end: int) -> None:
        if self._speech_from is not None and self._is_long_enough(end):
            self._emitter.add_speech(self._speech_from, end)
            self._emitter.end_speech()
        self._speech_from = self._silence_from = None


class _SpanEmitter:
    """Pads speech, and emits each sample of it once, as soon as it is certain."""

    def __init__(self, pad: int, min_pause: int) -> None:
        self._pad, self._min_pause = pad, min_pause
        self._emitted_until = 0
        self._is_speaking = False
        self._unpadded_end: int | None = None  # of speech whose padding is not yet decided
        self._spans: list[SpeechSpan] = []
        self._watermark = 0

    def add_speech(self, start: int, end: int) -> None:
        """Add speech from `start`, at least until `end`; may be called again with a later end."""
        if not self._is_speaking:
            self._begin(start)
        self._emit(end)
        self._watermark = self._emitted_until

    def end_speech(self) -> None:
        """End the speech at the end that was last added."""
        self._is_speaking, self._unpadded_end = False, self._emitted_until

    def no_speech_until(self, sample: int) -> None:
        """Declare that no new speech begins before `sample`."""
        end = self._unpadded_end
        if end is not None:
            if sample - end < 2 * self._pad + self._min_pause:
                return
            self._emit(end + self._pad)
            self._unpadded_end = None
        self._watermark = max(self._emitted_until, sample - self._pad)

    def update(self) -> SpeechUpdate:
        """Return the spans that were not returned yet."""
        emitted, self._spans = tuple(self._spans), []
        return SpeechUpdate(emitted, self._watermark)

    def end(self, n_samples: int) -> SpeechUpdate:
        """Return the rest of a recording of ``n_samples``."""
        if self._unpadded_end is not None:
            self._emit(min(self._unpadded_end + self._pad, n_samples))
        self._watermark = n_samples
        return self.update()

    def _begin(self, start: int) -> None:
        pad = self._pad
        if self._unpadded_end is not None:
            # A pause too short for both paddings is divided evenly, around one frame that remains.
            pad = min(pad, (start - self._unpadded_end - self._min_pause) // 2)
            self._emit(self._unpadded_end + pad)
        self._is_speaking, self._unpadded_end = True, None
        self._emitted_until = max(0, start - pad)

    def _emit(self, end: int) -> None:
        start = self._emitted_until
        if end <= start:
            return
        if self._spans and self._spans[-1].end_sample == start:
            start = self._spans.pop().start_sample
        self._spans.append(SpeechSpan(start, end))
        self._emitted_until = end
