"""Launch parameters of the Triton kernels: number and size of their programs.

The values are the fastest of those tried (docs/lab-log.md, `benchmarks.gpu.kernels`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import triton
from triton import knobs

from batched_whisper.engines.cuda.kv_cache import LayerKV
from batched_whisper.engines.cuda.model.attention import MergedPositions

LAUNCH_OPTIONS: dict[str, Any] = {"enable_fp_fusion": True}
"""Options of every kernel: fuse products and sums, which Triton will not do by default in future.
"""


@dataclass(frozen=True)
class DecoderAttentionLaunch:
    """Launch parameters of decoder attention.

    Attributes:
        block: positions that a program reads at once.
        n_warps: warps of 32 threads per program.
        n_stages: reads in flight before their numbers are needed.
        n_programs: the least number of programs, if the work can be split; several per
            multiprocessor.
        use_ptx: whether to use a GPU's own instructions; Triton's interpreter has none.
    """

    block: int = 64
    n_warps: int = 4
    n_stages: int = 2
    n_programs: int = 4096
    use_ptx: bool = not knobs.runtime.interpret

    def n_parts(self, n_heads: int, longest: int) -> int:
        """Return into how many parts the positions are split, given the heads of all queries."""
        wanted = -(-self.n_programs // n_heads)
        most = -(-longest // self.block)
        return int(triton.next_power_of_2(max(1, min(wanted, most))))


CROSS_ATTENTION = DecoderAttentionLaunch()
INT8_CROSS_ATTENTION = DecoderAttentionLaunch(block=32, n_stages=3)
"""The fastest of those tried, for audio in 16 and in 8 bits (docs/lab-log.md)."""
SELF_ATTENTION = DecoderAttentionLaunch(block=32, n_warps=2)
"""A text is short, so more concurrent programs are worth more."""


def decoder_attention_launch(
    layer_kv: LayerKV, merged: MergedPositions | None
) -> DecoderAttentionLaunch:
    """Select by the cache's type; only cross-attention has merged positions."""
    if layer_kv.scales is not None:
        return INT8_CROSS_ATTENTION
    return SELF_ATTENTION if merged is None else CROSS_ATTENTION


@dataclass(frozen=True)
class EncoderAttentionLaunch:
    """Launch parameters of encoder attention.

    Attributes:
        block: keys that a program reads at once.
        n_warps: warps of 32 threads per program.
        n_stages: reads in flight before their numbers are needed.
    """

    block: int = 64
    n_warps: int = 4
    n_stages: int = 3


@dataclass(frozen=True)
class WriteCrossKVLaunch:
    """Launch parameters of writing keys and values; a program has one head's of one window.

    Attributes:
        block: positions that it handles at once.
        n_warps: warps of 32 threads per program.
    """

    block: int = 128
    n_warps: int = 8


ENCODER_ATTENTION, WRITE_CROSS_KV = EncoderAttentionLaunch(), WriteCrossKVLaunch()
ENCODER_ATTENTION_FLOAT32 = EncoderAttentionLaunch(block=32, n_stages=2)
"""For float32, whose keys and values are twice as large: within the shared memory per program of
every GPU since 2020 (99 KB)."""
