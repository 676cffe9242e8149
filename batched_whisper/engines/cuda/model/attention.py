"""Attention over keys and values in plain PyTorch: the definitions.

The Triton kernels of `decoder_kernels`, `int8_attention` and `encoder_kernels` compute the same on
a GPU without copying a key. They are tested against these functions, which run where Triton is not
available.
"""

from __future__ import annotations

from functools import partial
from itertools import repeat
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F  # noqa: N812

from batched_whisper.engines.cuda.kv_cache import LayerKV, int8_scales
from batched_whisper.engines.cuda.packed_batch import MAX_WINDOWS, PackedBatch

ROWS_PER_COPY = 64
"""Rows whose keys and values are copied at once: those of hundreds of rows would be gigabytes."""


class MergedPositions(NamedTuple):
    """The merged positions of each query's row (proportional attention, Bolya et al. 2022).

    Positions from ``n_own`` ``[n]`` on have ``log_sizes`` ``[n]`` float32 added to their scores.
    """

    n_own: torch.Tensor
    log_sizes: torch.Tensor


class DecoderAttention(Protocol):
    """Softmax attention of single queries over rows of a layer's keys and values."""

    def __call__(
        self,
        queries: torch.Tensor,
        layer_kv: LayerKV,
        rows: torch.Tensor,
        lengths: torch.Tensor,
        merged: MergedPositions | None = None,
    ) -> torch.Tensor:
        """Attend; returns the weighted sum of values per query, ``[n, heads, head_width]``.

        Args:
            queries: ``[n, heads, head_width]``, not scaled.
            layer_kv: one layer's keys and values.
            rows: ``[n]``, the row of each query.
            lengths: ``[n]``, the number of positions of that row to attend to, at least 1.
            merged: the rows' merged positions, if they have any.
        """


class EncoderAttention(Protocol):
    """Softmax attention of all positions over those of their own window."""

    def __call__(self, heads: torch.Tensor, batch: PackedBatch) -> torch.Tensor:
        """Attend; returns ``[n_positions, width]``, undefined at padding positions.

        ``heads`` is ``[n_positions, 3, heads, head_width]``: queries, keys and values.
        """


class WriteCrossKV(Protocol):
    """Writes the keys and values of windows to the cache."""

    def __call__(self, pair: torch.Tensor, batch: PackedBatch, layer_kv: LayerKV) -> None:
        """``pair`` is ``[n_positions, 2, heads, head_width]``; ``layer_kv`` is one layer's."""


class WriteSelfKV(Protocol):
    """Writes the keys and values of single tokens to the cache."""

    def __call__(
        self, heads: torch.Tensor, layer_kv: LayerKV, rows: torch.Tensor, positions: torch.Tensor
    ) -> None:
        """Write token ``i`` to position ``positions[i]`` of row ``rows[i]``.

        ``heads`` is ``[n, 3, heads, head_width]``, queries, keys and values; ``layer_kv`` is one
        layer's, not int8. No two tokens may have the same position, except in the padding slot.
        """


def decoder_attention(
    queries: torch.Tensor,
    layer_kv: LayerKV,
    rows: torch.Tensor,
    lengths: torch.Tensor,
    merged: MergedPositions | None = None,
) -> torch.Tensor:
    """See `DecoderAttention`; copies keys and values, of some rows at a time."""
    if len(rows) > ROWS_PER_COPY:
        cut = partial(torch.split, split_size_or_sections=ROWS_PER_COPY)
        merged_parts = repeat(None) if merged is None else map(MergedPositions, *map(cut, merged))
        parts = zip(cut(queries), cut(rows), cut(lengths), merged_parts, strict=False)
        return torch.cat([decoder_attention(q, layer_kv, r, n, m) for q, r, n, m in parts])
    longest = layer_kv.numbers.shape[3]
    if queries.device.type == "cpu":  # on a GPU this would make the host wait
        longest = int(lengths.max())
    keys, values = layer_kv.numbers[:, rows, :, :longest].to(queries.dtype)
    if layer_kv.scales is not None:
        key_scales, value_scales = layer_kv.scales[:, rows]
        queries = (queries * key_scales).to(queries.dtype)
    scores = (keys @ queries[..., None])[..., 0].float() * queries.shape[-1] ** -0.5
    positions = torch.arange(longest, device=queries.device)
    if merged is not None:
        is_merged = positions >= merged.n_own[:, None]  # [n, longest]
        scores = scores + (is_merged * merged.log_sizes[:, None])[:, None]
    is_padding = positions >= lengths[:, None]
    weights = scores.masked_fill(is_padding[:, None], float("-inf")).softmax(-1)
    attended = (weights.to(values.dtype)[:, :, None] @ values)[:, :, 0]
    return attended if layer_kv.scales is None else (attended * value_scales).to(queries.dtype)


def encoder_attention(heads: torch.Tensor, batch: PackedBatch) -> torch.Tensor:
    """See `EncoderAttention`; the host reads each window's start, and runs one after another."""
    out = heads.new_zeros((len(heads), heads.shape[2] * heads.shape[3]))
    numbers = (batch.starts, batch.lengths, batch.n_own, batch.log_sizes)
    for start, length, n_own, log_size in zip(*(each.tolist() for each in numbers), strict=True):
        if not length:
            continue
        queries, keys, values = heads[start : start + length].permute(1, 2, 0, 3)[:, None]
        scores = None
        if log_size:
            scores = heads.new_zeros((1, length))
            scores[:, n_own:] = log_size
        attended = F.scaled_dot_product_attention(queries, keys, values, scores)
        out[start : start + length] = attended[0].transpose(0, 1).flatten(1)
    return out


def write_cross_kv(pair: torch.Tensor, batch: PackedBatch, layer_kv: LayerKV) -> None:
    """See `WriteCrossKV`. In int8, the scale of a window's channel maps its peak to 127."""
    slots = batch.slots[batch.windows]
    if layer_kv.scales is not None:
        peaks = pair.new_zeros((MAX_WINDOWS + 1, *pair.shape[1:]), dtype=torch.float32)
        windows = batch.windows.long()[:, None, None, None].expand(pair.shape)
        peaks.scatter_reduce_(0, windows, pair.abs().float(), "amax")
        scales, factors = int8_scales(peaks)
        layer_kv.scales[:, batch.slots] = scales.transpose(0, 1)
        pair = (pair.float() * factors[batch.windows]).round().to(torch.int8)
    # The two index arrays are not adjacent, so their common axis comes first.
    layer_kv.numbers[:, slots, :, batch.offsets] = pair.to(layer_kv.numbers.dtype)


def write_self_kv(
    heads: torch.Tensor, layer_kv: LayerKV, rows: torch.Tensor, positions: torch.Tensor
) -> None:
    """See `WriteSelfKV`."""
    # As above, the common axis comes first: [n, 2, heads, width].
    layer_kv.numbers[:, rows, :, positions] = heads[:, 1:]
