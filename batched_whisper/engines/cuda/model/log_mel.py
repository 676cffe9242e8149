"""The log-mel spectrogram on the device, from packed samples.

The definition is `audio.features.log_mel`, whose tables it uses. A Fourier transform of 400 samples
is one matrix product here, in float32: its errors are far below the quietest value of the
spectrogram.
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
"""Samples of a frame beyond its hop."""


def n_samples(n_frames: int) -> int:
    """Return the number of samples under ``n_frames`` frames, one every `HOP_LENGTH`."""
    return n_frames * HOP_LENGTH + _BEYOND


def lay_samples(samples: Samples, start: int, n_frames: int, into: Samples) -> None:
    """Write a window's samples under its frames.

    Args:
        samples: of the window, at most ``n_frames * 160``.
        start: its first frame in the batch.
        n_frames: its number of frames.
        into: the samples of the batch.
    """
    assert GAP * HOP_LENGTH >= _BEYOND  # the last frame ends before the next window
    first = start * HOP_LENGTH
    target = into[first : first + n_samples(n_frames)]
    target[:] = 0
    write_reflect_padded(samples, n_frames, target)


class Spectrogram:
    """Computes log-mel features.

    Args:
        n_mels: the number of mel bands.
        device: the device.
    """

    def __init__(self, n_mels: int, device: torch.device) -> None:
        def moved(table: NDArray[np.float64]) -> torch.Tensor:
            return torch.from_numpy(table.astype(np.float32)).to(device)

        angles = 2 * np.pi / N_FFT * np.outer(np.arange(N_FFT), np.arange(N_FREQUENCIES))
        waves = np.concatenate([np.cos(angles), np.sin(angles)], 1)
        self._waves = moved(hann()[:, None] * waves)  # [400, 2 * 201]
        self._filters = moved(mel_filters(n_mels).T)

    def __call__(self, samples: torch.Tensor, batch: PackedBatch) -> torch.Tensor:
        """Compute ``[n_mels, n_frames]`` from a batch's samples; gaps are undefined."""
        spectra = samples.unfold(0, N_FFT, HOP_LENGTH) @ self._waves
        power = spectra.square().unflatten(1, (2, -1)).sum(1)
        logs = (power @ self._filters).clamp(min=POWER_FLOOR).log10()  # [n_frames, n_mels]
        windows = batch.frame_windows.long()
        loudest = logs.new_full((MAX_WINDOWS + 1,), -torch.inf)
        loudest.scatter_reduce_(0, windows, logs.amax(1), "amax")
        clipped = torch.maximum(logs, loudest[windows][:, None] - DYNAMIC_RANGE)
        return ((clipped + 4) / 4).T
