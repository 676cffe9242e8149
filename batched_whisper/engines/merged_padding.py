"""What stands for the silent rest of a window whose audio context is shorter than the full one.

Whisper was trained on windows of 30 s, of which a short sound fills the beginning. The silence
after it is not nothing: encoder and decoder attend to it, and without it small models loop and
noisy words are heard otherwise. But all of it says the same. Attention over n equal keys is
attention over one of them with log n added to its score, and the positions of the rest differ in
nothing but their place. So a few of them, spread evenly, stand for all: a window then costs as
much as its sound is long, and is heard nearly as with its whole silence (docs/lab-log.md has both
figures).

It knows numbers of positions, and nothing of any device.
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
"""Feature frames of silence behind the sound: the convolutions hear nothing else in the middle."""


@dataclass(frozen=True, eq=False)
class Layout:
    """The positions of an encoded window: its own first, then those that stand for its rest.

    Attributes:
        n_own: how many are the window's own.
        frames: ``[n]`` int32, which vector of the convolved features (`append_silence`) each gets.
        positions: ``[n]`` int32, its place in the 30 s, for the positional embedding.
        scores: ``[n]`` float32, added to the score of its key wherever it is attended to: the
            natural logarithm of how many positions it stands for; 0 for the window's own.
    """

    n_own: int
    frames: NDArray[np.int32]
    positions: NDArray[np.int32]
    scores: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def log_size(self) -> float:
        """The score of every stand-in; 0 where all of them stand for themselves."""
        return float(self.scores[-1])

    @property
    def n_frames(self) -> int:
        """Of the window's features `append_silence`."""
        return 2 * self.n_own + (_SILENT_FRAMES if len(self) > self.n_own else 0)


@cache
def layout(audio_context: int, full: int) -> Layout:
    """How a window of that many positions is encoded by a model with ``full`` of them.

    Where no more than `N_MERGED_POSITIONS` are missing, each of those stands for itself.
    """
    n_missing = full - audio_context
    n_merged = min(N_MERGED_POSITIONS, n_missing)
    own = np.arange(audio_context)
    bounds = audio_context + np.arange(n_merged + 1) * n_missing // max(1, n_merged)
    middles = (bounds[:-1] + bounds[1:] - 1) // 2
    silence = np.full(n_merged, audio_context + 1)  # the only one that hears silence alone
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
    """A window's features as `Layout.frames` counts them: with silence behind, if there is room.

    ``[n_mels, 2 * context]`` to ``[n_mels, 2 * context + 6]``; those of a full window as they are.
    """
    n_frames = features.shape[1]
    return features if n_frames == 2 * full else pad_features(features, n_frames + _SILENT_FRAMES)


def renormalise_own(weights: NDArray[np.float32], n_own: int) -> NDArray[np.float32]:
    """Attention weights over the window's own positions alone, as if there were no others.

    ``[..., n]`` to ``[..., n_own]``, summing to 1 again: what a softmax over those alone gives.
    """
    own = weights[..., :n_own]
    total = np.maximum(own.sum(-1, keepdims=True), np.finfo(np.float32).tiny)
    found: NDArray[np.float32] = own / total
    return found
