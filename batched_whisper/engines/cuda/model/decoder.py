"""The text decoder: single tokens of any slots to logits, with keys and values in a cache.

A pass is a flat list of tokens, each with its slot and its position in the text. Every layer writes
all new keys and values before it reads any, and a token attends up to its own position. So a prompt
of many tokens of one slot and one token each of many slots are the same computation.

Shapes depend only on the number of tokens, so a pass can be recorded and replayed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812

from batched_whisper.engines.cuda.kv_cache import KVCache
from batched_whisper.engines.cuda.model.attention import (
    DecoderAttention,
    MergedPositions,
    WriteCrossKV,
    WriteSelfKV,
)
from batched_whisper.engines.cuda.model.layers import (
    Layer,
    LayerNorm,
    Mlp,
    Weights,
    add_deferred_bias,
    merge,
    split,
)
from batched_whisper.engines.cuda.packed_batch import PackedBatch
from batched_whisper.engines.merged_padding import Layout
from batched_whisper.models.checkpoint import AlignmentHead
from batched_whisper.models.dimensions import Dimensions

_COLUMNS = 64
"""Rows of logits are padded to a multiple of this many: libraries have faster products for those.
"""


@dataclass(frozen=True)
class _DecoderBlock:
    self_norm: LayerNorm
    self_qkv: Layer  # queries, keys and values side by side
    self_out: Layer
    cross_norm: LayerNorm
    cross_queries: Layer
    cross_kv: Layer  # keys and values of the encoded audio side by side
    cross_out: Layer
    mlp: Mlp


@dataclass(frozen=True)
class TeacherForced:
    """The decoder's outputs for a given text.

    Attributes:
        logits: ``[n, n_vocab]``.
        attention_weights: ``[heads, n, positions]``, the cross-attention of the requested heads.
    """

    logits: torch.Tensor
    attention_weights: torch.Tensor


class Decoder:
    """Runs the decoder over a cache.

    Args:
        weights: the checkpoint's weights.
        sizes: the model's dimensions.
        decoder_attention: attention over the cache.
        write_cross_kv: writes keys and values of audio to the cache.
        write_self_kv: writes keys and values of tokens to the cache.
    """

    def __init__(
        self,
        weights: Weights,
        sizes: Dimensions,
        decoder_attention: DecoderAttention,
        write_cross_kv: WriteCrossKV,
        write_self_kv: WriteSelfKV,
    ) -> None:
        self.n_vocab = sizes.n_vocab
        self._n_heads = sizes.n_text_head
        self._decoder_attention, self._write_cross_kv, self._write_self_kv = (
            decoder_attention,
            write_cross_kv,
            write_self_kv,
        )
        tokens = weights.tensor("decoder.token_embedding.weight")
        self.n_columns = -(-sizes.n_vocab // _COLUMNS) * _COLUMNS
        """Columns of `logits`: the vocabulary, padded."""
        self._tokens = F.pad(tokens, (0, 0, 0, self.n_columns - sizes.n_vocab))
        self._positions = weights.tensor("decoder.positional_embedding")
        self._blocks: list[_DecoderBlock] = []
        deferred_bias: torch.Tensor | None = None
        for i in range(sizes.n_text_layer):
            block = _decoder_block(weights, i, deferred_bias)
            self._blocks.append(block)
            for layer in (block.self_out, block.cross_out, block.mlp.second):
                deferred_bias = add_deferred_bias(deferred_bias, layer)
        self._norm = weights.layer_norm("decoder.ln", deferred_bias)
        self._has_float32_output = _has_float32_output(weights.device, weights.dtype)

    def write_cross_kv(self, cache: KVCache, hidden: torch.Tensor, batch: PackedBatch) -> None:
        """Write the encoder's output, ``hidden`` ``[n_positions, width]``, to the cache."""
        for i, block in enumerate(self._blocks):
            pair = block.cross_kv(hidden).unflatten(-1, (2, self._n_heads, -1))
            self._write_cross_kv(pair, batch, cache.layer_cross_kv(i))
        cache.set_layouts(batch)

    def logits(
        self,
        cache: KVCache,
        tokens: torch.Tensor,
        slots: torch.Tensor,
        positions: torch.Tensor,
        out: torch.Tensor,
    ) -> None:
        """Compute logits after each token into ``out`` ``[n, n_columns]`` float32.

        ``tokens``, ``slots`` and ``positions`` are ``[n]``. Tokens of one slot have different
        positions, and all positions before them are in the cache or in this pass.
        """
        x = self._tokens[tokens] + self._positions[positions]
        lengths, contexts = positions + 1, cache.contexts[slots]
        merged = MergedPositions(cache.n_own[slots], cache.log_sizes[slots])
        for i, block in enumerate(self._blocks):
            self_kv, cross_kv = cache.layer_self_kv(i), cache.layer_cross_kv(i)
            heads = block.self_qkv(block.self_norm(x)).unflatten(-1, (3, self._n_heads, -1))
            self._write_self_kv(heads, self_kv, slots, positions)
            attended = self._decoder_attention(heads[:, 0], self_kv, slots, lengths)
            block.self_out.add_to(x, attended.flatten(1))
            queries = block.cross_queries(block.cross_norm(x)).unflatten(-1, (self._n_heads, -1))
            attended = self._decoder_attention(queries, cross_kv, slots, contexts, merged)
            block.cross_out.add_to(x, attended.flatten(1))
            block.mlp.add_to(x)
        self._project(x, out)

    def teacher_forced(
        self,
        cache: KVCache,
        slot: int,
        window_layout: Layout,
        tokens: torch.Tensor,
        alignment_heads: tuple[AlignmentHead, ...],
    ) -> TeacherForced:
        """Run a given text on a slot's audio and return the alignment heads' weights.

        The slot's text is not changed.

        Args:
            cache: the cache, which is only read.
            slot: the slot with the audio.
            window_layout: the layout of its positions.
            tokens: ``[n]``.
            alignment_heads: the heads whose weights are returned, in this order.
        """
        x = self._tokens[tokens] + self._positions[: len(tokens)]
        attention_weights: dict[int, torch.Tensor] = {}
        aligning = {head.layer for head in alignment_heads}
        scores = torch.from_numpy(window_layout.scores)[None, None, None].to(x.device, x.dtype)
        for i, block in enumerate(self._blocks):
            parts = block.self_qkv(block.self_norm(x))[None].chunk(3, -1)
            queries, keys, values = (split(part, self._n_heads) for part in parts)
            attended = F.scaled_dot_product_attention(queries, keys, values, is_causal=True)
            block.self_out.add_to(x, merge(attended)[0])
            queries = split(block.cross_queries(block.cross_norm(x))[None], self._n_heads)
            keys, values = cache.slot_cross_kv(i, slot, len(window_layout))
            if i in aligning:
                attention_weights[i] = _attention_weights(queries, keys, scores)[0]
                attended = attention_weights[i].to(values.dtype) @ values
            else:
                attended = F.scaled_dot_product_attention(queries, keys, values, scores)
            block.cross_out.add_to(x, merge(attended)[0])
            block.mlp.add_to(x)
        heads = [attention_weights[head.layer][head.head] for head in alignment_heads]
        logits = torch.empty((len(tokens), self.n_columns), device=x.device)
        self._project(x, logits)
        return TeacherForced(logits[:, : self.n_vocab], torch.stack(heads))

    def _project(self, x: torch.Tensor, out: torch.Tensor) -> None:
        """Compute float32 logits, also from 16-bit inputs: in 16 bits, close tokens would tie."""
        normed = self._norm(x)
        if self._has_float32_output:
            torch.mm(normed, self._tokens.T, out_dtype=torch.float32, out=out)
        else:
            out.copy_(F.linear(normed, self._tokens))


def _has_float32_output(device: torch.device, dtype: torch.dtype) -> bool:
    """Return whether PyTorch outputs a product of this type in float32 without a separate pass."""
    if dtype is torch.float32 or device.type != "cuda":
        return False
    some = torch.zeros((16, 16), dtype=dtype, device=device)
    try:
        torch.mm(some, some, out_dtype=torch.float32, out=some.float())
    except (TypeError, RuntimeError):  # PyTorch before 2.8, or the GPU cannot
        return False
    return True


def _attention_weights(
    queries: torch.Tensor, keys: torch.Tensor, scores: torch.Tensor
) -> torch.Tensor:
    """Compute attention weights after the softmax, ``[batch, heads, n, positions]`` float32."""
    products = (queries @ keys.transpose(-1, -2)).float() * queries.shape[-1] ** -0.5
    return (products + scores).softmax(-1)


def _decoder_block(weights: Weights, i: int, deferred_bias: torch.Tensor | None) -> _DecoderBlock:
    name = f"decoder.blocks.{i}"
    self_attn, cross_attn = f"{name}.attn", f"{name}.cross_attn"
    self_out, cross_out = weights.linear(f"{self_attn}.out"), weights.linear(f"{cross_attn}.out")
    after_self = add_deferred_bias(deferred_bias, self_out)
    return _DecoderBlock(
        weights.layer_norm(f"{self_attn}_ln", deferred_bias),
        weights.linear(f"{self_attn}.query", f"{self_attn}.key", f"{self_attn}.value"),
        self_out,
        weights.layer_norm(f"{cross_attn}_ln", after_self),
        weights.linear(f"{cross_attn}.query"),
        weights.linear(f"{cross_attn}.key", f"{cross_attn}.value"),
        cross_out,
        weights.mlp(name, add_deferred_bias(after_self, cross_out)),
    )
