"""Where someone speaks: the words and protocols of voice activity detection.

A detector hears a recording block by block and tells spans of speech, in samples. Here are the
options and the rule by which probabilities of speech become spans; what gives the probabilities
is elsewhere (`batched_whisper.audio.silero`). Knows nothing of windows or of transcription.
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

    The defaults lose as little as possible, because the model that transcribes can still tell
    noise from speech but cannot write what it was not given. They were found by measurement
    (docs/lab-log.md, "Voice activity detection").

    Raises:
        OptionError: a value out of its range.
    """

    threshold: float = 0.35
    """The probability at which speech sets in."""
    hysteresis: float = 0.15
    """How far below `threshold` the probability must fall before speech may be over."""
    min_speech_s: float = 0.1
    """Speech shorter than this is not believed."""
    min_silence_s: float = 0.3
    """Silence shorter than this is part of the speech around it."""
    pad_s: float = 0.25
    """Sound kept before and after speech; less where the pause between has no room for it."""

    def __post_init__(self) -> None:
        require_between("threshold", self.threshold, 0.01, 0.99)
        require_between("hysteresis", self.hysteresis, 0.0, 0.98)
        require_between("min_speech_s", self.min_speech_s, 0.0, 10.0)
        require_between("min_silence_s", self.min_silence_s, 0.05, 10.0)
        require_between("pad_s", self.pad_s, 0.0, 5.0)

    @property
    def release_threshold(self) -> float:
        """The probability below which speech may be over."""
        return max(self.threshold - self.hysteresis, 0.01)


def require_between(name: str, value: float, low: float, high: float) -> None:
    """Raise OptionError if an option's value is not from `low` to `high`."""
    if not low <= value <= high:
        raise OptionError(f"{name}={value!r} is out of range: it must be from {low:g} to {high:g}")


@dataclass(frozen=True)
class SpeechUpdate:
    """What is known of a recording after some more of it was heard.

    Speech that goes on is told as far as it is certain: a span that begins where the one before
    ended is the same speech, without a pause. Between spans that do not touch there is a pause.
    """

    spans: tuple[SpeechSpan, ...]
    """The speech not told before, in order, without overlaps."""
    watermark_sample: int
    """All speech before this sample has been told."""


class SpeechStream(Protocol):
    """Hears one recording from its start to its end; used by one thread at a time."""

    def process(self, block: Samples) -> SpeechUpdate:
        """The next samples, ``[n_samples]``, of any length; they are not kept or changed.

        What is told, once spans that touch are put together, does not depend on how the recording
        was split into blocks.
        """
        ...

    def end(self) -> SpeechUpdate:
        """The recording is over: the rest of the speech. Nothing may be heard after this."""
        ...


class SpeechDetector(Protocol):
    """Finds speech; one serves many recordings at once, from any thread."""

    def new_stream(self) -> SpeechStream:
        """Start on a recording."""
        ...


class SpeechTracker:
    """Turns the probabilities of one recording's frames into speech, as they come.

    Speech sets in at `threshold`, and ends where the probability fell below the lower release
    threshold and did not come back up to `threshold` for `min_silence_s`: the rule of Silero's
    ``get_speech_timestamps``. Unlike there, pads never close a pause: one frame of it stays.

    Args:
        frame_samples: samples of a frame; frames follow each other without gaps.
        options: what counts as speech.
    """

    def __init__(self, frame_samples: int, options: SpeechOptions) -> None:
        self._frame_samples, self._options = frame_samples, options
        self._min_speech = int(options.min_speech_s * SAMPLING_RATE)
        self._min_silence = int(options.min_silence_s * SAMPLING_RATE)
        self._emitter = _SpanEmitter(int(options.pad_s * SAMPLING_RATE), frame_samples)
        self._now = 0  # where the frames so far end
        self._speech_from: int | None = None
        self._silence_from: int | None = None  # of a silence that may yet prove too short

    def track(self, probabilities: Iterable[float]) -> SpeechUpdate:
        """The next frames' probabilities of speech."""
        for probability in probabilities:
            self._track(probability)
        if self._speech_from is None:
            self._emitter.nothing_until(self._now)
        elif self._is_believed(self._certain_until()):
            self._emitter.speech(self._speech_from, self._certain_until())
        else:
            self._emitter.nothing_until(self._speech_from)
        return self._emitter.heard()

    def end(self, probabilities: Iterable[float], n_samples: int) -> SpeechUpdate:
        """The last frames, of which the very last may reach beyond the recording's end."""
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

    def _is_believed(self, end: int) -> bool:
        return self._speech_from is not None and end - self._speech_from >= self._min_speech

    def _close(self, end: int) -> None:
        if self._speech_from is not None and self._is_believed(end):
            self._emitter.speech(self._speech_from, end)
            self._emitter.pause()
        self._speech_from = self._silence_from = None


class _SpanEmitter:
    """Pads speech, and tells each sample of it once, as soon as it is certain."""

    def __init__(self, pad: int, least_pause: int) -> None:
        self._pad, self._least_pause = pad, least_pause
        self._told_until = 0
        self._is_speaking = False
        self._unpadded_end: int | None = None  # of speech whose padding waits for what follows
        self._spans: list[SpeechSpan] = []
        self._settled = 0

    def speech(self, start: int, end: int) -> None:
        """Someone speaks from `start`, at least until `end`; may be called again with more."""
        if not self._is_speaking:
            self._begin(start)
        self._tell(end)
        self._settled = self._told_until

    def pause(self) -> None:
        """The speech ended where it was last said to."""
        self._is_speaking, self._unpadded_end = False, self._told_until

    def nothing_until(self, sample: int) -> None:
        """No speech that was not told begins before `sample`."""
        end = self._unpadded_end
        if end is not None:
            if sample - end < 2 * self._pad + self._least_pause:
                return
            self._tell(end + self._pad)
            self._unpadded_end = None
        self._settled = max(self._told_until, sample - self._pad)

    def heard(self) -> SpeechUpdate:
        """What was not told yet."""
        told, self._spans = tuple(self._spans), []
        return SpeechUpdate(told, self._settled)

    def end(self, n_samples: int) -> SpeechUpdate:
        """The rest, of a recording of this length."""
        if self._unpadded_end is not None:
            self._tell(min(self._unpadded_end + self._pad, n_samples))
        self._settled = n_samples
        return self.heard()

    def _begin(self, start: int) -> None:
        pad = self._pad
        if self._unpadded_end is not None:
            # A pause too short for both pads is shared evenly, around a frame that stays.
            pad = min(pad, (start - self._unpadded_end - self._least_pause) // 2)
            self._tell(self._unpadded_end + pad)
        self._is_speaking, self._unpadded_end = True, None
        self._told_until = max(0, start - pad)

    def _tell(self, end: int) -> None:
        start = self._told_until
        if end <= start:
            return
        if self._spans and self._spans[-1].end_sample == start:
            start = self._spans.pop().start_sample
        self._spans.append(SpeechSpan(start, end))
        self._told_until = end
