"""Restricts a recording to clips: audio outside of them is skipped.

Cuts windows within each clip by another cutter. Knows nothing of why the clips were chosen.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Protocol

from batched_whisper.types import SAMPLING_RATE, Samples, Window


@dataclass(frozen=True)
class Clip:
    """The part ``[start_sample, end_sample)`` of a recording; None extends to its end."""

    start_sample: int
    end_sample: int | None = None


WHOLE_RECORDING = (Clip(0),)
"""A single clip that covers the whole recording."""


def clips_from_times(times_s: Sequence[float]) -> tuple[Clip, ...]:
    """Convert alternating start and end times, in seconds, to clips.

    The format of openai/whisper's ``clip_timestamps``: chronological, without overlaps; the last
    end may be missing.
    """
    samples = [round(time_s * SAMPLING_RATE) for time_s in times_s]
    pairs = zip_longest(samples[::2], samples[1::2])
    return tuple(Clip(start, None if end is None else max(end, start + 1)) for start, end in pairs)


class Cutter(Protocol):
    """Cuts a stream of audio into windows, block by block."""

    @property
    def watermark_sample(self) -> int:
        """The watermark: no later window starts before this sample."""
        ...

    def add(self, block: Samples) -> Iterable[Window]:
        """Add the next samples, ``[n_samples]``; yields the windows that are complete."""
        ...

    def end(self) -> Iterable[Window]:
        """End the stream; yields the remaining windows. Nothing may be added afterwards."""
        ...


class ClipCutter:
    """Cuts each clip as a recording of its own; window times refer to the whole recording.

    Args:
        clips: the parts to keep, in chronological order.
        new_cutter: creates the cutter of one clip.
    """

    def __init__(self, clips: Iterable[Clip], new_cutter: Callable[[], Cutter]) -> None:
        self._clips = deque(clips)
        self._new_cutter = new_cutter
        self._cutter = new_cutter()
        self._n_read = 0
        self._index = 0

    @property
    def watermark_sample(self) -> int:
        """The watermark: no later window starts before this sample."""
        if not self._clips:
            return self._n_read
        return self._clips[0].start_sample + self._cutter.watermark_sample

    def add(self, block: Samples) -> Iterator[Window]:
        """Add the next samples of the recording; yields the windows that are complete."""
        start, self._n_read = self._n_read, self._n_read + len(block)
        while self._clips:
            clip = self._clips[0]
            end = math.inf if clip.end_sample is None else clip.end_sample
            first, last = max(clip.start_sample, start), int(min(end, self._n_read))
            if first < last:
                yield from self._placed(self._cutter.add(block[first - start : last - start]))
            if end > self._n_read:
                return
            yield from self._close()

    def end(self) -> Iterator[Window]:
        """End the recording; yields the remaining windows. Clips beyond its end are empty."""
        while self._clips:
            yield from self._close()

    def _close(self) -> Iterator[Window]:
        yield from self._placed(self._cutter.end())
        self._clips.popleft()
        self._cutter = self._new_cutter()

    def _placed(self, windows: Iterable[Window]) -> Iterator[Window]:
        for each in windows:
            start = self._clips[0].start_sample + each.start_sample
            yield replace(each, index=self._index, start_sample=start)
            self._index += 1
