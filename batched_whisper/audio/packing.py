"""Packs speech into windows: long silences are left out, and windows are cut in pauses.

A short recording with little silence around its speech becomes one unchanged window: the model
gets the same samples as without a detector.

A window is a contiguous part of the recording, so times in it remain correct. Knows a speech
detector by its protocol alone, and nothing of the model that transcribes the windows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from batched_whisper.audio.constants import WINDOW_S
from batched_whisper.audio.speech import SpeechDetector, SpeechUpdate, require_between
from batched_whisper.audio.windows import quietest_moment
from batched_whisper.types import SAMPLING_RATE, Samples, SpeechSpan, Window

_SAMPLES_PER_UPDATE = SAMPLING_RATE
"""Samples passed to the detector at once; the buffer is trimmed after each update."""


@dataclass(frozen=True)
class PackingOptions:
    """How speech is packed into windows.

    Raises:
        OptionError: a value is out of range.
    """

    max_s: float = float(WINDOW_S)
    """Maximum length of a window, in seconds."""
    max_pause_s: float = 2.0
    """A longer pause, in seconds, ends a window, so that no time is spent on silence."""
    overlap_s: float = 2.0
    """Overlap, in seconds, of two windows if speech is cut without a pause."""
    margin_s: float = 0.75
    """Silence, in seconds, kept before and after the speech of a window that is at most half full,
    if available. In fuller windows it would cost time without a gain."""

    def __post_init__(self) -> None:
        require_between("max_s", self.max_s, 1.0, float(WINDOW_S))
        require_between("max_pause_s", self.max_pause_s, 0.0, float(WINDOW_S))
        require_between("overlap_s", self.overlap_s, 0.0, self.max_s / 3)
        require_between("margin_s", self.margin_s, 0.0, float(WINDOW_S))


class SpeechCutter:
    """Packs the speech of one recording into windows, as a stream.

    Speech is added to a window as long as it fits and the pause before it is no longer than
    `max_pause_s`. Speech that does not fit begins the next window. If speech without a pause is
    longer than a window, the cut is at the quietest moment of the window's last third, and the two
    windows overlap by `overlap_s` around it. Other windows do not overlap, and those with little
    speech keep up to `margin_s` of the silence before and after it. Every window contains speech,
    and the windows do not depend on the block boundaries. At most the samples of three windows are
    buffered.

    Args:
        detector: finds speech; its padding is part of the windows.
        options: how speech is packed.
    """

    def __init__(self, detector: SpeechDetector, options: PackingOptions | None = None) -> None:
        self._buffer = _SampleBuffer()
        self._packer = _WindowPacker(self._buffer, PackingOptions() if options is None else options)
        self._stream = detector.new_stream()
        self._n_samples = 0

    @property
    def watermark_sample(self) -> int:
        """The watermark: no later window starts before this sample."""
        return self._packer.watermark_sample

    def add(self, block: Samples) -> Iterator[Window]:
        """Add the next samples, ``[n_samples]``; yields the windows that are complete."""
        for start in range(0, len(block), _SAMPLES_PER_UPDATE):
            piece = block[start : start + _SAMPLES_PER_UPDATE]
            self._buffer.append(piece)
            self._n_samples += len(piece)
            yield from self._packer.pack(self._stream.process(piece))

    def end(self) -> Iterator[Window]:
        """End the stream; yields the remaining windows. Nothing may be added afterwards."""
        yield from self._packer.pack(self._stream.end())
        yield from self._packer.end(self._n_samples)


class _SampleBuffer:
    """The samples of the recording that may still become part of a window."""

    def __init__(self) -> None:
        self._pieces: deque[Samples] = deque()
        self._start = 0  # of the first piece, in the recording

    def append(self, samples: Samples) -> None:
        """Append a copy of the next samples."""
        self._pieces.append(samples.copy())

    def read(self, start: int, end: int) -> Samples:
        """Copy samples `start` to `end` of the recording."""
        samples = np.empty(end - start, np.float32)
        at = self._start
        for piece in self._pieces:
            first, last = max(start, at), min(end, at + len(piece))
            if first < last:
                samples[first - start : last - start] = piece[first - at : last - at]
            at += len(piece)
        return samples

    def drop_before(self, sample: int) -> None:
        """Drop the pieces before `sample`, which is not read any more."""
        while self._pieces and self._start + len(self._pieces[0]) <= sample:
            self._start += len(self._pieces.popleft())


class _WindowPacker:
    """Fills one window at a time with spans of speech and the pauses between them."""

    def __init__(self, buffer: _SampleBuffer, options: PackingOptions) -> None:
        self.watermark_sample = 0
        self._buffer = buffer
        self._max_length = int(options.max_s * SAMPLING_RATE)
        self._max_pause = int(options.max_pause_s * SAMPLING_RATE)
        self._half_overlap = int(options.overlap_s * SAMPLING_RATE / 2)
        # At most half of a long pause, so that the result does not depend on when it is detected.
        self._margin = min(int(options.margin_s * SAMPLING_RATE), self._max_pause // 2)
        self._spans: list[SpeechSpan] = []
        self._covered = 0  # where the window before ends
        self._index = 0

    def pack(self, update: SpeechUpdate) -> Iterator[Window]:
        """Add the spans of an update; yields the windows that are complete."""
        for span in update.spans:
            if self._ends_before(span.start_sample):
                yield self._closed(self._margin)
            self._add(span)
            while self._end() - self._start() > self._max_length:
                yield self._cut()
        if self._ends_before(update.watermark_sample):
            yield self._closed(self._margin)
        next_start = self._start() if self._spans else update.watermark_sample
        self.watermark_sample = next_start - self._silence_before(next_start)
        self._buffer.drop_before(self.watermark_sample)

    def end(self, n_samples: int) -> Iterator[Window]:
        """Yield the last window, if any, of a recording of ``n_samples``."""
        if self._spans:
            yield self._closed(n_samples - self._end())

    def _start(self) -> int:
        return self._spans[0].start_sample

    def _end(self) -> int:
        return self._spans[-1].end_sample

    def _ends_before(self, next_speech: int) -> bool:
        """Whether the pause before speech from ``next_speech`` on ends the window."""
        return bool(self._spans) and next_speech - self._end() > self._max_pause

    def _add(self, span: SpeechSpan) -> None:
        if self._spans and span.start_sample == self._end():
            span = SpeechSpan(self._spans.pop().start_sample, span.end_sample)
        self._spans.append(span)

    def _cut(self) -> Window:
        """Close the window at its last pause, or at the quietest moment if it has no pause."""
        if len(self._spans) > 1:
            rest = self._spans.pop()
            closed = self._closed((rest.start_sample - self._end()) // 2)
            self._spans = [rest]
            return closed
        start, end = self._start(), self._end()
        first = start + self._max_length - self._max_length // 3
        last = start + self._max_length - self._half_overlap
        cut = first + quietest_moment(self._buffer.read(first, last))
        self._spans = [SpeechSpan(start, cut + self._half_overlap)]
        closed = self._closed(0)
        self._spans = [SpeechSpan(cut - self._half_overlap, end)]
        return closed

    def _closed(self, silence_after: int) -> Window:
        """Close the window, with as much of the silence around it as fits.

        Args:
            silence_after: available silence after it, in samples.
        """
        start, end = self._start(), self._end()
        if end - start <= self._max_length // 2:
            room = self._max_length - (end - start)
            start -= min(self._silence_before(start), room // 2)
            end += min(self._margin, silence_after, room // 2)
        window = Window(self._buffer.read(start, end), self._index, start)
        self._spans, self._index, self._covered = [], self._index + 1, end
        return window

    def _silence_before(self, start: int) -> int:
        """Return how many samples of silence before ``start`` belong to the window."""
        return max(0, min(self._margin, start - self._covered))
