"""The GPU engine's precision: one type for weights and activations, one for cached keys and values.

float16 is the default on a GPU, as in openai/whisper: the weights were published in it, and it is
nearer to float32 than bfloat16. On a CPU, which is for tests, the default is float32.
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
"""Precision to type; fp8 applies to the encoder's linear layers only, the rest is bfloat16."""

KV_CACHE_DTYPES = ("auto", "int8", "model")
"""Types of the cached keys and values of the audio; the last is the precision's own type."""

FP8_CAPABILITY = (8, 9)
"""The first compute capability with matrix units for 8-bit floating point."""


@dataclass(frozen=True)
class CudaPrecision:
    """A precision, why it was chosen, and the type of the cross-attention cache."""

    precision: str
    why: str
    cross_dtype: torch.dtype

    @property
    def dtype(self) -> torch.dtype:
        """The type of weights, activations and the self-attention cache."""
        return DTYPES[self.precision]

    @property
    def is_fp8(self) -> bool:
        """Whether the encoder's linear layers compute in 8-bit floating point."""
        return self.precision == "fp8"


def choose_precision(
    precision: str, device: torch.device, kv_cache_dtype: str = "auto"
) -> CudaPrecision:
    """Return the requested or default precision. Raises EngineError if it is not supported."""
    chosen, why = _precision(precision, device)
    if kv_cache_dtype not in KV_CACHE_DTYPES:
        raise EngineError(
            f"kv_cache_dtype={kv_cache_dtype!r}: choose from {', '.join(KV_CACHE_DTYPES)}"
        )
    is_int8 = kv_cache_dtype == "int8" or (kv_cache_dtype == "auto" and chosen != "float32")
    cross_dtype = torch.int8 if is_int8 else DTYPES[chosen]
    cache_type = "int8" if is_int8 else str(DTYPES[chosen]).removeprefix("torch.")
    return CudaPrecision(
        chosen, f"{why}; keys and values of the audio in {cache_type}", cross_dtype
    )


def _precision(precision: str, device: torch.device) -> tuple[str, str]:
    """Return the precision's name, and why it was chosen."""
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
        raise EngineError("precision=fp8 needs a GPU: use float32 or bfloat16 on a CPU")
    if torch.cuda.get_device_capability(device) < FP8_CAPABILITY:
        raise EngineError(
            f"precision=fp8: {torch.cuda.get_device_name(device)} has no 8-bit floating point "
            "(GPUs of 2022 and later do); use float16"
        )
