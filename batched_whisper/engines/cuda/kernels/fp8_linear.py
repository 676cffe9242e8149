"""Linear layers in 8-bit floating point, for the matrix units of GPUs of 2022 and later.

Weights get a scale for each output when they are loaded, activations one for each row while the
model runs, so nothing has to be calibrated. Products are summed in float32.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812

from batched_whisper.engines.cuda.model.layers import Layer

FP8 = torch.float8_e4m3fn
FP8_MAX = torch.finfo(FP8).max
MIN_PEAK = 1e-12
"""Rows of nothing but zeros have a scale too."""


@dataclass(frozen=True)
class Quantised:
    """Rows in 8 bits: ``numbers * scales`` is what they were; ``scales`` ``[rows, 1]`` float32."""

    numbers: torch.Tensor
    scales: torch.Tensor


def quantise(rows: torch.Tensor) -> Quantised:
    """Scale every row so that its largest number is the largest there is."""
    peaks = rows.abs().amax(-1, keepdim=True).float().clamp(min=MIN_PEAK)
    scales = peaks / FP8_MAX
    return Quantised((rows.float() / scales).clamp(-FP8_MAX, FP8_MAX).to(FP8), scales)


@dataclass(frozen=True)
class Fp8Linear:
    """`layers.Linear` in 8 bits."""

    weight: Quantised
    bias: torch.Tensor | None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """See `layers.Layer`; both in the model's type."""
        return self._product(x, self.bias)

    def gelu(self, x: torch.Tensor) -> torch.Tensor:
        """See `layers.Layer`."""
        return F.gelu(self(x))

    def add_to(self, x: torch.Tensor, y: torch.Tensor) -> None:
        """See `layers.Layer`."""
        x.add_(self._product(y, None))

    def _product(self, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        rows = _quantise(x)
        return torch._scaled_mm(
            rows.numbers,
            self.weight.numbers.T,
            scale_a=rows.scales,
            scale_b=self.weight.scales.T,
            bias=bias,
            out_dtype=x.dtype,
        )


def make_fp8_linear(weight: torch.Tensor, bias: torch.Tensor | None) -> Layer:
    """The layer of a weight ``[out, in]`` in the model's type."""
    return Fp8Linear(quantise(weight), bias)


def _quantise(rows: torch.Tensor) -> Quantised:
    """`quantise`, on a GPU in one kernel."""
    if rows.device.type != "cuda":
        return quantise(rows)
    from batched_whisper.engines.cuda.kernels import decoder_kernels

    return Quantised(*decoder_kernels.quantise(rows.contiguous(), FP8, FP8_MAX, MIN_PEAK))
