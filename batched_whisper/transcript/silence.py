"""Where a window is quiet, by its loudness alone: the ends of words are put there.

Knows samples, and nothing of what is said. In noise that is nearly as loud as the speech it finds
nothing, and says so by finding nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from batched_whisper.types import SAMPLING_RATE, Samples

FRAME_S = 0.01
MIN_PAUSE_S = 0.1
"""Shorter quiet is the closure of a plosive, inside a word."""

_FRAME = round(SAMPLING_RATE * FRAME_S)
_LOUD, _NOISE = 95, 10  # percentiles of loudness that stand for the speech and for the noise
_QUIET = 0.05  # 26 dB below the speech
_ABOVE_NOISE, _AT_MOST = 2.0, 0.15  # quiet is up to 6 dB above the noise, not above -16 dB


@dataclass(frozen=True)
class Pause:
    """Quiet between two moments, in seconds from the start of the window."""

    start_s: float
    end_s: float

    @property
    def duration_s(self) -> float:
        """How long it is."""
        return self.end_s - self.start_s


def find_pauses(samples: Samples) -> tuple[Pause, ...]:
    """The quiet stretches of a window, in order: long ones, and those at its two ends."""
    n_frames = -(-len(samples) // _FRAME)
    if not n_frames:
        return ()
    padded = np.zeros(n_frames * _FRAME, np.float32)
    padded[: len(samples)] = samples
    frames = padded.reshape(n_frames, _FRAME)
    loudness = np.sqrt(np.einsum("nf,nf->n", frames, frames) / _FRAME)
    speech, noise = np.percentile(loudness, [_LOUD, _NOISE])
    threshold = max(_QUIET * speech, min(_ABOVE_NOISE * noise, _AT_MOST * speech))
    quiet = np.concatenate([[False], loudness <= threshold, [False]])
    edges = np.flatnonzero(quiet[1:] != quiet[:-1])
    return tuple(
        Pause(float(start * FRAME_S), float(end * FRAME_S))
        for start, end in zip(edges[::2], edges[1::2], strict=True)
        if start == 0 or end == n_frames or (end - start) * FRAME_S >= MIN_PAUSE_S
    )
