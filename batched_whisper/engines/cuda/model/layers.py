"""The layers of Whisper as calls on tensors, built from named weights.

Names of weights are those of openai/whisper. Layers are functional with one exception: the output
of a residual block is added to its input in place, by the matrix product itself. The biases of
those products are deferred: the next layer norm adds their sum, so that only norms make an extra
pass over memory. This module knows nothing of slots.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray

LAYER_NORM_EPSILON = 1e-5


class Layer(Protocol):
    """A linear layer."""

    @property
    def bias(self) -> torch.Tensor | None:
        """``[out]``, or None."""

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``[n, in]`` to ``[n, out]``, with the bias."""

    def gelu(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the layer, then GELU."""

    def add_to(self, x: torch.Tensor, y: torch.Tensor) -> None:
        """Add the layer's output for ``y``, without its bias, to ``x`` ``[n, out]`` in place."""


@dataclass(frozen=True)
class Linear:
    """``x @ weight.T + bias``; weight is ``[out, in]``."""

    weight: torch.Tensor
    bias: torch.Tensor | None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """See `Layer`."""
        return F.linear(x, self.weight, self.bias)

    def gelu(self, x: torch.Tensor) -> torch.Tensor:
        """See `Layer`. In 16 bits, use the approximation with the hyperbolic tangent.

        (Hendrycks and Gimpel 2016, Gaussian Error Linear Units.) A GPU's library computes it within
        the product, without another pass over memory. Its error is at most 5e-4, less than 16 bits
        round there, and it changes no transcript (docs/lab-log.md).
        """
        if x.dtype is torch.float32 or self.bias is None:
            return F.gelu(self(x))
        return torch._addmm_activation(self.bias, x, self.weight.T, use_gelu=True)

    def add_to(self, x: torch.Tensor, y: torch.Tensor) -> None:
        """See `Layer`; summed before rounding."""
        x.addmm_(y, self.weight.T)


class Normalise(Protocol):
    """Layer norm over the last axis of ``x + deferred_bias``."""

    def __call__(
        self,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        deferred_bias: torch.Tensor | None,
    ) -> torch.Tensor:
        """Normalise ``[n, width]``; weight and both biases are ``[width]`` float32."""


def normalise(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, deferred_bias: torch.Tensor | None
) -> torch.Tensor:
    """See `Normalise`: the definition."""
    wide = x.float() if deferred_bias is None else x.float() + deferred_bias
    return F.layer_norm(wide, weight.shape, weight, bias, LAYER_NORM_EPSILON).to(x.dtype)


@dataclass(frozen=True)
class LayerNorm:
    """Layer norm of a residual sum, including the deferred biases of the blocks before it."""

    weight: torch.Tensor
    bias: torch.Tensor
    deferred_bias: torch.Tensor | None
    normalise: Normalise

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise ``[n, width]``."""
        return self.normalise(x, self.weight, self.bias, self.deferred_bias)


@dataclass(frozen=True)
class Mlp:
    """A block's two linear layers with their layer norm."""

    norm: LayerNorm
    first: Layer
    second: Layer

    def add_to(self, x: torch.Tensor) -> None:
        """Add the MLP's output to ``x`` in place, without its last bias."""
        self.second.add_to(x, self.first.gelu(self.norm(x)))


@dataclass(frozen=True)
class Weights:
    """A checkpoint's weights on a device.

    Args:
        arrays: those of `models.checkpoint.Checkpoint`.
        device: the device.
        dtype: the type of the weights there.
        make_linear: makes a linear layer from its weight and bias.
        normalise: computes layer norms.
    """

    arrays: Mapping[str, NDArray[Any]]
    device: torch.device
    dtype: torch.dtype
    make_linear: Callable[[torch.Tensor, torch.Tensor | None], Layer] = Linear
    normalise: Normalise = normalise

    def tensor(self, name: str, dtype: torch.dtype | None = None) -> torch.Tensor:
        """Return the tensor of that name on the device."""
        # Copy first: the checkpoint's arrays are read-only views of a file.
        copied = torch.from_numpy(np.array(self.arrays[name], order="C"))
        return copied.to(self.device, dtype or self.dtype)

    def linear(self, *names: str) -> Layer:
        """Return one layer that computes several side by side; keys have no bias."""
        weights = [self.tensor(f"{name}.weight") for name in names]
        biases = self._biases(names, weights)
        weight = weights[0] if len(weights) == 1 else torch.cat(weights)
        return self.make_linear(weight, torch.cat(biases) if biases else None)

    def layer_norm(self, name: str, deferred_bias: torch.Tensor | None = None) -> LayerNorm:
        """Return the layer norm of that name, with the deferred biases of its input."""
        weight, bias = (self.tensor(f"{name}.{part}", torch.float32) for part in ("weight", "bias"))
        return LayerNorm(weight, bias, deferred_bias, self.normalise)

    def mlp(self, block: str, deferred_bias: torch.Tensor | None) -> Mlp:
        """Return the MLP of a block."""
        return Mlp(
            self.layer_norm(f"{block}.mlp_ln", deferred_bias),
            self.linear(f"{block}.mlp.0"),
            self.linear(f"{block}.mlp.2"),
        )

    def convolution(self, name: str) -> Linear:
        """Return a convolution of width 3 as a product: ``[out, 3 * in]``, see `convolve`."""
        taps = self.tensor(f"{name}.weight").transpose(1, 2)  # [out, 3, in]
        return Linear(taps.flatten(1).contiguous(), self.tensor(f"{name}.bias"))

    def _biases(self, names: Sequence[str], weights: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        if not any(f"{name}.bias" in self.arrays for name in names):
            return []
        return [
            self.tensor(f"{name}.bias")
            if f"{name}.bias" in self.arrays
            else weight.new_zeros(weight.shape[0])
            for name, weight in zip(names, weights, strict=True)
        ]


def add_deferred_bias(deferred_bias: torch.Tensor | None, layer: Layer) -> torch.Tensor | None:
    """Return the deferred biases after a layer's `add_to`."""
    if layer.bias is None:
        return deferred_bias
    return layer.bias.float() if deferred_bias is None else deferred_bias + layer.bias.float()


def convolve(x: torch.Tensor, layer: Linear, stride: int) -> torch.Tensor:
    """Apply a convolution of width 3, zero-padded by one, and GELU as one matrix product.

    ``[n, in]`` to ``[n / stride, out]``. As a matrix product it keeps the layout and the precision
    of the layers after it: cuDNN would compute float32 in fewer bits.
    """
    padded = F.pad(x, (0, 0, 1, 1))
    taps = padded.unfold(0, 3, stride).transpose(1, 2)  # [n / stride, 3, in]
    return layer.gelu(taps.flatten(1))


def split(x: torch.Tensor, n_heads: int) -> torch.Tensor:
    """View ``[batch, length, width]`` as ``[batch, heads, length, head_width]``."""
    return x.unflatten(-1, (n_heads, -1)).transpose(1, 2)


def merge(x: torch.Tensor) -> torch.Tensor:
    """Undo `split`."""
    return x.transpose(1, 2).flatten(2)
