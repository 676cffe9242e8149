"""How the Triton kernels are launched: into how many programs their work is cut, and of what size.

The values are the fastest of those tried (docs/lab-log.md, `benchmarks.gpu.kernels`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import triton
from triton import knobs

from batched_whisper.engines.cuda.kv_cache import Kept
from batched_whisper.engines.cuda.model.attention import Crowd

ALWAYS: dict[str, Any] = {"enable_fp_fusion": True}
"""For every kernel: a product and a sum may be one instruction. Triton's default will be no."""


@dataclass(frozen=True)
class AttendLaunch:
    """How the attention is cut up.

    Attributes:
        block: positions that a program reads at once.
        n_warps: of 32 threads, for each program.
        n_stages: reads in flight before their numbers are needed.
        n_programs: at least so many, if there is anything to cut; several for each multiprocessor.
        in_assembly: whether a GPU's own instructions are used; Triton's interpreter has none.
    """

    block: int = 64
    n_warps: int = 4
    n_stages: int = 2
    n_programs: int = 4096
    in_assembly: bool = not knobs.runtime.interpret

    def n_parts(self, n_heads: int, longest: int) -> int:
        """Into how many parts the positions are cut, given the heads of all queries together."""
        wanted = -(-self.n_programs // n_heads)
        most = -(-longest // self.block)
        return int(triton.next_power_of_2(max(1, min(wanted, most))))


OF_AUDIO = AttendLaunch()
OF_WORDS = AttendLaunch(block=32, n_stages=3)
"""The fastest of those tried, for audio in 16 and in 8 bits (docs/lab-log.md)."""
OF_TEXT = AttendLaunch(block=32, n_warps=2)
"""Of a text there is little to read, so that more programs at once are worth more."""


def launch_over(table: Kept, crowd: Crowd | None) -> AttendLaunch:
    """By what is read; stand-ins are audio's."""
    if table.scales is not None:
        return OF_WORDS
    return OF_TEXT if crowd is None else OF_AUDIO


@dataclass(frozen=True)
class ListenLaunch:
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
class KeepLaunch:
    """How keeping is cut up: a program has one head's keys or values of one window.

    Attributes:
        block: positions that it has at once.
        n_warps: of 32 threads, for each program.
    """

    block: int = 128
    n_warps: int = 8


LISTEN, KEEP = ListenLaunch(), KeepLaunch()
LISTEN_IN_FULL = ListenLaunch(block=32, n_stages=2)
"""In float32, whose keys and values are twice as large: within what a program may take of the
memory of a multiprocessor on every GPU since 2020 (99 KB)."""
