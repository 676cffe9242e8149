"""The audio encoder: a batch of windows, to hidden states."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812

from batched_whisper.engines.cuda.company import Company
from batched_whisper.engines.cuda.layers import (
    Layer,
    LayerNorm,
    Perceptron,
    Weights,
    convolved,
    merge,
    split,
)
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
    """

    def __init__(self, weights: Weights, sizes: Dimensions) -> None:
        self._n_heads = sizes.n_audio_head
        self._first = weights.convolution("encoder.conv1")
        self._second = weights.convolution("encoder.conv2")
        self._positions = weights.tensor("encoder.positional_embedding")
        self._blocks = [_block(weights, i) for i in range(sizes.n_audio_layer)]
        self._norm = weights.layer_norm("encoder.ln_post")

    def __call__(self, features: torch.Tensor, company: Company) -> torch.Tensor:
        """``[batch, n_mels, frames]`` to ``[batch, n, width]``, as the windows are laid out."""
        x = convolved(features.transpose(1, 2), self._first, 1)
        x = convolved(x, self._second, 2)
        each = torch.arange(len(company), device=x.device)[:, None]
        x = x[each, company.frames] + self._positions[company.positions]
        for block in self._blocks:
            x = self._run(block, x, company.scores)
        return self._norm(x)

    def _run(self, block: _Block, x: torch.Tensor, scores: torch.Tensor | None) -> torch.Tensor:
        queries, keys, values = block.heads(block.norm(x)).chunk(3, -1)
        heard = F.scaled_dot_product_attention(
            split(queries, self._n_heads),
            split(keys, self._n_heads),
            split(values, self._n_heads),
            scores,  # none is faster: a mask keeps PyTorch from its fastest kernel
        )
        x = x + block.out(merge(heard))
        return x + block.perceptron(x)


def _block(weights: Weights, i: int) -> _Block:
    name = f"encoder.blocks.{i}"
    return _Block(
        weights.layer_norm(f"{name}.attn_ln"),
        weights.linear(*(f"{name}.attn.{part}" for part in ("query", "key", "value"))),
        weights.linear(f"{name}.attn.out"),
        weights.perceptron(name),
    )
