"""In what the engine computes: one type for weights, activations and caches.

float16 is the default on a GPU, as in OpenAI's program: the weights were published in it, and it
is nearer to float32 than bfloat16. On a processor it is float32, which is there for tests.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from batched_whisper.errors import EngineError

DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "fp8": torch.bfloat16,
}
"""Precision -> the type of everything but the encoder's linear layers in fp8."""

FP8_CAPABILITY = (8, 9)
"""The first compute capability whose matrix units take 8-bit floating point."""


@dataclass(frozen=True)
class Arithmetic:
    """A precision, and why it was chosen."""

    precision: str
    why: str

    @property
    def dtype(self) -> torch.dtype:
        """The type of weights, activations and caches."""
        return DTYPES[self.precision]

    @property
    def eight_bits(self) -> bool:
        """Whether the encoder's linear layers compute in 8-bit floating point."""
        return self.precision == "fp8"


def choose_arithmetic(precision: str, device: torch.device) -> Arithmetic:
    """The precision asked for, or the device's best. Raises EngineError where it has it not."""
    if precision == "auto":
        best = "float16" if device.type == "cuda" else "float32"
        return Arithmetic(best, f"{best}, the default on {device.type}")
    if precision not in DTYPES:
        raise EngineError(
            f"the GPU engine has no precision {precision!r}: use auto, {', '.join(DTYPES)}"
        )
    if precision == "fp8":
        _demand_fp8(device)
        return Arithmetic("fp8", "fp8 in the encoder's linear layers, as asked for; else bfloat16")
    return Arithmetic(precision, f"{precision}, as asked for")


def _demand_fp8(device: torch.device) -> None:
    if device.type != "cuda":
        raise EngineError("precision=fp8 is for GPUs alone: use float32 or bfloat16 here")
    if torch.cuda.get_device_capability(device) < FP8_CAPABILITY:
        raise EngineError(
            f"precision=fp8: {torch.cuda.get_device_name(device)} has no 8-bit floating point "
            "(GPUs of 2022 and later do); use float16"
        )
