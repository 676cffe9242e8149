"""The log-mel spectrogram on the device, from samples that lie end to end.

The definition is `audio.features.log_mel`, and the cache are its own. A Fourier transform of 400
samples is one product of matrices here, which a GPU does in no time; in float32, whose errors are
far below the quietest that the spectrogram knows.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from batched_whisper.audio.constants import HOP_LENGTH, N_FFT, N_FREQUENCIES
from batched_whisper.audio.features import (
    DYNAMIC_RANGE,
    POWER_FLOOR,
    hann,
    mel_filters,
    write_reflect_padded,
)
from batched_whisper.engines.cuda.packed_batch import GAP, MAX_WINDOWS, PackedBatch
from batched_whisper.types import Samples

_BEYOND = N_FFT - HOP_LENGTH
"""Samples that a frame hears beyond its own."""


def n_samples(n_frames: int) -> int:
    """Samples under so many frames, one every `HOP_LENGTH`."""
    return n_frames * HOP_LENGTH + _BEYOND


def lay_samples(samples: Samples, start: int, n_frames: int, into: Samples) -> None:
    """Write a window's sound where its frames hear it.

    Args:
        samples: of the window, at most ``n_frames * 160``.
        start: its first frame among those of all.
        n_frames: how many it has.
        into: the samples under all frames.
    """
    assert GAP * HOP_LENGTH >= _BEYOND  # what the last frame hears is not the next window's
    first = start * HOP_LENGTH
    sound = into[first : first + n_samples(n_frames)]
    sound[:] = 0
    write_reflect_padded(samples, n_frames, sound)


class Spectrogram:
    """Computes features.

    Args:
        n_mels: mel bands.
        device: where.
    """

    def __init__(self, n_mels: int, device: torch.device) -> None:
        def moved(table: NDArray[np.float64]) -> torch.Tensor:
            return torch.from_numpy(table.astype(np.float32)).to(device)

        angles = 2 * np.pi / N_FFT * np.outer(np.arange(N_FFT), np.arange(N_FREQUENCIES))
        waves = np.concatenate([np.cos(angles), np.sin(angles)], 1)
        self._waves = moved(hann()[:, None] * waves)  # [400, 2 * 201]
        self._filters = moved(mel_filters(n_mels).T)

    def __call__(self, samples: torch.Tensor, batch: PackedBatch) -> torch.Tensor:
        """Those under all frames, to ``[n_mels, n_frames]``; between windows to anything."""
        spectra = samples.unfold(0, N_FFT, HOP_LENGTH) @ self._waves
        power = spectra.square().unflatten(1, (2, -1)).sum(1)
        logs = (power @ self._filters).clamp(min=POWER_FLOOR).log10()  # [n_frames, n_mels]
        whose = batch.frame_windows.long()
        loudest = logs.new_full((MAX_WINDOWS + 1,), -torch.inf)
        loudest.scatter_reduce_(0, whose, logs.amax(1), "amax")
        heard = torch.maximum(logs, loudest[whose][:, None] - DYNAMIC_RANGE)
        return ((heard + 4) / 4).T
