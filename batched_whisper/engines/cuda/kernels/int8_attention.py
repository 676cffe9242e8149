"""A Triton kernel: attention of single queries over int8 keys and values, four to a 32-bit word.

Computes what `decoder_kernels._attention_kernel` does, for an int8 cache. There, reading is not the
only cost: converting an 8-bit integer to float32 is one of a GPU's slow instructions (a sixteenth
of its arithmetic rate, by the CUDA programming guide's table), and two of them per product left the
memory waiting. This kernel has none:

- *Scores* are products of integers. The query is written in two 8-bit digits: steps of 1/127 of its
  largest channel, and 254 steps of each of those, finer than 16 bits. One instruction (``dp4a``)
  multiplies four channels of a key by four of a digit and adds them up.
- *Values* become floats by placing their byte in the middle of a float32: 0x4700xx00 is 32768 plus
  the byte. This offset is the same for all channels of a sum and is subtracted at the end.

A lane has two positions at a time, so that its accumulator is rescaled once for both. Triton's
interpreter has no GPU instructions: there the same numbers are computed with shifts.
"""

from __future__ import annotations

import triton
import triton.language as tl

LOWEST = tl.constexpr(-1e30)
"""Below every score, and finite: the difference of two infinities is not a number."""
LOG2_E = tl.constexpr(1.4426950408889634)
COARSE = tl.constexpr(127)
"""Steps of a query's largest channel."""
FINE = tl.constexpr(254)
"""Steps per coarse step: half of them to each side fit an 8-bit digit."""
ZERO = tl.constexpr(32768.0 + 128.0)
"""The float that a byte of zero becomes."""
MIN_PEAK = tl.constexpr(1e-30)
"""Lower bound of a query's peak, so that a query of zeros has steps too."""


@triton.jit
def _digits(query, step):
    """Return two integers each: the number of coarse steps, and of fine steps in addition."""
    coarse = tl.floor(query / step + 0.5)
    fine = tl.floor((query / step - coarse) * FINE + 0.5)
    return coarse.to(tl.int32), fine.to(tl.int32)


@triton.jit
def _packed(first, second, third, fourth):
    """Pack four 8-bit integers into a word."""
    low = (first & 255) | ((second & 255) << 8)
    return low | ((third & 255) << 16) | (fourth << 24)


@triton.jit
def _product(one, other):
    """Return the sum of four 8-bit products."""
    total = (one << 24 >> 24) * (other << 24 >> 24)
    for i in tl.static_range(1, 4):
        total += (one << (24 - 8 * i) >> 24) * (other << (24 - 8 * i) >> 24)
    return total


@triton.jit
def _score(key, coarse, fine, USE_PTX: tl.constexpr):  # noqa: N803
    """Multiply keys ``[n, words]`` by a query in two digits; the result is in fine steps."""
    coarse, fine = coarse[None, :], fine[None, :]
    if USE_PTX:
        products = tl.inline_asm_elementwise(
            """{
            .reg .s32 many;
            dp4a.s32.s32 many, $1, $2, 0;
            mul.lo.s32 many, many, 254;
            dp4a.s32.s32 $0, $1, $3, many;
            }""",
            "=r,r,r,r",
            [key, coarse, fine],
            dtype=tl.int32,
            is_pure=True,
            pack=1,
        )
    else:
        products = _product(key, coarse) * FINE + _product(key, fine)
    return tl.sum(products, 1)


@triton.jit
def _bytes(words, USE_PTX: tl.constexpr):  # noqa: N803
    """Return the four numbers of each word as float32, `ZERO` too large."""
    if USE_PTX:
        return tl.inline_asm_elementwise(
            """{
            .reg .b32 shifted;
            xor.b32 shifted, $4, 0x80808080;
            prmt.b32 $0, shifted, 0x47000000, 0x7404;
            prmt.b32 $1, shifted, 0x47000000, 0x7414;
            prmt.b32 $2, shifted, 0x47000000, 0x7424;
            prmt.b32 $3, shifted, 0x47000000, 0x7434;
            }""",
            "=r,=r,=r,=r,r",
            [words],
            dtype=(tl.float32, tl.float32, tl.float32, tl.float32),
            is_pure=True,
            pack=1,
        )
    bits = words.to(tl.uint32, bitcast=True) ^ 0x80808080
    first = (((bits & 255) << 8) | 0x47000000).to(tl.float32, bitcast=True)
    second = ((bits & 0xFF00) | 0x47000000).to(tl.float32, bitcast=True)
    third = (((bits >> 8) & 0xFF00) | 0x47000000).to(tl.float32, bitcast=True)
    fourth = (((bits >> 16) & 0xFF00) | 0x47000000).to(tl.float32, bitcast=True)
    return first, second, third, fourth


@triton.jit
def int8_attention_kernel(
    queries,
    layer_kv,
    rows,
    lengths,
    n_own,
    log_sizes,
    scales,
    out,
    highest,
    totals,
    query_stride,
    pair_stride,
    row_stride,
    head_stride,
    scales_stride,
    scale,
    part_length,
    N_HEADS: tl.constexpr,  # noqa: N803
    N_PARTS: tl.constexpr,  # noqa: N803
    WORDS: tl.constexpr,  # noqa: N803
    BLOCK: tl.constexpr,  # noqa: N803
    N_STAGES: tl.constexpr,  # noqa: N803
    HAS_MERGED: tl.constexpr,  # noqa: N803
    USE_PTX: tl.constexpr,  # noqa: N803
):
    """Compute one part of one head of one query: weighted sum of values, highest score, total.

    ``layer_kv`` and its strides are in words; a head is ``WORDS`` wide.
    """
    query_head, part = tl.program_id(0), tl.program_id(1)
    query_index, head = query_head // N_HEADS, query_head % N_HEADS
    word, lane = tl.arange(0, WORDS), tl.arange(0, BLOCK)
    slot = tl.load(rows + query_index).to(tl.int64)
    keys = layer_kv + slot * row_stride + head * head_stride
    values = keys + pair_stride
    given = queries + query_index * query_stride + head * (4 * WORDS) + 4 * word
    channels = scales + (slot * N_HEADS + head) * (4 * WORDS) + 4 * word
    scale *= LOG2_E
    query_0 = tl.load(given).to(tl.float32) * scale * tl.load(channels)
    query_1 = tl.load(given + 1).to(tl.float32) * scale * tl.load(channels + 1)
    query_2 = tl.load(given + 2).to(tl.float32) * scale * tl.load(channels + 2)
    query_3 = tl.load(given + 3).to(tl.float32) * scale * tl.load(channels + 3)
    peaks = tl.maximum(
        tl.maximum(tl.abs(query_0), tl.abs(query_1)), tl.maximum(tl.abs(query_2), tl.abs(query_3))
    )
    step = tl.maximum(tl.max(peaks, 0), MIN_PEAK) / COARSE
    coarse_0, fine_0 = _digits(query_0, step)
    coarse_1, fine_1 = _digits(query_1, step)
    coarse_2, fine_2 = _digits(query_2, step)
    coarse_3, fine_3 = _digits(query_3, step)
    coarse = _packed(coarse_0, coarse_1, coarse_2, coarse_3)
    fine = _packed(fine_0, fine_1, fine_2, fine_3)
    step = step / FINE
    first = part * part_length
    stop = tl.minimum(tl.load(lengths + query_index).to(tl.int32), first + part_length)
    if HAS_MERGED:
        own = tl.load(n_own + query_index).to(tl.int32)
        log_size = tl.load(log_sizes + query_index) * LOG2_E
    best = tl.full([BLOCK], LOWEST, tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    acc_0 = tl.zeros([BLOCK, WORDS], tl.float32)
    acc_1 = tl.zeros([BLOCK, WORDS], tl.float32)
    acc_2 = tl.zeros([BLOCK, WORDS], tl.float32)
    acc_3 = tl.zeros([BLOCK, WORDS], tl.float32)
    for start in tl.range(first, stop, 2 * BLOCK, num_stages=N_STAGES):
        near = start + lane
        far = near + BLOCK
        near_place = near[:, None] * WORDS + word[None, :]
        far_place = far[:, None] * WORDS + word[None, :]
        near_real, far_real = (near < stop)[:, None], (far < stop)[:, None]
        near_key = tl.load(keys + near_place, mask=near_real, other=0)
        far_key = tl.load(keys + far_place, mask=far_real, other=0)
        near_value = tl.load(values + near_place, mask=near_real, other=0)
        far_value = tl.load(values + far_place, mask=far_real, other=0)
        near_score = _score(near_key, coarse, fine, USE_PTX).to(tl.float32) * step
        far_score = _score(far_key, coarse, fine, USE_PTX).to(tl.float32) * step
        if HAS_MERGED:
            near_score += tl.where(near >= own, log_size, 0.0)
            far_score += tl.where(far >= own, log_size, 0.0)
        near_score = tl.where(near < stop, near_score, float("-inf"))
        far_score = tl.where(far < stop, far_score, float("-inf"))
        better = tl.maximum(best, tl.maximum(near_score, far_score))
        near_weight, far_weight = tl.exp2(near_score - better), tl.exp2(far_score - better)
        decay = tl.exp2(best - better)
        best = better
        total = total * decay + (near_weight + far_weight)
        near_0, near_1, near_2, near_3 = _bytes(near_value, USE_PTX)
        far_0, far_1, far_2, far_3 = _bytes(far_value, USE_PTX)
        decay, near_weight, far_weight = decay[:, None], near_weight[:, None], far_weight[:, None]
        acc_0 = acc_0 * decay + near_weight * near_0 + far_weight * far_0
        acc_1 = acc_1 * decay + near_weight * near_1 + far_weight * far_1
        acc_2 = acc_2 * decay + near_weight * near_2 + far_weight * far_2
        acc_3 = acc_3 * decay + near_weight * near_3 + far_weight * far_3
    highest_of_all = tl.max(best, 0)
    share = tl.exp2(best - highest_of_all)
    total_of_all = tl.sum(total * share, 0)
    offset = (total * ZERO)[:, None]
    share = share[:, None]
    channels += scales_stride
    sum_0 = tl.sum((acc_0 - offset) * share, 0) * tl.load(channels)
    sum_1 = tl.sum((acc_1 - offset) * share, 0) * tl.load(channels + 1)
    sum_2 = tl.sum((acc_2 - offset) * share, 0) * tl.load(channels + 2)
    sum_3 = tl.sum((acc_3 - offset) * share, 0) * tl.load(channels + 3)
    at = query_head * N_PARTS + part
    if N_PARTS == 1:
        sum_0, sum_1 = sum_0 / total_of_all, sum_1 / total_of_all
        sum_2, sum_3 = sum_2 / total_of_all, sum_3 / total_of_all
    else:
        tl.store(
            highest + at, highest_of_all / LOG2_E
        )  # as a natural logarithm, like the other kernel
        tl.store(totals + at, total_of_all)
    result = out + at * (4 * WORDS) + 4 * word
    tl.store(result, sum_0)
    tl.store(result + 1, sum_1)
    tl.store(result + 2, sum_2)
    tl.store(result + 3, sum_3)
