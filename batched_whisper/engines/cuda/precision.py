"""In what the engine computes: one type for weights and activations, and one for what is heard.

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

KV_CACHE_DTYPES = ("auto", "int8", "model")
"""In what the keys and values of the audio are cross_dtype; model: as everything else."""

FP8_CAPABILITY = (8, 9)
"""The first compute capability whose matrix units take 8-bit floating point."""


@dataclass(frozen=True)
class CudaPrecision:
    """A precision, and why it was chosen; ``cross_dtype`` is the type of what is heard of the audio."""

    precision: str
    why: str
    cross_dtype: torch.dtype

    @property
    def dtype(self) -> torch.dtype:
        """The type of weights and activations, and of what is cross_dtype of texts."""
        return DTYPES[self.precision]

    @property
    def is_fp8(self) -> bool:
        """Whether the encoder's linear layers compute in 8-bit floating point."""
        return self.precision == "fp8"


def choose_precision(
    precision: str, device: torch.device, kv_cache_dtype: str = "auto"
) -> CudaPrecision:
    """The precision asked for, or the device's best. Raises EngineError where it has it not."""
    chosen, why = _precision(precision, device)
    if kv_cache_dtype not in KV_CACHE_DTYPES:
        raise EngineError(
            f"kv_cache_dtype={kv_cache_dtype!r}: choose from {', '.join(KV_CACHE_DTYPES)}"
        )
    is_small = kv_cache_dtype == "int8" or (kv_cache_dtype == "auto" and chosen != "float32")
    cross_dtype = torch.int8 if is_small else DTYPES[chosen]
    in_what = "8 bits" if is_small else str(DTYPES[chosen]).removeprefix("torch.")
    return CudaPrecision(chosen, f"{why}; what is heard is cross_dtype in {in_what}", cross_dtype)


def _precision(precision: str, device: torch.device) -> tuple[str, str]:
    """Its name, and why."""
    if precision == "auto":
        best = "float16" if device.type == "cuda" else "float32"
        return best, f"{best}, the default on {device.type}"
    if precision not in DTYPES:
        raise EngineError(
            f"the GPU engine has no precision {precision!r}: use auto, {', '.join(DTYPES)}"
        )
    if precision == "fp8":
        _require_fp8(device)
        return "fp8", "fp8 in the encoder's linear layers, as asked for; else bfloat16"
    return precision, f"{precision}, as asked for"


def _require_fp8(device: torch.device) -> None:
    if device.type != "cuda":
        raise EngineError("precision=fp8 is for GPUs alone: use float32 or bfloat16 here")
    if torch.cuda.get_device_capability(device) < FP8_CAPABILITY:
        raise EngineError(
            f"precision=fp8: {torch.cuda.get_device_name(device)} has no 8-bit floating point "
            "(GPUs of 2022 and later do); use float16"
        )
