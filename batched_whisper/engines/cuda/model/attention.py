"""How queries meet keys and values: the definitions, in plain PyTorch.

The Triton kernels of `decoder_kernels`, `int8_attention` and `encoder_kernels` compute the same on
a GPU without copying a key; these are what they are tested against, and what runs where there is no
Triton.
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
"""Of a step of hundreds of rows all together would be gigabytes."""


class MergedPositions(NamedTuple):
    """That a query's later positions stand for several each.

    Positions from ``n_own`` ``[n]`` on have ``log_sizes`` ``[n]`` float32 added to their scores.
    """

    n_own: torch.Tensor
    log_sizes: torch.Tensor


class DecoderAttention(Protocol):
    """Softmax attention of single queries over rows of a table."""

    def __call__(
        self,
        queries: torch.Tensor,
        table: LayerKV,
        rows: torch.Tensor,
        lengths: torch.Tensor,
        merged: MergedPositions | None = None,
    ) -> torch.Tensor:
        """What each query hears, ``[n, heads, head_width]``.

        Args:
            queries: ``[n, heads, head_width]``, not scaled.
            table: of one layer.
            rows: ``[n]``, which row of the table is a query's.
            lengths: ``[n]``, how many positions of that row it hears, at least 1.
            merged: where not all of them count once.
        """


class EncoderAttention(Protocol):
    """Softmax attention of all positions of windows over those of their own window."""

    def __call__(self, heads: torch.Tensor, batch: PackedBatch) -> torch.Tensor:
        """``[n_positions, 3, heads, head_width]``, queries, keys and values, to ``[.., width]``.

        What becomes of positions that are no window's is padding_slot's business.
        """


class WriteCrossKV(Protocol):
    """Takes the keys and values of windows into a table."""

    def __call__(self, pair: torch.Tensor, batch: PackedBatch, table: LayerKV) -> None:
        """``pair`` is ``[n_positions, 2, heads, head_width]``; ``table`` is one layer's."""


class WriteSelfKV(Protocol):
    """Takes the keys and values of single tokens into a table."""

    def __call__(
        self, heads: torch.Tensor, table: LayerKV, rows: torch.Tensor, positions: torch.Tensor
    ) -> None:
        """Token ``i`` goes to position ``positions[i]`` of row ``rows[i]``.

        ``heads`` is ``[n, 3, heads, head_width]``, queries, keys and values; ``table`` is one
        layer's, not in 8 bits. No two tokens go to the same place, but for those of padding_slot's row.
        """


def decoder_attention(
    queries: torch.Tensor,
    table: LayerKV,
    rows: torch.Tensor,
    lengths: torch.Tensor,
    merged: MergedPositions | None = None,
) -> torch.Tensor:
    """See `DecoderAttention`; copies the rows' keys and values, of some rows at once."""
    if len(rows) > ROWS_PER_COPY:
        cut = partial(torch.split, split_size_or_sections=ROWS_PER_COPY)
        merged_parts = repeat(None) if merged is None else map(MergedPositions, *map(cut, merged))
        parts = zip(cut(queries), cut(rows), cut(lengths), merged_parts, strict=False)
        return torch.cat([decoder_attention(q, table, r, n, few) for q, r, n, few in parts])
    longest = table.numbers.shape[3]
    if queries.device.type == "cpu":  # elsewhere asking would make the host wait
        longest = int(lengths.max())
    keys, values = table.numbers[:, rows, :, :longest].to(queries.dtype)
    if table.scales is not None:
        key_scales, value_scales = table.scales[:, rows]
        queries = (queries * key_scales).to(queries.dtype)
    scores = (keys @ queries[..., None])[..., 0].float() * queries.shape[-1] ** -0.5
    positions = torch.arange(longest, device=queries.device)
    if merged is not None:
        many = positions >= merged.n_own[:, None]  # [n, longest]
        scores = scores + (many * merged.log_sizes[:, None])[:, None]
    hidden = positions >= lengths[:, None]
    weights = scores.masked_fill(hidden[:, None], float("-inf")).softmax(-1)
    attended = (weights.to(values.dtype)[:, :, None] @ values)[:, :, 0]
    return attended if table.scales is None else (attended * value_scales).to(queries.dtype)


def encoder_attention(heads: torch.Tensor, batch: PackedBatch) -> torch.Tensor:
    """See `EncoderAttention`; one window after another, and the host looks where each of them lies."""
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


def write_cross_kv(pair: torch.Tensor, batch: PackedBatch, table: LayerKV) -> None:
    """See `WriteCrossKV`. In 8 bits every channel of a window has a scale of its own: its peak is 127."""
    slots = batch.slots[batch.windows]
    if table.scales is not None:
        peaks = pair.new_zeros((MAX_WINDOWS + 1, *pair.shape[1:]), dtype=torch.float32)
        whose = batch.windows.long()[:, None, None, None].expand(pair.shape)
        peaks.scatter_reduce_(0, whose, pair.abs().float(), "amax")
        scales, factors = int8_scales(peaks)
        table.scales[:, batch.slots] = scales.transpose(0, 1)
        pair = (pair.float() * factors[batch.windows]).round().to(torch.int8)
    # The positions' two indices are apart, so their common axis comes first.
    table.numbers[:, slots, :, batch.offsets] = pair.to(table.numbers.dtype)


def write_self_kv(
    heads: torch.Tensor, table: LayerKV, rows: torch.Tensor, positions: torch.Tensor
) -> None:
    """See `WriteSelfKV`."""
    # Rows and positions are apart, so their common axis comes first: [n, 2, heads, width].
    table.numbers[:, rows, :, positions] = heads[:, 1:]
