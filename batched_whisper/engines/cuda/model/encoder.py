"""The audio encoder: windows laid end to end, to hidden states."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from batched_whisper.engines.cuda.model.attention import Listen
from batched_whisper.engines.cuda.model.layers import (
    Layer,
    LayerNorm,
    Perceptron,
    Weights,
    convolved,
    owing,
)
from batched_whisper.engines.cuda.packed_batch import Company
from batched_whisper.models.dimensions import Dimensions


@dataclass(frozen=True)
class _Block:
    norm: LayerNorm
    heads: Layer  # queries, keys and values side by side
    out: Layer
    perceptron: Perceptron


class Encoder:
    """Encodes windows.

    Args:
        weights: whose linear layers may be in 8 bits; the convolutions never are.
        sizes: of the model.
        listen: how positions meet those of their window.
    """

    def __init__(self, weights: Weights, sizes: Dimensions, listen: Listen) -> None:
        self._n_heads = sizes.n_audio_head
        self._listen = listen
        self._dtype = weights.dtype
        self._first = weights.convolution("encoder.conv1")
        self._second = weights.convolution("encoder.conv2")
        self._positions = weights.tensor("encoder.positional_embedding")
        self._blocks: list[_Block] = []
        owed: torch.Tensor | None = None
        for i in range(sizes.n_audio_layer):
            block = _block(weights, i, owed)
            self._blocks.append(block)
            owed = owing(owing(owed, block.out), block.perceptron.second)
        self._norm = weights.layer_norm("encoder.ln_post", owed)

    def __call__(self, features: torch.Tensor, company: Company) -> torch.Tensor:
        """``[n_mels, n_frames]`` float32 to ``[n_positions, width]``."""
        real = company.real_frames
        # What lies between windows is whatever was there before, and has to be zeros.
        sound = features.masked_fill(~real, 0).T.to(self._dtype)
        x = convolved(sound, self._first, 1).masked_fill(~real[:, None], 0)
        x = convolved(x, self._second, 2)
        x = x[company.frames] + self._positions[company.places]
        for block in self._blocks:
            heads = block.heads(block.norm(x)).unflatten(-1, (3, self._n_heads, -1))
            block.out.add_to(x, self._listen(heads, company))
            block.perceptron.add_to(x)
        return self._norm(x)


def _block(weights: Weights, i: int, owed: torch.Tensor | None) -> _Block:
    name = f"encoder.blocks.{i}"
    out = weights.linear(f"{name}.attn.out")
    return _Block(
        weights.layer_norm(f"{name}.attn_ln", owed),
        weights.linear(*(f"{name}.attn.{part}" for part in ("query", "key", "value"))),
        out,
        weights.perceptron(name, owing(owed, out)),
    )
