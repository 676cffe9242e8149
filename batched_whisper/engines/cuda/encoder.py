"""The audio encoder: a batch of windows of one audio context, to hidden states.

Windows of one context go together without padding; on a GPU that pays, because a single short
window does not fill it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812

from batched_whisper.engines.cuda.layers import (
    Layer,
    LayerNorm,
    Perceptron,
    Weights,
    convolved,
    merge,
    split,
)
from batched_whisper.engines.stand_ins import Layout
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
        self._laid_out: dict[Layout, tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]] = {}

    def __call__(self, features: torch.Tensor, laid_out: Layout) -> torch.Tensor:
        """``[batch, n_mels, frames]`` to ``[batch, n, width]``, as the windows are laid out."""
        frames, places, scores = self._on_device(laid_out)
        x = convolved(features.transpose(1, 2), self._first, 1)
        x = convolved(x, self._second, 2)
        x = x[:, frames] + places
        for block in self._blocks:
            x = self._run(block, x, scores)
        return self._norm(x)

    def _on_device(
        self, laid_out: Layout
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """A layout's frames, embedded positions and scores; None where all scores are 0.

        Kept, for a copy waits for the device's work before it; there are few different ones.
        """
        if laid_out not in self._laid_out:
            frames, positions, scores = (
                torch.from_numpy(array).to(self._positions.device)
                for array in (laid_out.frames, laid_out.positions, laid_out.scores)
            )
            mask = (
                scores.to(self._positions.dtype)[None, None, None] if laid_out.log_count else None
            )
            self._laid_out[laid_out] = (frames.long(), self._positions[positions.long()], mask)
        return self._laid_out[laid_out]

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
