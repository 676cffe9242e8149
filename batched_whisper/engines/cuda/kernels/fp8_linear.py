"""Linear layers in 8-bit floating point, for the matrix units of GPUs of 2022 and later.

Weights have a scale per output, computed when they are loaded; activations have one per row,
computed at run time, so no calibration is needed. Products are summed in float32.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812

from batched_whisper.engines.cuda.model.layers import Layer

FP8 = torch.float8_e4m3fn
FP8_MAX = torch.finfo(FP8).max
MIN_PEAK = 1e-12
"""Lower bound of a row's peak, so that a row of zeros has a scale too."""


@dataclass(frozen=True)
class Quantised:
    """Rows in fp8: ``numbers * scales`` restores them; ``scales`` is ``[rows, 1]`` float32."""

    numbers: torch.Tensor
    scales: torch.Tensor


def quantise(rows: torch.Tensor) -> Quantised:
    """Scale each row so that its largest absolute value becomes the largest of the format."""
    peaks = rows.abs().amax(-1, keepdim=True).float().clamp(min=MIN_PEAK)
    scales = peaks / FP8_MAX
    return Quantised((rows.float() / scales).clamp(-FP8_MAX, FP8_MAX).to(FP8), scales)


@dataclass(frozen=True)
class Fp8Linear:
    """`layers.Linear` in fp8."""

    weight: Quantised
    bias: torch.Tensor | None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """See `layers.Layer`; input and output have the model's type."""
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
    """Make the layer from a weight ``[out, in]`` and bias in the model's type."""
    return Fp8Linear(quantise(weight), bias)


def _quantise(rows: torch.Tensor) -> Quantised:
    """`quantise`, on a GPU by a kernel."""
    if rows.device.type != "cuda":
        return quantise(rows)
    from batched_whisper.engines.cuda.kernels import decoder_kernels

    return Quantised(*decoder_kernels.quantise(rows.contiguous(), FP8, FP8_MAX, MIN_PEAK))
