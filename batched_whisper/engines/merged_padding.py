"""Merged positions for the silent remainder of a window with a short audio context.

Whisper was trained on windows of 30 s; a short sound fills only the beginning. The silence after it
is part of what encoder and decoder attend to: without it, small models loop and noisy words are
transcribed differently. But its positions are alike except for their positional embedding. A few of
them, evenly spaced, therefore represent all: attention over n equal keys is attention over one of
them with log n added to its score, which is the proportional attention of Bolya et al. 2022, Token
Merging: Your ViT But Faster. The cost of a window then follows the length of its sound, and its
transcript is nearly that with the whole silence (docs/lab-log.md has both figures).

This module knows numbers of positions, and no device.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from batched_whisper.audio.features import pad_features
from batched_whisper.decoding.audio_context import N_MERGED_POSITIONS
from batched_whisper.types import Features

_SILENT_FRAMES = 6
"""Feature frames of silence after the sound, so that one convolved frame sees silence alone."""


@dataclass(frozen=True, eq=False)
class Layout:
    """The positions of an encoded window: its own, then the merged positions of its silence.

    Attributes:
        n_own: the number of the window's own positions.
        frames: ``[n]`` int32, the index of each position in the convolved features (of
            `append_silence`).
        positions: ``[n]`` int32, its index in the full 30 s, for the positional embedding.
        scores: ``[n]`` float32, added to the attention score of its key: the natural logarithm of
            the number of positions that it represents; 0 for the window's own.
    """

    n_own: int
    frames: NDArray[np.int32]
    positions: NDArray[np.int32]
    scores: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def log_size(self) -> float:
        """The score added to every merged position; 0 if each represents only itself."""
        return float(self.scores[-1])

    @property
    def n_frames(self) -> int:
        """The number of feature frames after `append_silence`."""
        return 2 * self.n_own + (_SILENT_FRAMES if len(self) > self.n_own else 0)


@cache
def layout(audio_context: int, full: int) -> Layout:
    """Return the layout of a window with ``audio_context`` of the model's ``full`` positions.

    If at most `N_MERGED_POSITIONS` are missing, each of them represents only itself.
    """
    n_missing = full - audio_context
    n_merged = min(N_MERGED_POSITIONS, n_missing)
    own = np.arange(audio_context)
    bounds = audio_context + np.arange(n_merged + 1) * n_missing // max(1, n_merged)
    middles = (bounds[:-1] + bounds[1:] - 1) // 2
    silence = np.full(n_merged, audio_context + 1)  # the one convolved frame of silence alone
    log_size = math.log(n_missing / n_merged) if n_merged else 0.0
    return Layout(
        n_own=audio_context,
        frames=np.concatenate([own, silence]).astype(np.int32),
        positions=np.concatenate([own, middles]).astype(np.int32),
        scores=np.concatenate([np.zeros(audio_context), np.full(n_merged, log_size)]).astype(
            np.float32
        ),
    )


def append_silence(features: Features, full: int) -> Features:
    """Append the frames of silence that `Layout.frames` refers to, unless the window is full.

    ``[n_mels, 2 * context]`` to ``[n_mels, 2 * context + 6]``; a full window is returned as it is.
    """
    n_frames = features.shape[1]
    return features if n_frames == 2 * full else pad_features(features, n_frames + _SILENT_FRAMES)


def renormalise_own(weights: NDArray[np.float32], n_own: int) -> NDArray[np.float32]:
    """Renormalise attention weights over the window's own positions.

    ``[..., n]`` to ``[..., n_own]``, summing to 1: what a softmax over those positions alone gives.
    """
    own = weights[..., :n_own]
    total = np.maximum(own.sum(-1, keepdims=True), np.finfo(np.float32).tiny)
    renormalised: NDArray[np.float32] = own / total
    return renormalised
