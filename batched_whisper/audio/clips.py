"""Only some stretches of a recording: the sound outside of them is heard by nobody.

Knows stretches and whoever cuts windows inside of them; nothing of why these are wanted.
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
    """``[start_sample, end_sample)`` of a recording; without an end, to the recording's own."""

    start_sample: int
    end_sample: int | None = None


WHOLE_RECORDING = (Clip(0),)
"""Everything."""


def clips_from_times(times_s: Sequence[float]) -> tuple[Clip, ...]:
    """The clips of their starts and ends in turn, in seconds, as openai/whisper takes them.

    They come in the order of time and do not overlap; the last end may be missing.
    """
    samples = [round(time_s * SAMPLING_RATE) for time_s in times_s]
    pairs = zip_longest(samples[::2], samples[1::2])
    return tuple(Clip(start, None if end is None else max(end, start + 1)) for start, end in pairs)


class Cutter(Protocol):
    """Cuts one stream of sound into windows, as it comes in."""

    @property
    def watermark_sample(self) -> int:
        """No window that is still to come begins before this sample."""
        ...

    def add(self, block: Samples) -> Iterable[Window]:
        """The windows that the next samples, ``[n_samples]``, make complete."""
        ...

    def end(self) -> Iterable[Window]:
        """The rest; nothing may be added after this."""
        ...


class ClipCutter:
    """Cuts each clip as if it were a recording; times stay those of the whole one.

    Args:
        clips: what is wanted, in the order of time.
        new_cutter: makes what cuts a clip.
    """

    def __init__(self, clips: Iterable[Clip], new_cutter: Callable[[], Cutter]) -> None:
        self._clips = deque(clips)
        self._new_cutter = new_cutter
        self._cutter = new_cutter()
        self._n_heard = 0
        self._index = 0

    @property
    def watermark_sample(self) -> int:
        """No window that is still to come begins before this sample."""
        if not self._clips:
            return self._n_heard
        return self._clips[0].start_sample + self._cutter.watermark_sample

    def add(self, block: Samples) -> Iterator[Window]:
        """The windows that the next samples of the recording make complete."""
        start, self._n_heard = self._n_heard, self._n_heard + len(block)
        while self._clips:
            clip = self._clips[0]
            end = math.inf if clip.end_sample is None else clip.end_sample
            first, last = max(clip.start_sample, start), int(min(end, self._n_heard))
            if first < last:
                yield from self._placed(self._cutter.add(block[first - start : last - start]))
            if end > self._n_heard:
                return
            yield from self._close()

    def end(self) -> Iterator[Window]:
        """The rest; clips after the recording's end are without sound."""
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
