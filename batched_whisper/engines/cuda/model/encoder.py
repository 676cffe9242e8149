"""The audio encoder: packed windows to hidden states."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from batched_whisper.engines.cuda.model.attention import EncoderAttention
from batched_whisper.engines.cuda.model.layers import (
    Layer,
    LayerNorm,
    Mlp,
    Weights,
    add_deferred_bias,
    convolve,
)
from batched_whisper.engines.cuda.packed_batch import PackedBatch
from batched_whisper.models.dimensions import Dimensions


@dataclass(frozen=True)
class _EncoderBlock:
    norm: LayerNorm
    qkv: Layer  # queries, keys and values side by side
    out: Layer
    mlp: Mlp


class Encoder:
    """Encodes windows.

    Args:
        weights: the checkpoint's weights; linear layers may be fp8, the convolutions never are.
        sizes: the model's dimensions.
        encoder_attention: attention within windows.
    """

    def __init__(
        self, weights: Weights, sizes: Dimensions, encoder_attention: EncoderAttention
    ) -> None:
        self._n_heads = sizes.n_audio_head
        self._encoder_attention = encoder_attention
        self._dtype = weights.dtype
        self._first = weights.convolution("encoder.conv1")
        self._second = weights.convolution("encoder.conv2")
        self._positions = weights.tensor("encoder.positional_embedding")
        self._blocks: list[_EncoderBlock] = []
        deferred_bias: torch.Tensor | None = None
        for i in range(sizes.n_audio_layer):
            block = _encoder_block(weights, i, deferred_bias)
            self._blocks.append(block)
            deferred_bias = add_deferred_bias(
                add_deferred_bias(deferred_bias, block.out), block.mlp.second
            )
        self._norm = weights.layer_norm("encoder.ln_post", deferred_bias)

    def __call__(self, features: torch.Tensor, batch: PackedBatch) -> torch.Tensor:
        """Encode ``[n_mels, n_frames]`` float32 to ``[n_positions, width]``."""
        in_window = batch.is_window_frame
        # The gaps between windows hold old values and must be zeros.
        frames = features.masked_fill(~in_window, 0).T.to(self._dtype)
        x = convolve(frames, self._first, 1).masked_fill(~in_window[:, None], 0)
        x = convolve(x, self._second, 2)
        x = x[batch.frames] + self._positions[batch.positions]
        for block in self._blocks:
            qkv = block.qkv(block.norm(x)).unflatten(-1, (3, self._n_heads, -1))
            block.out.add_to(x, self._encoder_attention(qkv, batch))
            block.mlp.add_to(x)
        return self._norm(x)


def _encoder_block(weights: Weights, i: int, deferred_bias: torch.Tensor | None) -> _EncoderBlock:
    name = f"encoder.blocks.{i}"
    out = weights.linear(f"{name}.attn.out")
    return _EncoderBlock(
        weights.layer_norm(f"{name}.attn_ln", deferred_bias),
        weights.linear(*(f"{name}.attn.{part}" for part in ("query", "key", "value"))),
        out,
        weights.mlp(name, add_deferred_bias(deferred_bias, out)),
    )
