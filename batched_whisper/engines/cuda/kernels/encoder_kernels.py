"""Triton kernels of the encoder: attention within windows, layer norm, and writing keys and values.

Each computes what a definition in plain PyTorch does (`attention.encoder_attention`,
`layers.normalise`, `attention.write_cross_kv`), and is tested against it by Triton's interpreter.

*Attention.* A program has one head and a tile of queries of one window, and loops over the window's
keys with an online softmax (Dao et al. 2022, FlashAttention; Milakov and Gimelshein 2018). Windows
are packed, so only the last tile of each is padded. Scores are powers of two, which the hardware
computes. Merged positions and the last, partly filled block of keys come after all others, so that
the loop over those needs no masks.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from batched_whisper.engines.cuda.kernels.launch_config import (
    ENCODER_ATTENTION,
    ENCODER_ATTENTION_FLOAT32,
    LAUNCH_OPTIONS,
    WRITE_CROSS_KV,
    EncoderAttentionLaunch,
    WriteCrossKVLaunch,
)
from batched_whisper.engines.cuda.kv_cache import INT8_MAX, MIN_PEAK, LayerKV
from batched_whisper.engines.cuda.model.layers import LAYER_NORM_EPSILON
from batched_whisper.engines.cuda.packed_batch import MAX_WINDOWS, TILE, PackedBatch

LOG2_E = tl.constexpr(1.4426950408889634)
NEAREST = tl.constexpr(1.5 * 2**23)
"""A float32 of this size has no fractional bits: adding it rounds to nearest, ties to even."""


@triton.jit
def _attend_to_keys(
    query,
    keys,
    values,
    start,
    stop,
    end,
    own,
    log_size,
    best,
    total,
    acc,
    row_stride,
    scale,
    WIDTH: tl.constexpr,  # noqa: N803
    BLOCK: tl.constexpr,  # noqa: N803
    N_STAGES: tl.constexpr,  # noqa: N803
    MASKED: tl.constexpr,  # noqa: N803
    PRECISION: tl.constexpr,  # noqa: N803
):
    """Attend to the keys from ``start`` to before ``stop``, of a window that ends at ``end``."""
    width = tl.arange(0, WIDTH)
    lane = tl.arange(0, BLOCK)
    for first in tl.range(start, stop, BLOCK, num_stages=N_STAGES):
        row = first + lane
        place = row.to(tl.int64)[:, None] * row_stride + width[None, :]
        if MASKED:
            is_valid = row < end
            key = tl.load(keys + place, mask=is_valid[:, None], other=0.0)
            value = tl.load(values + place, mask=is_valid[:, None], other=0.0)
        else:
            key = tl.load(keys + place)
            value = tl.load(values + place)
        score = tl.dot(query, tl.trans(key), input_precision=PRECISION)
        if MASKED:
            score = score * scale + tl.where(row >= own, log_size, 0.0)[None, :]
            score = tl.where(is_valid[None, :], score, float("-inf"))
            better = tl.maximum(best, tl.max(score, 1))
            weight = tl.exp2(score - better[:, None])
        else:  # a product and a difference are one instruction
            better = tl.maximum(best, tl.max(score, 1) * scale)
            weight = tl.exp2(score * scale - better[:, None])
        kept = tl.exp2(best - better)
        total = total * kept + tl.sum(weight, 1)
        acc = acc * kept[:, None]
        acc = tl.dot(weight.to(value.dtype), value, acc, input_precision=PRECISION)
        best = better
    return best, total, acc


@triton.jit
def _encoder_attention_kernel(
    heads,
    out,
    tile_windows,
    tile_firsts,
    starts,
    lengths,
    n_own,
    log_sizes,
    row_stride,
    part_stride,
    out_stride,
    scale,
    WIDTH: tl.constexpr,  # noqa: N803
    TILE_: tl.constexpr,  # noqa: N803
    BLOCK: tl.constexpr,  # noqa: N803
    N_STAGES: tl.constexpr,  # noqa: N803
    PRECISION: tl.constexpr,  # noqa: N803
):
    """Attend with one tile of one window's queries, for one head."""
    head, tile = tl.program_id(0), tl.program_id(1)
    window = tl.load(tile_windows + tile)
    length = tl.load(lengths + window)
    if length == 0:
        return
    start = tl.load(starts + window)
    end = start + length
    own = start + tl.load(n_own + window)
    log_size = tl.load(log_sizes + window) * LOG2_E
    width = tl.arange(0, WIDTH)
    row = tl.load(tile_firsts + tile) + tl.arange(0, TILE_)
    is_valid = row < end
    queries = heads + head * WIDTH
    query = tl.load(
        queries + row.to(tl.int64)[:, None] * row_stride + width[None, :],
        mask=is_valid[:, None],
        other=0.0,
    )
    keys, values = queries + part_stride, queries + 2 * part_stride
    best = tl.full([TILE_], float("-inf"), tl.float32)
    total = tl.zeros([TILE_], tl.float32)
    acc = tl.zeros([TILE_, WIDTH], tl.float32)
    plain = start + (own - start) // BLOCK * BLOCK
    best, total, acc = _attend_to_keys(
        query, keys, values, start, plain, end, own, log_size, best, total, acc,
        row_stride, scale, WIDTH, BLOCK, N_STAGES, False, PRECISION,
    )  # fmt: skip
    best, total, acc = _attend_to_keys(
        query, keys, values, plain, end, end, own, log_size, best, total, acc,
        row_stride, scale, WIDTH, BLOCK, N_STAGES, True, PRECISION,
    )  # fmt: skip
    place = row.to(tl.int64)[:, None] * out_stride + head * WIDTH + width[None, :]
    acc = (acc / total[:, None]).to(out.dtype.element_ty)
    tl.store(out + place, acc, mask=is_valid[:, None])


def encoder_attention(
    heads: torch.Tensor, batch: PackedBatch, launch: EncoderAttentionLaunch | None = None
) -> torch.Tensor:
    """See `attention.EncoderAttention`; the heads' width must be a power of two, 16 or more."""
    launch = launch or (
        ENCODER_ATTENTION_FLOAT32 if heads.dtype is torch.float32 else ENCODER_ATTENTION
    )
    n, _, n_heads, width = heads.shape
    out = torch.empty((n, n_heads * width), dtype=heads.dtype, device=heads.device)
    # Neighbouring programs have heads of the same tile, which share cache lines.
    _encoder_attention_kernel[(n_heads, len(batch.tile_windows))](
        heads,
        out,
        batch.tile_windows,
        batch.tile_firsts,
        batch.starts,
        batch.lengths,
        batch.n_own,
        batch.log_sizes,
        heads.stride(0),
        heads.stride(1),
        out.stride(0),
        width**-0.5 * 1.4426950408889634,
        WIDTH=width,
        TILE_=TILE,
        BLOCK=launch.block,
        N_STAGES=launch.n_stages,
        PRECISION="ieee" if heads.dtype is torch.float32 else "tf32",  # ignored for 16 bits
        num_warps=launch.n_warps,
        **LAUNCH_OPTIONS,
    )
    return out


@triton.jit
def _normalise_kernel(
    rows,
    deferred_bias,
    weight,
    bias,
    out,
    n_columns,
    epsilon,
    BLOCK: tl.constexpr,  # noqa: N803
    HAS_DEFERRED_BIAS: tl.constexpr,  # noqa: N803
):
    """Normalise one row; several, to read weights less often, were slower (docs/lab-log.md)."""
    row, column = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    exists = column < n_columns
    x = tl.load(rows + row * n_columns + column, mask=exists, other=0.0).to(tl.float32)
    if HAS_DEFERRED_BIAS:
        x += tl.load(deferred_bias + column, mask=exists, other=0.0)
    mean = tl.sum(x, 0) / n_columns
    off = tl.where(exists, x - mean, 0.0)
    variance = tl.sum(off * off, 0) / n_columns
    scaled = off / tl.sqrt(variance + epsilon)
    scaled *= tl.load(weight + column, mask=exists, other=0.0)
    scaled += tl.load(bias + column, mask=exists, other=0.0)
    tl.store(out + row * n_columns + column, scaled.to(out.dtype.element_ty), mask=exists)


def normalise(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, deferred_bias: torch.Tensor | None
) -> torch.Tensor:
    """See `layers.Normalise`; rows must be contiguous."""
    n_rows, n_columns = x.shape
    out = torch.empty_like(x)
    _normalise_kernel[(n_rows,)](
        x,
        bias if deferred_bias is None else deferred_bias,
        weight,
        bias,
        out,
        n_columns,
        LAYER_NORM_EPSILON,
        BLOCK=triton.next_power_of_2(n_columns),
        HAS_DEFERRED_BIAS=deferred_bias is not None,
        num_warps=4,
        **LAUNCH_OPTIONS,
    )
    return out


@triton.jit
def _write_cross_kv_kernel(
    pair,
    numbers,
    scales,
    slots,
    starts,
    lengths,
    row_stride,
    pair_stride,
    slot_stride,
    head_stride,
    largest,
    min_peak,
    N_HEADS: tl.constexpr,  # noqa: N803
    WIDTH: tl.constexpr,  # noqa: N803
    BLOCK: tl.constexpr,  # noqa: N803
    HAS_SCALES: tl.constexpr,  # noqa: N803
):
    """Write the keys or values of one head of one window."""
    window, part_head = tl.program_id(0), tl.program_id(1)
    length = tl.load(lengths + window)
    if length == 0:
        return
    part, head = part_head // N_HEADS, part_head % N_HEADS
    slot = tl.load(slots + window).to(tl.int64)
    width, lane = tl.arange(0, WIDTH), tl.arange(0, BLOCK)
    given = pair + tl.load(starts + window).to(tl.int64) * row_stride + part_head * WIDTH
    kept = numbers + part * pair_stride + slot * slot_stride + head * head_stride
    scale = tl.full([WIDTH], 1.0, tl.float32)
    if HAS_SCALES:
        peaks = tl.zeros([BLOCK, WIDTH], tl.float32)
        for first in tl.range(0, length, BLOCK):
            row = first + lane
            x = tl.load(
                given + row[:, None] * row_stride + width[None, :],
                mask=(row < length)[:, None],
                other=0.0,
            )
            peaks = tl.maximum(peaks, tl.abs(x.to(tl.float32)))
        peak = tl.maximum(tl.max(peaks, 0), min_peak)
        scale = largest / peak  # as a factor, to avoid division in the loop
        # The scales have the same axes without the positions.
        n_slots = pair_stride // slot_stride
        of_slot = ((part * n_slots + slot) * N_HEADS + head) * WIDTH
        tl.store(scales + of_slot + width, peak / largest)
    for first in tl.range(0, length, BLOCK):
        row = first + lane
        is_valid = (row < length)[:, None]
        x = tl.load(given + row[:, None] * row_stride + width[None, :], mask=is_valid, other=0.0)
        if HAS_SCALES:  # the rounded integer is then in the lowest bits
            x = (x.to(tl.float32) * scale[None, :] + NEAREST).to(tl.int32, bitcast=True)
        tl.store(
            kept + row[:, None] * WIDTH + width[None, :],
            x.to(numbers.dtype.element_ty),
            mask=is_valid,
        )


def write_cross_kv(
    pair: torch.Tensor,
    batch: PackedBatch,
    layer_kv: LayerKV,
    launch: WriteCrossKVLaunch = WRITE_CROSS_KV,
) -> None:
    """See `attention.WriteCrossKV`; padding positions are not written."""
    _, _, n_heads, width = pair.shape
    numbers, scales = layer_kv
    _write_cross_kv_kernel[(MAX_WINDOWS, 2 * n_heads)](
        pair,
        numbers,
        numbers if scales is None else scales,
        batch.slots,
        batch.starts,
        batch.lengths,
        pair.stride(0),
        numbers.stride(0),
        numbers.stride(1),
        numbers.stride(2),
        INT8_MAX,
        MIN_PEAK,
        N_HEADS=n_heads,
        WIDTH=width,
        BLOCK=launch.block,
        HAS_SCALES=scales is not None,
        num_warps=launch.n_warps,
        **LAUNCH_OPTIONS,
    )
