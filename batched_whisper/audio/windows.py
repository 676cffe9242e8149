"""Cuts a recording of any length into windows that the model can see at once.

Plain cutting: no sample is lost, repeated or judged; a cut is made where it is quietest. Knows
nothing of speech or of the model, and holds no more of the recording than a window and a second.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from batched_whisper.audio.constants import WINDOW_S
from batched_whisper.errors import OptionError
from batched_whisper.types import SAMPLING_RATE, Samples, Window

_FRAME = SAMPLING_RATE * 20 // 1000  # samples whose energy is taken together
_SMOOTHED_FRAMES = 10  # 0.2 s: longer than the gap inside a word, shorter than a pause
_SAME_QUIET = 2.0  # energies within 3 dB of the quietest belong to the same pause
_SILENCE = 1e-10  # mean square, -100 dB: below this, differences are not sound
_SHORTEST_TAIL_S = 1.0
_PAUSE = 0.01  # at 20 dB below the mean of the window nobody speaks


class PlainCutter:
    """Cuts one stream of samples into windows of at most `max_s` seconds, as they come in.

    The windows do not depend on how the input was split into blocks, and no sample of it is in
    none. Sound of at most `max_s` is one window; longer sound is cut in the middle of the quietest
    moment of the last third before the mark (10 s of 30), and early enough that no piece shorter
    than a second is left over. Where even that moment is not in a pause, the two windows share
    `overlap_s` around it. All others follow each other end to end.

    Args:
        max_s: the longest window, in seconds, from 1 to 30.
        overlap_s: what windows share where there is no pause, at most a third of `max_s`.

    Raises:
        OptionError: `max_s` or `overlap_s` is out of its range.
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
        # A cut is decided when as much as can matter is held, never by where a block ends.
        self._held = _Held(self._longest + _shortest_tail(self._longest))
        self._index, self._start = 0, 0

    @property
    def watermark_sample(self) -> int:
        """No window that is still to come begins before this sample."""
        return self._start

    def add(self, block: Samples) -> Iterator[Window]:
        """The windows that the next samples, ``[n_samples]``, make complete."""
        n_put = 0
        while n_put < len(block):
            n_put += self._held.put(block[n_put:])
            if self._held.is_full:
                yield self._next()

    def end(self) -> Iterator[Window]:
        """The rest; nothing may be added after this."""
        while len(self._held.samples):
            yield self._next()

    def _next(self) -> Window:
        sound = self._held.samples
        end = next_start = len(sound)
        if len(sound) > self._longest:
            end = next_start = _quietest(sound, self._longest)
            if self._half_overlap and not _is_pause(sound, end):
                cut = _quietest(sound, self._longest, self._longest - self._half_overlap)
                end, next_start = cut + self._half_overlap, cut - self._half_overlap
        window = Window(sound[:end].copy(), self._index, self._start)
        self._held.drop(next_start)
        self._index, self._start = self._index + 1, self._start + next_start
        return window


class _Held:
    """The samples that are not in a window yet: at most `capacity` of them, in one array."""

    def __init__(self, capacity: int) -> None:
        self._samples = np.empty(capacity, np.float32)
        self._n_held = 0

    @property
    def samples(self) -> Samples:
        """What is held; a view, good until the next call."""
        return self._samples[: self._n_held]

    @property
    def is_full(self) -> bool:
        """Whether no more can be put."""
        return self._n_held == len(self._samples)

    def drop(self, n_samples: int) -> None:
        """Remove the first `n_samples`."""
        left = self._samples[n_samples : self._n_held].copy()
        self._n_held = len(left)
        self._samples[: self._n_held] = left

    def put(self, samples: Samples) -> int:
        """Add as many as there is room for; how many that was."""
        n_put = min(len(samples), len(self._samples) - self._n_held)
        self._samples[self._n_held : self._n_held + n_put] = samples[:n_put]
        self._n_held += n_put
        return n_put


def _shortest_tail(longest: int) -> int:
    return min(int(_SHORTEST_TAIL_S * SAMPLING_RATE), longest // 4)


def _quietest(sound: Samples, longest: int, latest: int | None = None) -> int:
    """Where to cut `sound`, which is longer than `longest`: a number of samples to keep."""
    first = longest - longest // 3
    last = min(latest or longest, len(sound) - _shortest_tail(longest))
    return first + quietest_moment(sound[first:last])


def _is_pause(sound: Samples, at: int) -> bool:
    """Whether the 0.2 s around a place are far quieter than the sound is on the whole."""
    half = _SMOOTHED_FRAMES * _FRAME // 2
    there = sound[max(0, at - half) : at + half]
    return _level(there) <= max(_level(sound) * _PAUSE, _SILENCE)


def _level(sound: Samples) -> float:
    """Its mean square."""
    return float(np.dot(sound, sound)) / len(sound)


def quietest_moment(sound: Samples) -> int:
    """The middle of the longest quiet stretch of `sound`, the later one of several alike.

    Quiet is what lies within 3 dB of the quietest 0.2 s. In samples from the start of `sound`;
    its end where it is shorter than 0.2 s.
    """
    n_frames = len(sound) // _FRAME
    if n_frames < _SMOOTHED_FRAMES:
        return len(sound)
    frames = sound[: n_frames * _FRAME].reshape(n_frames, _FRAME)
    energy = np.mean(np.square(frames, dtype=np.float64), axis=1)
    smooth = np.convolve(energy, np.full(_SMOOTHED_FRAMES, 1 / _SMOOTHED_FRAMES), mode="valid")
    quiet = smooth <= max(float(smooth.min()) * _SAME_QUIET, _SILENCE)
    # smooth[i] is about frames i to i + 9, so the middle of its 0.2 s is 5 frames further on.
    middle = _middle_of_longest_run(quiet) + _SMOOTHED_FRAMES / 2
    return int(middle * _FRAME)


def _middle_of_longest_run(flags: NDArray[np.bool_]) -> float:
    """The middle of the longest run of True, of the last one where several are as long."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], flags, [False])).astype(np.int8)))
    starts, ends = edges[::2], edges[1::2]
    lengths = ends - starts
    longest = len(lengths) - 1 - int(np.argmax(lengths[::-1]))
    return float(starts[longest] + ends[longest] - 1) / 2
