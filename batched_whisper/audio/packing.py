"""Packs speech into windows: long silences are left out, cuts lie in pauses.

A short recording with little silence around its speech is one window as it is: the model hears
what it would hear without a detector.

A window is a contiguous stretch of the recording, so times in it stay right. Knows a detector of
speech by its protocol alone, and nothing of the model that transcribes the windows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from batched_whisper.audio.constants import WINDOW_S
from batched_whisper.audio.speech import SpeechDetector, SpeechUpdate, require_between
from batched_whisper.audio.windows import quietest_moment
from batched_whisper.types import SAMPLING_RATE, Samples, SpeechSpan, Window

_HEARD_AT_ONCE = SAMPLING_RATE
"""Samples of a block that are heard before what is no longer needed of them is forgotten."""


@dataclass(frozen=True)
class PackingOptions:
    """How speech becomes windows.

    Raises:
        OptionError: a value out of its range.
    """

    max_s: float = float(WINDOW_S)
    """The longest window."""
    max_pause_s: float = 2.0
    """A longer pause ends a window; the model's time is not spent on silence."""
    overlap_s: float = 2.0
    """What two windows share where speech without a pause was cut."""
    margin_s: float = 0.75
    """Silence kept before and after the speech of a window that is at most half full, where there
    is so much. In fuller ones it would cost time and gain nothing."""

    def __post_init__(self) -> None:
        require_between("max_s", self.max_s, 1.0, float(WINDOW_S))
        require_between("max_pause_s", self.max_pause_s, 0.0, float(WINDOW_S))
        require_between("overlap_s", self.overlap_s, 0.0, self.max_s / 3)
        require_between("margin_s", self.margin_s, 0.0, float(WINDOW_S))


@dataclass(frozen=True)
class SpeechWindow:
    """A window with speech, and how it follows the one before."""

    window: Window
    overlap_samples: int = 0
    """Its first samples that the window before it ends with; 0 where a pause lies between."""


def windows_by_speech(
    blocks: Iterable[Samples], detector: SpeechDetector, options: PackingOptions | None = None
) -> Iterator[SpeechWindow]:
    """Pack the speech of a recording into windows, as it is read.

    Speech is added to a window as long as it fits and the pause before it is no longer than
    `max_pause_s`. Speech that does not fit begins the next window. Where someone speaks for
    longer than a window without a pause, the cut is at the quietest moment of the window's last
    third, and the two windows share `overlap_s` around it. Other windows share nothing, and those
    with little speech keep up to `margin_s` of the silence before and after it. No window is
    without speech, and they do not depend on how the recording was split into blocks. At most
    three windows' worth of sound is held.

    Args:
        blocks: mono sound at 16 kHz, ``[n_samples]`` each, of any lengths.
        detector: finds the speech; with what it pads speech, windows begin and end.
        options: how speech becomes windows.
    """
    cutter = SpeechCutter(detector, options)
    for block in blocks:
        yield from cutter.add(block)
    yield from cutter.end()


class SpeechCutter:
    """Packs one stream as `windows_by_speech` does, which says how; for whoever has several.

    Args:
        detector: finds the speech; with what it pads speech, windows begin and end.
        options: how speech becomes windows.
    """

    def __init__(self, detector: SpeechDetector, options: PackingOptions | None = None) -> None:
        self._buffer = _SampleBuffer()
        self._packer = _WindowPacker(self._buffer, PackingOptions() if options is None else options)
        self._stream = detector.new_stream()
        self._n_samples = 0

    @property
    def watermark_sample(self) -> int:
        """No window that is still to come begins before this sample."""
        return self._packer.watermark_sample

    def add(self, block: Samples) -> Iterator[SpeechWindow]:
        """The windows that the next samples, ``[n_samples]``, make complete."""
        for start in range(0, len(block), _HEARD_AT_ONCE):
            piece = block[start : start + _HEARD_AT_ONCE]
            self._buffer.record(piece)
            self._n_samples += len(piece)
            yield from self._packer.pack(self._stream.process(piece))

    def end(self) -> Iterator[SpeechWindow]:
        """The rest; nothing may be added after this."""
        yield from self._packer.pack(self._stream.end())
        yield from self._packer.end(self._n_samples)


class _SampleBuffer:
    """The samples of the recording that may still be needed."""

    def __init__(self) -> None:
        self._pieces: deque[Samples] = deque()
        self._start = 0  # of the first piece, in the recording

    def record(self, samples: Samples) -> None:
        """Add the next samples; they are copied."""
        self._pieces.append(samples.copy())

    def read(self, start: int, end: int) -> Samples:
        """Samples `start` to `end` of the recording, as memory of their own."""
        samples = np.empty(end - start, np.float32)
        at = self._start
        for piece in self._pieces:
            first, last = max(start, at), min(end, at + len(piece))
            if first < last:
                samples[first - start : last - start] = piece[first - at : last - at]
            at += len(piece)
        return samples

    def forget_before(self, sample: int) -> None:
        """Nothing before `sample` will be read any more."""
        while self._pieces and self._start + len(self._pieces[0]) <= sample:
            self._start += len(self._pieces.popleft())


class _WindowPacker:
    """The window that is being filled: spans of speech with pauses between them."""

    def __init__(self, buffer: _SampleBuffer, options: PackingOptions) -> None:
        self.watermark_sample = 0
        self._buffer = buffer
        self._longest = int(options.max_s * SAMPLING_RATE)
        self._max_pause = int(options.max_pause_s * SAMPLING_RATE)
        self._half_overlap = int(options.overlap_s * SAMPLING_RATE / 2)
        # Half of a long pause at most, so that it does not matter when it is known to be one.
        self._margin = min(int(options.margin_s * SAMPLING_RATE), self._max_pause // 2)
        self._spans: list[SpeechSpan] = []
        self._overlap = 0  # with the window before
        self._covered = 0  # where the window before ends
        self._index = 0

    def pack(self, heard: SpeechUpdate) -> Iterator[SpeechWindow]:
        """The windows that are complete now."""
        for span in heard.spans:
            if self._ends_before(span.start_sample):
                yield self._closed(self._margin)
            self._add(span)
            while self._end() - self._start() > self._longest:
                yield self._cut()
        if self._ends_before(heard.watermark_sample):
            yield self._closed(self._margin)
        next_start = self._start() if self._spans else heard.watermark_sample
        self.watermark_sample = next_start - self._silence_before(next_start)
        self._buffer.forget_before(self.watermark_sample)

    def end(self, n_samples: int) -> Iterator[SpeechWindow]:
        """The last window of a recording of this length, if one is being filled."""
        if self._spans:
            yield self._closed(n_samples - self._end())

    def _start(self) -> int:
        return self._spans[0].start_sample

    def _end(self) -> int:
        return self._spans[-1].end_sample

    def _ends_before(self, next_speech: int) -> bool:
        """Whether the pause before speech there, or later, ends the window."""
        return bool(self._spans) and next_speech - self._end() > self._max_pause

    def _add(self, span: SpeechSpan) -> None:
        if self._spans and span.start_sample == self._end():
            span = SpeechSpan(self._spans.pop().start_sample, span.end_sample)
        self._spans.append(span)

    def _cut(self) -> SpeechWindow:
        """The window up to its last pause, or up to the quietest moment where there is none."""
        if len(self._spans) > 1:
            rest = self._spans.pop()
            closed = self._closed((rest.start_sample - self._end()) // 2)
            self._spans = [rest]
            return closed
        start, end = self._start(), self._end()
        first = start + self._longest - self._longest // 3
        last = start + self._longest - self._half_overlap
        cut = first + quietest_moment(self._buffer.read(first, last))
        self._spans = [SpeechSpan(start, cut + self._half_overlap)]
        closed = self._closed(0)
        self._spans = [SpeechSpan(cut - self._half_overlap, end)]
        self._overlap = 2 * self._half_overlap
        return closed

    def _closed(self, silence_after: int) -> SpeechWindow:
        """The window, with what fits of the silence around it.

        Args:
            silence_after: how much of the silence that follows belongs to it, in samples.
        """
        start, end = self._start(), self._end()
        if end - start <= self._longest // 2:
            room = self._longest - (end - start)
            start -= min(self._silence_before(start), room // 2)
            end += min(self._margin, silence_after, room // 2)
        window = Window(self._buffer.read(start, end), self._index, start)
        closed = SpeechWindow(window, self._overlap)
        self._spans, self._overlap, self._index = [], 0, self._index + 1
        self._covered = end
        return closed

    def _silence_before(self, start: int) -> int:
        """How much of the silence before speech there belongs to its window."""
        return max(0, min(self._margin, start - self._covered))
