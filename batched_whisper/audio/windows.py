"""Cuts a recording of any length into windows that fit into the model's context.

Keeps every sample and cuts at quiet moments, without speech detection. Knows nothing of the model,
and buffers at most one window and one second of audio.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from batched_whisper.audio.constants import WINDOW_S
from batched_whisper.errors import OptionError
from batched_whisper.types import SAMPLING_RATE, Samples, Window

_FRAME = SAMPLING_RATE * 20 // 1000  # samples per energy value
_SMOOTHED_FRAMES = 10  # 0.2 s: longer than the gap inside a word, shorter than a pause
_SAME_QUIET = 2.0  # energies within 3 dB of the minimum belong to the same pause
_SILENCE = 1e-10  # mean square, -100 dB: below this, differences are inaudible
_SHORTEST_TAIL_S = 1.0
_PAUSE = 0.01  # 20 dB below the mean level of the window there is no speech


class PlainCutter:
    """Cuts a stream of samples into windows of at most `max_s` seconds, block by block.

    The windows do not depend on the block boundaries, and every sample is in at least one window.
    Audio of at most `max_s` is one window. Longer audio is cut in the middle of the quietest moment
    of the window's last third (10 s of 30), early enough that the rest is at least a second long.
    If that moment is not a pause, the two windows overlap by `overlap_s` around it. All others
    follow each other without overlap.

    Args:
        max_s: maximum length of a window, in seconds, from 1 to 30.
        overlap_s: overlap of windows without a pause, in seconds, at most a third of `max_s`.

    Raises:
        OptionError: `max_s` or `overlap_s` is out of range.
    """

    def __init__(self, max_s: float = float(WINDOW_S), overlap_s: float = 0.0) -> None:
        if not 1 <= max_s <= WINDOW_S:
            raise OptionError(f"max_s={max_s!r} is out of range: it must be from 1 to {WINDOW_S}")
        if not 0 <= overlap_s <= max_s / 3:
            raise OptionError(
                f"overlap_s={overlap_s!r} is out of range: it must be from 0 to {max_s / 3:g}"
            )
        self._longest = int(max_s * SAMPLING_RATE)
        self._half_overlap = int(overlap_s * SAMPLING_RATE / 2)
        # A cut is decided when all samples that can affect it are buffered, whatever the blocks.
        self._queue = _SampleQueue(self._longest + _shortest_tail(self._longest))
        self._index, self._start = 0, 0

    @property
    def watermark_sample(self) -> int:
        """The watermark: no later window starts before this sample."""
        return self._start

    def add(self, block: Samples) -> Iterator[Window]:
        """Add the next samples, ``[n_samples]``; yields the windows that are complete."""
        n_put = 0
        while n_put < len(block):
            n_put += self._queue.put(block[n_put:])
            if self._queue.is_full:
                yield self._next()

    def end(self) -> Iterator[Window]:
        """End the stream; yields the remaining windows. Nothing may be added afterwards."""
        while len(self._queue.samples):
            yield self._next()

    def _next(self) -> Window:
        sound = self._queue.samples
        end = next_start = len(sound)
        if len(sound) > self._longest:
            end = next_start = _quietest(sound, self._longest)
            if self._half_overlap and not _is_pause(sound, end):
                cut = _quietest(sound, self._longest, self._longest - self._half_overlap)
                end, next_start = cut + self._half_overlap, cut - self._half_overlap
        window = Window(sound[:end].copy(), self._index, self._start)
        self._queue.drop(next_start)
        self._index, self._start = self._index + 1, self._start + next_start
        return window


class _SampleQueue:
    """Buffers up to `capacity` samples that are not in a window yet, in one array."""

    def __init__(self, capacity: int) -> None:
        self._samples = np.empty(capacity, np.float32)
        self._n_held = 0

    @property
    def samples(self) -> Samples:
        """The buffered samples; a view that is valid until the next call."""
        return self._samples[: self._n_held]

    @property
    def is_full(self) -> bool:
        """Whether the buffer is full."""
        return self._n_held == len(self._samples)

    def drop(self, n_samples: int) -> None:
        """Remove the first `n_samples`."""
        left = self._samples[n_samples : self._n_held].copy()
        self._n_held = len(left)
        self._samples[: self._n_held] = left

    def put(self, samples: Samples) -> int:
        """Append as many samples as fit; returns their number."""
        n_put = min(len(samples), len(self._samples) - self._n_held)
        self._samples[self._n_held : self._n_held + n_put] = samples[:n_put]
        self._n_held += n_put
        return n_put


def _shortest_tail(longest: int) -> int:
    return min(int(_SHORTEST_TAIL_S * SAMPLING_RATE), longest // 4)


def _quietest(sound: Samples, longest: int, latest: int | None = None) -> int:
    """Choose how many samples of `sound`, which is longer than `longest`, to keep."""
    first = longest - longest // 3
    last = min(latest or longest, len(sound) - _shortest_tail(longest))
    return first + quietest_moment(sound[first:last])


def _is_pause(sound: Samples, at: int) -> bool:
    """Whether the 0.2 s around `at` are much quieter than the mean of `sound`."""
    half = _SMOOTHED_FRAMES * _FRAME // 2
    there = sound[max(0, at - half) : at + half]
    return _level(there) <= max(_level(sound) * _PAUSE, _SILENCE)


def _level(sound: Samples) -> float:
    """Return the mean square."""
    return float(np.dot(sound, sound)) / len(sound)


def quietest_moment(sound: Samples) -> int:
    """Return the middle of the longest quiet part of `sound`, the later one of equals.

    Quiet means within 3 dB of the quietest 0.2 s. The result is in samples from the start of
    `sound`, and its end if it is shorter than 0.2 s.
    """
    n_frames = len(sound) // _FRAME
    if n_frames < _SMOOTHED_FRAMES:
        return len(sound)
    frames = sound[: n_frames * _FRAME].reshape(n_frames, _FRAME)
    energy = np.mean(np.square(frames, dtype=np.float64), axis=1)
    smooth = np.convolve(energy, np.full(_SMOOTHED_FRAMES, 1 / _SMOOTHED_FRAMES), mode="valid")
    quiet = smooth <= max(float(smooth.min()) * _SAME_QUIET, _SILENCE)
    # smooth[i] covers frames i to i + 9, so the middle of its 0.2 s is 5 frames later.
    middle = _middle_of_longest_run(quiet) + _SMOOTHED_FRAMES / 2
    return int(middle * _FRAME)


def _middle_of_longest_run(flags: NDArray[np.bool_]) -> float:
    """Return the middle of the longest run of True, the last one of equals."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], flags, [False])).astype(np.int8)))
    starts, ends = edges[::2], edges[1::2]
    lengths = ends - starts
    longest = len(lengths) - 1 - int(np.argmax(lengths[::-1]))
    return float(starts[longest] + ends[longest] - 1) / 2
