"""How the Triton kernels are launched: into how many programs their work is cut, and of what size.

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
"""For every kernel: a product and a sum may be one instruction. Triton's default will be no."""


@dataclass(frozen=True)
class DecoderAttentionLaunch:
    """How the attention is cut up.

    Attributes:
        block: positions that a program reads at once.
        n_warps: of 32 threads, for each program.
        n_stages: reads in flight before their numbers are needed.
        n_programs: at least so many, if there is anything to cut; several for each multiprocessor.
        use_ptx: whether a GPU's own instructions are used; Triton's interpreter has none.
    """

    block: int = 64
    n_warps: int = 4
    n_stages: int = 2
    n_programs: int = 4096
    use_ptx: bool = not knobs.runtime.interpret

    def n_parts(self, n_heads: int, longest: int) -> int:
        """Into how many parts the positions are cut, given the heads of all queries together."""
        wanted = -(-self.n_programs // n_heads)
        most = -(-longest // self.block)
        return int(triton.next_power_of_2(max(1, min(wanted, most))))


CROSS_ATTENTION = DecoderAttentionLaunch()
INT8_CROSS_ATTENTION = DecoderAttentionLaunch(block=32, n_stages=3)
"""The fastest of those tried, for audio in 16 and in 8 bits (docs/lab-log.md)."""
SELF_ATTENTION = DecoderAttentionLaunch(block=32, n_warps=2)
"""Of a text there is little to read, so that more programs at once are worth more."""


def decoder_attention_launch(
    table: LayerKV, merged: MergedPositions | None
) -> DecoderAttentionLaunch:
    """By what is read; stand-ins are audio's."""
    if table.scales is not None:
        return INT8_CROSS_ATTENTION
    return SELF_ATTENTION if merged is None else CROSS_ATTENTION


@dataclass(frozen=True)
class EncoderAttentionLaunch:
    """How the attention is cut up.

    Attributes:
        block: keys that a program reads at once.
        n_warps: of 32 threads, for each program.
        n_stages: reads in flight before their numbers are needed.
    """

    block: int = 64
    n_warps: int = 4
    n_stages: int = 3


@dataclass(frozen=True)
class WriteCrossKVLaunch:
    """How keeping is cut up: a program has one head's keys or values of one window.

    Attributes:
        block: positions that it has at once.
        n_warps: of 32 threads, for each program.
    """

    block: int = 128
    n_warps: int = 8


ENCODER_ATTENTION, WRITE_CROSS_KV = EncoderAttentionLaunch(), WriteCrossKVLaunch()
ENCODER_ATTENTION_FLOAT32 = EncoderAttentionLaunch(block=32, n_stages=2)
"""In float32, whose keys and values are twice as large: within what a program may take of the
memory of a multiprocessor on every GPU since 2020 (99 KB)."""
