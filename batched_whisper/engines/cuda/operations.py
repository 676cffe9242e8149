"""Which code does the two things that a step spends its time on: kernels, or plain PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

import torch

from batched_whisper.engines.cuda.attention import Attend, attend
from batched_whisper.engines.cuda.choosing import Choose, choose_greedily


@dataclass(frozen=True)
class Operations:
    """How queries meet tables and tokens are chosen, and why so."""

    attend: Attend
    choose: Choose
    why: str


PLAIN = Operations(attend, choose_greedily, "attention in plain PyTorch")


def best_operations(device: torch.device, head_width: int) -> Operations:
    """Triton's kernels on a GPU, where they are installed and fit the model."""
    if device.type != "cuda":
        return PLAIN
    if find_spec("triton") is None:
        return Operations(attend, choose_greedily, "Triton is not installed: slower attention")
    if head_width < 16 or head_width & (head_width - 1):
        return Operations(
            attend, choose_greedily, f"slower attention: heads of width {head_width}, not 2^n"
        )
    from batched_whisper.engines.cuda import kernels

    return Operations(kernels.attend, kernels.choose, "attention by Triton kernels")
