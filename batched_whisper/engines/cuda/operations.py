"""Which code does the two things that a step spends its time on: kernels, or plain PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

import torch

from batched_whisper.engines.cuda.attention import Attend, Crowd, attend
from batched_whisper.engines.cuda.choosing import Choose, choose
from batched_whisper.engines.cuda.feed import Field, float_bits

TOLERANCE = 0.05
"""More than rounding to bfloat16, and less than any mistake."""


@dataclass(frozen=True)
class Operations:
    """How queries meet tables and tokens are chosen, and why so."""

    attend: Attend
    choose: Choose
    why: str


PLAIN = Operations(attend, choose, "attention in plain PyTorch")


def best_operations(device: torch.device, dtype: torch.dtype, head_width: int) -> Operations:
    """Triton's kernels on a GPU, where they are installed, fit the model, and work."""
    if device.type != "cuda":
        return PLAIN
    if find_spec("triton") is None:
        return slower("Triton is not installed")
    if head_width < 16 or head_width & (head_width - 1):
        return slower(f"heads are {head_width} wide, which is no power of two")
    try:
        from batched_whisper.engines.cuda import kernels

        try_out(kernels.attend, kernels.choose, device, dtype, head_width)
    except Exception as error:  # such as a machine without a C compiler, which Triton needs
        return slower(f"Triton's kernels do not work here: {' '.join(str(error).split())[:200]}")
    return Operations(kernels.attend, kernels.choose, "attention by Triton kernels")


def slower(why: str) -> Operations:
    """Plain PyTorch on a GPU, and the reason for it."""
    return Operations(attend, choose, f"slower attention in plain PyTorch: {why}")


def try_out(
    kernel: Attend, chooses: Choose, device: torch.device, dtype: torch.dtype, head_width: int
) -> None:
    """Run them on next to nothing. Raises whatever they do, and ValueError for wrong numbers."""
    random = torch.Generator().manual_seed(0)
    table = torch.randn((2, 2, 2, 80, head_width), generator=random).to(device, dtype)
    rows = torch.tensor([1, 0], device=device)
    lengths = torch.tensor([80, 3], device=device)
    crowd = Crowd(torch.tensor([70, 3], device=device), torch.tensor([2.5, 0], device=device))
    found, expected = (
        torch.cat([each(table[0, :, :, 0], table, rows, lengths, of) for of in (None, crowd)])
        for each in (kernel, attend)
    )
    logits = torch.randn((2, 90), generator=random).to(device)
    hidden = torch.zeros((1, 70), dtype=torch.bool, device=device)
    feed = torch.zeros((len(Field), 2), dtype=torch.int64, device=device)
    feed[Field.TEMPERATURE, 1] = float_bits(0.5)
    chosen, right = (each(logits, hidden, feed) for each in (chooses, choose))
    differences = torch.cat([(found - expected).float().flatten(), (chosen - right).flatten()])
    off = float(differences.abs().max())  # NaN where one is
    if not off < TOLERANCE:
        raise ValueError(f"their numbers are off by {off:.2g}")
