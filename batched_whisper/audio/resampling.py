"""Resamples audio of any sampling rate to 16 kHz, as a stream.

Uses FFmpeg's resampler through PyAV and keeps the output length equal to that of the input.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler

from batched_whisper.types import SAMPLING_RATE, Channels, Samples

_MIN_RESAMPLED = 4096  # with fewer samples per call, the calls cost more than the work


@dataclass(frozen=True)
class AudioChunk:
    """Samples, ``[n_channels, n_samples]``, at the sampling rate of their source."""

    samples: Channels
    sampling_rate: int


def resample(pieces: Iterator[AudioChunk]) -> Iterator[Channels]:
    """Resample chunks to 16 kHz; the rate may change between chunks, the channels may not.

    Each channel is resampled separately, so that it equals a mono recording of that channel.
    """
    resamplers: list[_Resampler] = []
    for piece in pieces:
        if not resamplers or resamplers[0].sampling_rate != piece.sampling_rate:
            yield from _together(resampler.finish() for resampler in resamplers)
            resamplers = [_Resampler(piece.sampling_rate) for _ in piece.samples]
        channels = zip(resamplers, piece.samples, strict=True)
        yield from _together(resampler.add(samples) for resampler, samples in channels)
    yield from _together(resampler.finish() for resampler in resamplers)


def _together(channels: Iterable[Iterator[Samples]]) -> Iterator[Channels]:
    for parts in zip(*channels, strict=True):
        yield parts[0][None, :] if len(parts) == 1 else np.stack(parts)


def in_blocks(parts: Iterator[Channels], n_samples: int) -> Iterator[Channels]:
    """Regroup samples into blocks of `n_samples`, the last one shorter, each a new array."""
    held: list[Channels] = []
    n_held = 0
    for part in parts:
        held.append(part)
        n_held += part.shape[1]
        while n_held >= n_samples:
            joined = np.concatenate(held, axis=1)
            yield joined[:, :n_samples].copy()
            held, n_held = [joined[:, n_samples:]], n_held - n_samples
    if n_held:
        yield np.concatenate(held, axis=1)


class _Resampler:
    """FFmpeg's resampler, with output of the same duration as the input."""

    def __init__(self, sampling_rate: int) -> None:
        self.sampling_rate = sampling_rate
        self._resampler = AudioResampler(format="fltp", layout="mono", rate=SAMPLING_RATE)
        self._waiting: list[Samples] = []
        self._n_waiting = self._n_in = self._n_out = 0

    def add(self, samples: Samples) -> Iterator[Samples]:
        self._waiting.append(samples)
        self._n_waiting += len(samples)
        self._n_in += len(samples)
        if self._n_waiting >= _MIN_RESAMPLED:
            yield from self._push()

    def finish(self) -> Iterator[Samples]:
        """Flush the filter with silence; yields the rest without the filter's tail."""
        n_due = -(-self._n_in * SAMPLING_RATE // self.sampling_rate) - self._n_out
        silence = np.zeros(self.sampling_rate // 10, np.float32)
        self._waiting.append(silence)
        for part in (*self._push(), *self._converted(None)):
            yield part[:n_due]
            n_due -= min(n_due, len(part))

    def _push(self) -> Iterator[Samples]:
        samples = np.concatenate(self._waiting)
        self._waiting, self._n_waiting = [], 0
        if self.sampling_rate == SAMPLING_RATE:
            self._n_out += len(samples)
            yield samples
            return
        frame = AudioFrame.from_ndarray(samples[None, :], format="fltp", layout="mono")
        frame.sample_rate = self.sampling_rate
        frame.time_base = Fraction(1, self.sampling_rate)
        yield from self._converted(frame)

    def _converted(self, frame: AudioFrame | None) -> Iterator[Samples]:
        if self.sampling_rate == SAMPLING_RATE:
            return
        for converted in self._resampler.resample(frame):
            samples = converted.to_ndarray()[0]
            self._n_out += len(samples)
            yield samples
