"""Computes the log-mel spectrogram that Whisper was trained on.

By the formula of openai/whisper's ``whisper/audio.py``. Thread-safe: the only state is constant
tables.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from batched_whisper.audio.constants import HOP_LENGTH, N_FFT, N_FRAMES, N_FREQUENCIES
from batched_whisper.errors import InvalidSamples
from batched_whisper.types import SAMPLING_RATE, Features, Samples

# Samples mirrored at each end, so that frame t is centred on t * HOP_LENGTH.
_REFLECTED = N_FFT // 2
POWER_FLOOR = 1e-10
DYNAMIC_RANGE = 8.0  # powers of ten below the loudest band; quieter values are clipped
_FRAMES_PER_BLOCK = 128  # larger arrays are allocated by the system anew each time

# Frames per product with the mel filters. OpenBLAS runs larger products (over 2**18
# multiplications) on its own threads, which then spin for 0.1 s and take as much time from the
# engine as a thousand such products (measured in docs/lab-log.md).
_FRAMES_PER_PRODUCT = 8


def log_mel(samples: Samples, n_mels: int, n_frames: int = N_FRAMES) -> Features:
    """Compute the features of `samples`, padded with silence to ``n_frames * 160`` samples.

    The formula of openai/whisper's ``log_mel_spectrogram``: power of the short-time Fourier
    transform (periodic Hann window, mirrored at the ends of the padded sound), Slaney mel bands,
    log10, clipped to 8 below the maximum, then ``(x + 4) / 4``. Computed in double precision,
    which is also faster here.

    Args:
        samples: ``[n_samples]``, at 16 kHz.
        n_mels: mel bands, 80 or 128 in the known checkpoints.
        n_frames: frames of 10 ms, at least 3.

    Returns:
        ``[n_mels, n_frames]``, a new array.

    Raises:
        InvalidSamples: not one-dimensional, or more samples than `n_frames` hold.
    """
    if samples.ndim != 1 or n_frames < 3 or len(samples) > n_frames * HOP_LENGTH:
        raise InvalidSamples(
            f"samples of shape {list(samples.shape)} do not fit {n_frames} frames: "
            f"give at most {n_frames * HOP_LENGTH} samples of one channel"
        )
    sounding = _mirrored(samples, n_frames)
    frames = sliding_window_view(sounding, N_FFT)[::HOP_LENGTH]  # [n_sounding, N_FFT]
    logs = np.full((n_mels, n_frames), math.log10(POWER_FLOOR), np.float32)
    for start in range(0, len(frames), _FRAMES_PER_BLOCK):
        some = frames[start : start + _FRAMES_PER_BLOCK]
        bands = _bands(_power(some), n_mels)
        logs[:, start : start + len(some)] = np.log10(np.maximum(bands, POWER_FLOOR)).T
    np.maximum(logs, logs.max() - np.float32(DYNAMIC_RANGE), out=logs)
    logs += 4
    logs /= 4
    return logs


def pad_features(features: Features, n_frames: int) -> Features:
    """Extend features by silence to ``[n_mels, n_frames]``.

    Equal to computing them again if the audio already ends with at least 20 ms of silence: silent
    frames have the lowest possible value and do not change the maximum.
    """
    missing = n_frames - features.shape[1]
    if missing <= 0:
        return features[:, :n_frames]
    loudest = float(features.max()) * 4 - 4
    silence = (max(math.log10(POWER_FLOOR), loudest - DYNAMIC_RANGE) + 4) / 4
    return np.pad(features, ((0, 0), (0, missing)), constant_values=np.float32(silence))


def _mirrored(samples: Samples, n_frames: int) -> NDArray[np.float64]:
    """Return the padded samples under the frames that contain audio, mirrored at the ends.

    The frames after them contain only padding and need no transform.
    """
    n_sounding = min(n_frames, -(-(len(samples) + _REFLECTED) // HOP_LENGTH))
    sound = np.zeros((n_sounding - 1) * HOP_LENGTH + N_FFT)
    write_reflect_padded(samples, n_frames, sound)
    return sound


def write_reflect_padded(samples: Samples, n_frames: int, sound: NDArray[np.floating[Any]]) -> None:
    """Write reflect-padded samples for ``n_frames`` frames, or the first of them, to ``sound``.

    ``sound`` contains zeros; frame ``t`` is its `N_FFT` samples from ``t * HOP_LENGTH`` on.
    """
    n_padded = n_frames * HOP_LENGTH
    body = sound[_REFLECTED : _REFLECTED + n_padded]
    n_copied = min(len(samples), len(body))
    body[:n_copied] = samples[:n_copied]
    sound[:_REFLECTED] = body[_REFLECTED:0:-1]
    n_after = len(sound) - _REFLECTED - n_padded
    if n_after > 0:
        sound[-n_after:] = body[-2 : -2 - n_after : -1]


def _power(frames: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute power spectra, ``[n_frames, N_FREQUENCIES]``."""
    spectra = np.fft.rfft(frames * hann())
    power: NDArray[np.float64] = spectra.real**2
    power += spectra.imag**2
    return power


def _bands(power: NDArray[np.float64], n_mels: int) -> NDArray[np.float64]:
    """Compute the power per mel band, ``[n_frames, n_mels]``."""
    n_frames = len(power)
    missing = -n_frames % _FRAMES_PER_PRODUCT
    stacked = np.pad(power, ((0, missing), (0, 0))).reshape(-1, _FRAMES_PER_PRODUCT, N_FREQUENCIES)
    bands: NDArray[np.float64] = stacked @ mel_filters(n_mels).T
    return bands.reshape(-1, n_mels)[:n_frames]


@cache
def hann() -> NDArray[np.float64]:
    """Return the periodic Hann window, ``[N_FFT]``."""
    window: NDArray[np.float64] = np.hanning(N_FFT + 1)[:-1]  # periodic: without the last zero
    window.setflags(write=False)
    return window


@cache
def mel_filters(n_mels: int) -> NDArray[np.float64]:
    """Return triangular filters of equal area on Slaney's mel scale, ``[n_mels, N_FREQUENCIES]``.

    The formula of ``librosa.filters.mel(sr=16000, n_fft=400, n_mels=n_mels)``, after Malcolm
    Slaney's Auditory Toolbox (1998).
    """
    frequencies = np.linspace(0, SAMPLING_RATE / 2, N_FREQUENCIES)
    top_mel = float(_hz_to_mel(SAMPLING_RATE / 2))
    edges = _mel_to_hz(np.linspace(0, top_mel, n_mels + 2))[:, None]
    rising = (frequencies - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - frequencies) / (edges[2:] - edges[1:-1])
    filters = np.maximum(0, np.minimum(rising, falling)) * 2 / (edges[2:] - edges[:-2])
    filters.setflags(write=False)
    return filters


# Slaney's scale: linear up to 1 kHz (15 mels), then 27 mels per factor of 6.4.
_HZ_PER_MEL = 200 / 3
_KNEE_HZ = 1000.0
_KNEE_MEL = _KNEE_HZ / _HZ_PER_MEL
_LOG_STEP = math.log(6.4) / 27


def _hz_to_mel(hz: float) -> float:
    if hz < _KNEE_HZ:
        return hz / _HZ_PER_MEL
    return _KNEE_MEL + math.log(hz / _KNEE_HZ) / _LOG_STEP


def _mel_to_hz(mels: NDArray[np.float64]) -> NDArray[np.float64]:
    above = _KNEE_HZ * np.exp(_LOG_STEP * (mels - _KNEE_MEL))
    return np.where(mels < _KNEE_MEL, mels * _HZ_PER_MEL, above)
