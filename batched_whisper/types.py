"""The nouns of the whole package, as frozen dataclasses.

What a recording becomes on its way to text, in the order in which it becomes that. Field names
of results are Whisper's own, in Python as in JSON: ``start``, ``end`` and ``duration`` are seconds
of the recording. Everything else says its unit in its name. Nothing here computes anything or
imports a device, and no other module of the package is imported here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
from numpy.typing import NDArray

SAMPLING_RATE = 16_000
"""Samples per second of everything after decoding; Whisper was trained on it."""

TIMESTAMP_STEP_S = 0.02
"""Seconds between two neighbouring timestamp tokens."""

Samples = NDArray[np.float32]
"""Mono sound at 16 kHz, ``[n_samples]``, nominally within -1 to 1."""

Channels = NDArray[np.float32]
"""Sound at 16 kHz with its channels apart, ``[n_channels, n_samples]``."""

Features = NDArray[np.float32]
"""A log-mel spectrogram, ``[n_mels, n_frames]``, 100 frames a second."""


class Task(str, Enum):
    """What to write down: the words as they were said, or in English."""

    TRANSCRIBE = "transcribe"
    TRANSLATE = "translate"


@dataclass(frozen=True)
class Recording:
    """What the caller brought, decoded. ``name`` is its path or a name for messages."""

    samples: Samples
    name: str = "audio"
    warnings: tuple[str, ...] = ()

    @property
    def duration_s(self) -> float:
        """Its length in seconds."""
        return len(self.samples) / SAMPLING_RATE


@dataclass(frozen=True)
class SpeechSpan:
    """Where someone speaks: ``[start_sample, end_sample)`` of a recording."""

    start_sample: int
    end_sample: int


@dataclass(frozen=True)
class Window:
    """At most 30 s of a recording that the model sees at once; the unit that is batched."""

    samples: Samples
    index: int  # its place among the recording's windows, from 0
    start_sample: int = 0  # where it begins in the recording

    @property
    def start_s(self) -> float:
        """Where it begins in the recording, in seconds."""
        return self.start_sample / SAMPLING_RATE

    @property
    def end_s(self) -> float:
        """Where it ends in the recording, in seconds."""
        return (self.start_sample + len(self.samples)) / SAMPLING_RATE


@dataclass(frozen=True)
class DecodedWindow:
    """What the model made of one window, and how far to believe it.

    It lies from ``start`` to ``end``, in seconds of the recording.
    ``tokens`` are the sampled ones, without prompt and end of text. ``avg_logprob`` is their mean
    natural log-probability, end of text included. ``no_speech_prob`` is the probability of the
    no-speech token at the start of the transcript. ``compression_ratio`` is that of zlib over the
    text. All as in openai/whisper's DecodingResult.
    """

    start: float
    end: float
    text: str
    tokens: tuple[int, ...]
    language: str
    language_probability: float
    avg_logprob: float
    no_speech_prob: float
    compression_ratio: float
    temperature: float = 0.0
    audio_context: int = 1500
    """Encoder positions it was decoded with, 20 ms each."""
    decodes: int = 1
    """How often it was decoded until it was believed."""
    words: tuple[Word, ...] | None = None
    """Its words, where they were asked for; put together they are its text."""
    channel: int | None = None
    """Whose it is, from 0, where the channels were transcribed apart."""


@dataclass(frozen=True)
class Word:
    """One word, said from ``start`` to ``end``, in seconds of the recording.

    ``probability`` is the mean of its tokens'.
    """

    start: float
    end: float
    word: str
    probability: float


@dataclass(frozen=True)
class Segment:
    """A stretch of the transcript: what people read as one line or subtitle.

    It is said from ``start`` to ``end``, in seconds of the recording; the figures are those of its
    window.
    """

    id: int
    start: float
    end: float
    text: str
    tokens: tuple[int, ...]
    temperature: float
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float
    words: tuple[Word, ...] | None = None
    channel: int | None = None
    """Who says it, from 0, where the channels were transcribed apart."""


OnSegment = Callable[[Segment], object]
"""Called with each segment as soon as nothing earlier can come any more."""


@dataclass(frozen=True)
class Transcript:
    """The result for one recording.

    ``language`` is the code of the first window's; of a recording without any, of the one that was
    told, or empty. ``duration`` is how many seconds were read: a recording of which only clips
    were wanted is not read beyond the last one.
    """

    text: str
    language: str
    language_probability: float
    duration: float
    segments: tuple[Segment, ...]
    windows: tuple[DecodedWindow, ...]
    name: str = "audio"
    warnings: tuple[str, ...] = field(default=())
