"""Finds the pauses of a window by its loudness; words are aligned with them.

Knows samples, and nothing of text. If noise is nearly as loud as the speech, it finds no pauses.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from batched_whisper.types import SAMPLING_RATE, Samples

FRAME_S = 0.01
MIN_PAUSE_S = 0.1
"""Shorter quiet parts, in seconds, are closures of plosives within a word."""

_FRAME = round(SAMPLING_RATE * FRAME_S)
_LOUD, _NOISE = 95, 10  # percentiles of loudness that estimate speech and noise
_QUIET = 0.05  # 26 dB below the speech
_ABOVE_NOISE, _AT_MOST = (
    2.0,
    0.15,
)  # quiet: up to 6 dB above the noise, at most 16 dB below the speech


@dataclass(frozen=True)
class Pause:
    """A quiet part of a window, in seconds from its start."""

    start_s: float
    end_s: float

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.end_s - self.start_s


def find_pauses(samples: Samples) -> tuple[Pause, ...]:
    """Return the pauses of a window, in order: those of at least 0.1 s, and those at its ends."""
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
