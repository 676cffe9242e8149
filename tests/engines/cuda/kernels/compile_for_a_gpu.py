"""Compiles the kernels for a GPU that is not there, as the operations launch them.

    python compile_for_a_gpu.py 90

Nothing is run: in place of a launch every kernel is compiled for that compute capability, with the
very arguments. Prints the names of those compiled and how many bytes of a multiprocessor's memory a
program shares; fails where one cannot be compiled.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

from batched_whisper.engines.cuda.kernels import decoder_kernels
from batched_whisper.engines.cuda.kernels.dispatch import Heads, _trials, triton_operations
from batched_whisper.engines.cuda.kernels.fp8_linear import FP8, FP8_MAX, MIN_PEAK


class AbsentDriver:
    """The part of a driver that compiling needs."""

    def __init__(self, capability: int) -> None:
        self._target = GPUTarget("cuda", capability, 32)

    def get_current_target(self) -> GPUTarget:
        return self._target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


def main(capability: int) -> None:
    triton.runtime.driver.set_active(AbsentDriver(capability))
    launch = JITFunction.run

    def compiled(self: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> Any:
        if self.fn.__module__.startswith("batched_whisper"):
            found = launch(self, *args, grid=grid, warmup=True, **options)
            print(self.fn.__name__, found.metadata.shared, flush=True)
            return found
        return launch(self, *args, grid=grid, warmup=warmup, **options)

    JITFunction.run = compiled
    has_fp8 = capability >= 89  # of floating point
    for dtype in (torch.float16, torch.float32):
        for trial in _trials(torch.device("cpu"), dtype, Heads(2, 64)):
            trial(triton_operations())
    if has_fp8:
        decoder_kernels.quantise(torch.zeros((3, 64), dtype=torch.float16), FP8, FP8_MAX, MIN_PEAK)


if __name__ == "__main__":
    main(int(sys.argv[1]))
