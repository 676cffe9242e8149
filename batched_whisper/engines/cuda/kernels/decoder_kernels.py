"""Triton kernels of the decoder: each reads its numbers once.

`decoder_attention` computes `attention.decoder_attention` without copying keys, `choose` computes
`token_choice.choose` in one pass over the logits. Both are tested against those on a CPU, by
Triton's interpreter.

*Attention.* A program has one head of one query and a part of its positions. Each lane keeps its
own softmax over every ``BLOCK``-th position (Milakov and Gimelshein 2018, Online normalizer
calculation for softmax), so that threads exchange nothing until the end. Then the results of the
lanes are combined, and in a second kernel those of the parts (as in Dao et al. 2023,
Flash-Decoding). It uses no matrix product: with one query each key is used once, and reading it
takes longer.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from batched_whisper.engines.cuda.kernels.int8_attention import LOWEST, int8_attention_kernel
from batched_whisper.engines.cuda.kernels.launch_config import (
    LAUNCH_OPTIONS,
    DecoderAttentionLaunch,
    decoder_attention_launch,
)
from batched_whisper.engines.cuda.kv_cache import LayerKV
from batched_whisper.engines.cuda.model.attention import MergedPositions
from batched_whisper.engines.cuda.model.decode_inputs import Field, bits_to_float
from batched_whisper.engines.cuda.model.token_choice import Pick, decide


@triton.jit
def _attention_kernel(
    queries,
    layer_kv,
    rows,
    lengths,
    n_own,
    log_sizes,
    out,
    highest,
    totals,
    query_stride,
    pair_stride,
    row_stride,
    head_stride,
    scale,
    part_length,
    N_HEADS: tl.constexpr,  # noqa: N803
    N_PARTS: tl.constexpr,  # noqa: N803
    WIDTH: tl.constexpr,  # noqa: N803
    BLOCK: tl.constexpr,  # noqa: N803
    N_STAGES: tl.constexpr,  # noqa: N803
    HAS_MERGED: tl.constexpr,  # noqa: N803
):
    """Compute one part of one head of one query: weighted sum of values, highest score, total."""
    query_head, part = tl.program_id(0), tl.program_id(1)
    query_index, head = query_head // N_HEADS, query_head % N_HEADS
    width = tl.arange(0, WIDTH)
    lane = tl.arange(0, BLOCK)
    query = (
        tl.load(queries + query_index * query_stride + head * WIDTH + width).to(tl.float32) * scale
    )
    slot = tl.load(rows + query_index).to(tl.int64)
    keys = layer_kv + slot * row_stride + head * head_stride
    values = keys + pair_stride
    first = part * part_length
    stop = tl.minimum(tl.load(lengths + query_index).to(tl.int32), first + part_length)
    if HAS_MERGED:
        own = tl.load(n_own + query_index).to(tl.int32)
        log_size = tl.load(log_sizes + query_index)
    best = tl.full([BLOCK], LOWEST, tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    acc = tl.zeros([BLOCK, WIDTH], tl.float32)
    for start in tl.range(first, stop, BLOCK, num_stages=N_STAGES):
        position = start + lane
        is_valid = position < stop
        place = position[:, None] * WIDTH + width[None, :]
        key = tl.load(keys + place, mask=is_valid[:, None], other=0.0).to(tl.float32)
        value = tl.load(values + place, mask=is_valid[:, None], other=0.0).to(tl.float32)
        score = tl.sum(key * query[None, :], 1)
        if HAS_MERGED:
            score += tl.where(position >= own, log_size, 0.0)
        score = tl.where(is_valid, score, float("-inf"))
        better = tl.maximum(best, score)
        weight = tl.exp(score - better)
        decay = tl.exp(best - better)
        total = total * decay + weight
        acc = acc * decay[:, None] + weight[:, None] * value
        best = better
    highest_of_all = tl.max(best, 0)
    share = tl.exp(best - highest_of_all)
    total_of_all = tl.sum(total * share, 0)
    acc_of_all = tl.sum(acc * share[:, None], 0)
    if N_PARTS == 1:
        tl.store(out + query_head * WIDTH + width, acc_of_all / total_of_all)
    else:
        at = query_head * N_PARTS + part
        tl.store(out + at * WIDTH + width, acc_of_all)
        tl.store(highest + at, highest_of_all)
        tl.store(totals + at, total_of_all)


@triton.jit
def _combine_parts_kernel(
    parts,
    highest,
    totals,
    out,
    N_PARTS: tl.constexpr,  # noqa: N803
    WIDTH: tl.constexpr,  # noqa: N803
):
    """Combine the parts of one head of one query."""
    query_head = tl.program_id(0)
    part = query_head * N_PARTS + tl.arange(0, N_PARTS)
    width = tl.arange(0, WIDTH)
    best = tl.load(highest + part)
    share = tl.exp(best - tl.max(best, 0))
    total = tl.sum(tl.load(totals + part) * share, 0)
    acc = tl.load(parts + part[:, None] * WIDTH + width[None, :])
    tl.store(out + query_head * WIDTH + width, tl.sum(acc * share[:, None], 0) / total)


def decoder_attention(
    queries: torch.Tensor,
    layer_kv: LayerKV,
    rows: torch.Tensor,
    lengths: torch.Tensor,
    merged: MergedPositions | None = None,
    launch: DecoderAttentionLaunch | None = None,
) -> torch.Tensor:
    """See `attention.DecoderAttention`; the heads' width must be a power of two."""
    n, heads, width = queries.shape
    numbers, scales = layer_kv
    launch = launch or decoder_attention_launch(layer_kv, merged)
    longest = numbers.shape[3]
    n_parts = launch.n_parts(n * heads, longest)
    part_length = -(-longest // n_parts)
    part_length = -(-part_length // launch.block) * launch.block
    out = torch.empty((n, heads, width), dtype=queries.dtype, device=queries.device)
    if n_parts == 1:
        parts, highest, totals = out, out, out
    else:
        parts = torch.empty((n, heads, n_parts, width), dtype=torch.float32, device=out.device)
        highest, totals = torch.empty(
            (2, n, heads, n_parts), dtype=torch.float32, device=out.device
        )
    kernel, width_options = _attention_kernel, {"WIDTH": width}
    if scales is not None:
        kernel, width_options = (
            int8_attention_kernel,
            {"WORDS": width // 4, "USE_PTX": launch.use_ptx},
        )
        numbers = numbers.view(torch.int32)
    kernel[(n * heads, n_parts)](
        queries,
        numbers,
        rows,
        lengths,
        lengths if merged is None else merged.n_own,
        lengths if merged is None else merged.log_sizes,
        *([] if scales is None else [scales]),
        parts,
        highest,
        totals,
        queries.stride(0),
        *numbers.stride()[:3],
        *([] if scales is None else [scales.stride(0)]),
        width**-0.5,
        part_length,
        N_HEADS=heads,
        N_PARTS=n_parts,
        BLOCK=launch.block,
        N_STAGES=launch.n_stages,
        HAS_MERGED=merged is not None,
        num_warps=launch.n_warps,
        **LAUNCH_OPTIONS,
        **width_options,
    )
    if n_parts > 1:
        _combine_parts_kernel[(n * heads,)](
            parts, highest, totals, out, N_PARTS=n_parts, WIDTH=width, num_warps=1, **LAUNCH_OPTIONS
        )
    return out


@triton.jit
def _write_self_kv_kernel(
    heads,
    layer_kv,
    rows,
    positions,
    token_stride,
    part_stride,
    pair_stride,
    row_stride,
    head_stride,
    WIDTH: tl.constexpr,  # noqa: N803
    N_HEADS: tl.constexpr,  # noqa: N803
    BLOCK: tl.constexpr,  # noqa: N803
):
    """Write one token's keys or values."""
    token, pair = tl.program_id(0), tl.program_id(1)
    head, width = tl.arange(0, BLOCK), tl.arange(0, WIDTH)
    exists = (head < N_HEADS)[:, None]
    given = heads + token.to(tl.int64) * token_stride + (1 + pair) * part_stride
    numbers = tl.load(given + head[:, None] * WIDTH + width[None, :], mask=exists)
    place = tl.load(rows + token).to(tl.int64) * row_stride + tl.load(positions + token) * WIDTH
    into = layer_kv + pair * pair_stride + place
    tl.store(into + head[:, None] * head_stride + width[None, :], numbers, mask=exists)


def write_self_kv(
    heads: torch.Tensor, layer_kv: LayerKV, rows: torch.Tensor, positions: torch.Tensor
) -> None:
    """See `attention.WriteSelfKV`; each part of a token's heads must be contiguous."""
    n, _, n_heads, width = heads.shape
    numbers = layer_kv.numbers
    _write_self_kv_kernel[(n, 2)](
        heads,
        numbers,
        rows,
        positions,
        heads.stride(0),
        heads.stride(1),
        *numbers.stride()[:3],
        WIDTH=width,
        N_HEADS=n_heads,
        BLOCK=triton.next_power_of_2(n_heads),
        num_warps=4,
        **LAUNCH_OPTIONS,
    )


VOCABULARY_BLOCK = 4096
"""Tokens per program of `choose`."""


@triton.jit
def _choose_kernel(
    logits,
    mask_table,
    masks,
    firsts,
    stops,
    temperatures,
    streams,
    positions,
    found,
    n_vocab,
    row_stride,
    begin,
    found_stride,
    BLOCK: tl.constexpr,  # noqa: N803
):
    """Scan a part of one row's vocabulary: a `token_choice.Pick` of text, one of times, a total."""
    row, part = tl.program_id(0), tl.program_id(1)
    token = part * BLOCK + tl.arange(0, BLOCK)
    exists = token < n_vocab
    is_text = token < begin
    row_logits = logits + row.to(tl.int64) * row_stride
    logit = tl.load(row_logits + token, mask=exists, other=float("-inf"))
    mask = mask_table + tl.load(masks + row) * begin
    forbidden = tl.load(mask + token, mask=is_text, other=1).to(tl.int1)
    in_span = (token >= tl.load(firsts + row)) & (token < tl.load(stops + row))
    merit = logit
    temperature = tl.load(temperatures + row)
    if temperature > 0:
        at_position = tl.load(streams + row) ^ (tl.load(positions + row) + 1)
        position_hash = _hash32(at_position.to(tl.uint32))
        bits = _hash32(token.to(tl.uint32) ^ position_hash) >> 9
        uniform = (bits.to(tl.float32) + 0.5) * 1.1920928955078125e-07  # 2^-23
        merit = logit / temperature - tl.log(-tl.log(uniform))
    at = found + row * tl.num_programs(1) + part
    for kind in tl.static_range(2):
        allowed = is_text & (forbidden == 0)
        if kind == 1:
            allowed = exists & (is_text == 0) & in_span
        scores = tl.where(allowed, logit, float("-inf"))
        merits = tl.where(allowed, merit, float("-inf"))
        picked = tl.argmax(merits, 0) + part * BLOCK
        highest = tl.max(scores, 0)
        floor = tl.maximum(highest, LOWEST)
        total = tl.log(tl.sum(tl.exp(scores - floor), 0)) + floor
        score = tl.max(tl.where(token == picked, scores, float("-inf")), 0)
        tl.store(at + (5 * kind) * found_stride, picked.to(tl.float32))
        tl.store(at + (5 * kind + 1) * found_stride, tl.max(merits, 0))
        tl.store(at + (5 * kind + 2) * found_stride, score)
        tl.store(at + (5 * kind + 3) * found_stride, highest)
        tl.store(at + (5 * kind + 4) * found_stride, total)
    floor = tl.maximum(tl.max(logit, 0), LOWEST)
    tl.store(at + 10 * found_stride, tl.log(tl.sum(tl.exp(logit - floor), 0)) + floor)


@triton.jit
def _hash32(bits):
    """See `token_choice._hash32`; here in 32 bits."""
    bits = (bits ^ (bits >> 16)) * 0x7FEB352D
    bits = (bits ^ (bits >> 15)) * 0x846CA68B
    return bits ^ (bits >> 16)


def choose(logits: torch.Tensor, mask_table: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
    """See `token_choice.choose`."""
    n, n_vocab = logits.shape
    n_parts = triton.cdiv(n_vocab, VOCABULARY_BLOCK)
    found = torch.empty((11, n, n_parts), dtype=torch.float32, device=logits.device)
    _choose_kernel[(n, n_parts)](
        logits,
        mask_table.view(torch.uint8),
        inputs[Field.MASK],
        inputs[Field.TIME_FIRST],
        inputs[Field.TIME_STOP],
        bits_to_float(inputs[Field.TEMPERATURE]),
        inputs[Field.STREAM],
        inputs[Field.POSITION],
        found,
        n_vocab,
        logits.stride(0),
        mask_table.shape[1],
        found.stride(0),
        BLOCK=VOCABULARY_BLOCK,
        num_warps=8,
        **LAUNCH_OPTIONS,
    )
    text, timed = (_of_parts(*found[i : i + 5]) for i in (0, 5))
    probe = logits.gather(1, inputs[Field.PROBE][:, None])[:, 0]
    return decide(text, timed, (probe - found[10].logsumexp(-1)).exp())


def _of_parts(
    token: torch.Tensor,
    merit: torch.Tensor,
    score: torch.Tensor,
    highest: torch.Tensor,
    total: torch.Tensor,
) -> Pick:
    """Return the best of the parts' picks; all ``[n, parts]``."""
    best = merit.max(-1, keepdim=True)
    token, score = (each.gather(1, best.indices)[:, 0] for each in (token, score))
    return Pick(token, best.values[:, 0], score, highest.amax(-1), total.logsumexp(-1))


@triton.jit
def _quantise_kernel(
    rows,
    numbers,
    scales,
    n_columns,
    largest,
    min_peak,
    BLOCK: tl.constexpr,  # noqa: N803
):
    """Quantise one row, and compute its scale."""
    row, column = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    exists = column < n_columns
    given = tl.load(rows + row * n_columns + column, mask=exists, other=0.0).to(tl.float32)
    scale = tl.maximum(tl.max(tl.abs(given), 0), min_peak) / largest
    scaled = tl.minimum(tl.maximum(given / scale, -largest), largest)
    tl.store(numbers + row * n_columns + column, scaled.to(numbers.dtype.element_ty), mask=exists)
    tl.store(scales + row, scale)


def quantise(
    rows: torch.Tensor, kind: torch.dtype, largest: float, min_peak: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """See `fp8_linear.quantise`; returns numbers and scales of contiguous rows."""
    n_rows, n_columns = rows.shape
    numbers = torch.empty((n_rows, n_columns), dtype=kind, device=rows.device)
    scales = torch.empty((n_rows, 1), dtype=torch.float32, device=rows.device)
    block = triton.next_power_of_2(n_columns)
    _quantise_kernel[(n_rows,)](
        rows,
        numbers,
        scales,
        n_columns,
        largest,
        min_peak,
        BLOCK=block,
        num_warps=8,
        **LAUNCH_OPTIONS,
    )
    return numbers, scales
