"""The data types of the whole package, as frozen dataclasses.

In the order of processing, from a recording to its transcript. Field names of results are those of
Whisper, in Python and in JSON: ``start``, ``end`` and ``duration`` are seconds of the recording.
Other names contain their unit. This module computes nothing and imports no other module of the
package.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
from numpy.typing import NDArray

SAMPLING_RATE = 16_000
"""Samples per second of all audio after decoding; the rate that Whisper was trained on."""

POSITIONS_PER_SECOND = 50
"""Encoder positions per second; the unit of Whisper's timestamps, too."""

SAMPLES_PER_POSITION = SAMPLING_RATE // POSITIONS_PER_SECOND
"""Samples per encoder position: 20 ms, 320."""

POSITION_S = SAMPLES_PER_POSITION / SAMPLING_RATE
"""Seconds per encoder position: 0.02."""

TIMESTAMP_STEP_S = 0.02
"""Seconds between two consecutive timestamp tokens."""

Samples = NDArray[np.float32]
"""Mono audio at 16 kHz, ``[n_samples]``, nominally from -1 to 1."""

Channels = NDArray[np.float32]
"""Audio at 16 kHz with separate channels, ``[n_channels, n_samples]``."""

Features = NDArray[np.float32]
"""A log-mel spectrogram, ``[n_mels, n_frames]``, 100 frames per second."""


class Task(str, Enum):
    """The task: text in the spoken language, or translated to English."""

    TRANSCRIBE = "transcribe"
    TRANSLATE = "translate"


@dataclass(frozen=True)
class Recording:
    """Decoded audio. ``name`` is its path or another name for messages."""

    samples: Samples
    name: str = "audio"
    warnings: tuple[str, ...] = ()

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return len(self.samples) / SAMPLING_RATE


@dataclass(frozen=True)
class SpeechSpan:
    """A part of a recording with speech: ``[start_sample, end_sample)``."""

    start_sample: int
    end_sample: int


@dataclass(frozen=True)
class Window:
    """At most 30 s of a recording, decoded as a unit; the unit of batching."""

    samples: Samples
    index: int  # index among the windows of the recording, from 0
    start_sample: int = 0  # start in the recording

    @property
    def start_s(self) -> float:
        """Start in the recording, in seconds."""
        return self.start_sample / SAMPLING_RATE

    @property
    def end_s(self) -> float:
        """End in the recording, in seconds."""
        return (self.start_sample + len(self.samples)) / SAMPLING_RATE


@dataclass(frozen=True)
class DecodedWindow:
    """The decoded text of one window, with measures of its quality.

    The window is from ``start`` to ``end``, in seconds of the recording. ``tokens`` are the sampled
    tokens, without prompt and end of text. ``avg_logprob`` is their mean natural log-probability,
    end of text included. ``no_speech_prob`` is the probability of the no-speech token at the start
    of the transcript. ``compression_ratio`` is the zlib compression ratio of the text. All as in
    openai/whisper's DecodingResult.
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
    """Encoder positions that it was decoded with, 20 ms each."""
    decodes: int = 1
    """Number of times that it was decoded, fallbacks included."""
    words: tuple[Word, ...] | None = None
    """Words with times, if requested; concatenated they are the text."""
    channel: int | None = None
    """Channel, from 0, if the channels were transcribed separately."""


@dataclass(frozen=True)
class Word:
    """One word, spoken from ``start`` to ``end``, in seconds of the recording.

    ``probability`` is the mean probability of its tokens.
    """

    start: float
    end: float
    word: str
    probability: float


@dataclass(frozen=True)
class Segment:
    """A part of the transcript, such as a sentence: one line or subtitle.

    It is spoken from ``start`` to ``end``, in seconds of the recording; the quality measures are
    those of its window.
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
    """Channel, from 0, if the channels were transcribed separately."""


OnSegment = Callable[[Segment], object]
"""A callback for segments, called in chronological order as soon as each is final."""


@dataclass(frozen=True)
class Transcript:
    """The result for one recording.

    ``language`` is the code of the first window's language; without windows the language that was
    given, or empty. ``duration`` is the number of seconds that were read: with clips, a recording
    is not read beyond the last one.
    """

    text: str
    language: str
    language_probability: float
    duration: float
    segments: tuple[Segment, ...]
    windows: tuple[DecodedWindow, ...]
    name: str = "audio"
    warnings: tuple[str, ...] = field(default=())
