"""The layers that Whisper is made of, as calls on tensors, straight from named weights.

Names of weights are openai/whisper's. Everything is functional but for one value: what a block says
is added to its input in place, by the product itself. The biases of those products are not added
to it at all: the next norm knows their sum, so that nothing but norms passes over it. Knows nothing
of slots.
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
        """``[out]``, where it has one."""

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """``[n, in]`` to ``[n, out]``, with the bias."""

    def gelu(self, x: torch.Tensor) -> torch.Tensor:
        """GELU of what the layer makes of ``x``."""

    def add_to(self, x: torch.Tensor, y: torch.Tensor) -> None:
        """Add to ``x`` ``[n, out]``, in place, what the layer makes of ``y``, without the bias."""


@dataclass(frozen=True)
class Linear:
    """``x @ weight.T + bias``; weight is ``[out, in]``."""

    weight: torch.Tensor
    bias: torch.Tensor | None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """See `Layer`."""
        return F.linear(x, self.weight, self.bias)

    def gelu(self, x: torch.Tensor) -> torch.Tensor:
        """See `Layer`. In 16 bits by its formula with the hyperbolic tangent.

        (Hendrycks and Gimpel 2016, Gaussian Error Linear Units.) That one a GPU's library computes
        on the way out of the product, without another pass over memory. It is off by 5e-4 at most,
        less than 16 bits round there, and costs no word (docs/lab-log.md).
        """
        if x.dtype is torch.float32 or self.bias is None:
            return F.gelu(self(x))
        return torch._addmm_activation(self.bias, x, self.weight.T, use_gelu=True)

    def add_to(self, x: torch.Tensor, y: torch.Tensor) -> None:
        """See `Layer`; summed before it is rounded."""
        x.addmm_(y, self.weight.T)


class Normalise(Protocol):
    """Layer norm over the last axis of ``x + deferred_bias``, each row by itself."""

    def __call__(
        self,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        deferred_bias: torch.Tensor | None,
    ) -> torch.Tensor:
        """``[n, width]`` to the same; ``weight``, ``bias`` and ``deferred_bias`` are ``[width]`` float32."""


def normalise(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, deferred_bias: torch.Tensor | None
) -> torch.Tensor:
    """See `Normalise`: the definition."""
    wide = x.float() if deferred_bias is None else x.float() + deferred_bias
    return F.layer_norm(wide, weight.shape, weight, bias, LAYER_NORM_EPSILON).to(x.dtype)


@dataclass(frozen=True)
class LayerNorm:
    """Of what blocks have added to so far; ``deferred_bias`` is the sum of biases that they left out."""

    weight: torch.Tensor
    bias: torch.Tensor
    deferred_bias: torch.Tensor | None
    normalise: Normalise

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Of the same shape."""
        return self.normalise(x, self.weight, self.bias, self.deferred_bias)


@dataclass(frozen=True)
class Mlp:
    """A block's two linear layers with their norm."""

    norm: LayerNorm
    first: Layer
    second: Layer

    def add_to(self, x: torch.Tensor) -> None:
        """In place, but for the last bias."""
        self.second.add_to(x, self.first.gelu(self.norm(x)))


@dataclass(frozen=True)
class Weights:
    """A checkpoint's weights on a device.

    Args:
        arrays: those of `models.checkpoint.Checkpoint`.
        device: where they go.
        dtype: what they become.
        make_linear: makes a linear layer of its weight and bias.
        normalise: how norms are computed.
    """

    arrays: Mapping[str, NDArray[Any]]
    device: torch.device
    dtype: torch.dtype
    make_linear: Callable[[torch.Tensor, torch.Tensor | None], Layer] = Linear
    normalise: Normalise = normalise

    def tensor(self, name: str, dtype: torch.dtype | None = None) -> torch.Tensor:
        """The tensor of that name."""
        # A copy on the way: the checkpoint's arrays are read-only views of a file.
        copied = torch.from_numpy(np.array(self.arrays[name], order="C"))
        return copied.to(self.device, dtype or self.dtype)

    def linear(self, *names: str) -> Layer:
        """One layer that computes several side by side; keys have no bias."""
        weights = [self.tensor(f"{name}.weight") for name in names]
        biases = self._biases(names, weights)
        weight = weights[0] if len(weights) == 1 else torch.cat(weights)
        return self.make_linear(weight, torch.cat(biases) if biases else None)

    def layer_norm(self, name: str, deferred_bias: torch.Tensor | None = None) -> LayerNorm:
        """The norm of that name, of what is short of the biases ``deferred_bias``."""
        weight, bias = (self.tensor(f"{name}.{part}", torch.float32) for part in ("weight", "bias"))
        return LayerNorm(weight, bias, deferred_bias, self.normalise)

    def mlp(self, block: str, deferred_bias: torch.Tensor | None) -> Mlp:
        """The mlp of a block."""
        return Mlp(
            self.layer_norm(f"{block}.mlp_ln", deferred_bias),
            self.linear(f"{block}.mlp.0"),
            self.linear(f"{block}.mlp.2"),
        )

    def convolution(self, name: str) -> Linear:
        """A convolution of width 3 as a product: weight ``[out, 3 * in]``, see `convolve`."""
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
    """What is deferred_bias after a layer's `add_to`."""
    if layer.bias is None:
        return deferred_bias
    return layer.bias.float() if deferred_bias is None else deferred_bias + layer.bias.float()


def convolve(x: torch.Tensor, layer: Linear, stride: int) -> torch.Tensor:
    """A convolution of width 3 with one zero on both sides, as one product of matrices.

    ``[n, in]`` to ``[n / stride, out]``. As a product it stays in the layout of the layers after
    it, and in their arithmetic: cuDNN would compute float32 in fewer bits.
    """
    padded = F.pad(x, (0, 0, 1, 1))
    taps = padded.unfold(0, 3, stride).transpose(1, 2)  # [n / stride, 3, in]
    return layer.gelu(taps.flatten(1))


def split(x: torch.Tensor, n_heads: int) -> torch.Tensor:
    """``[batch, length, width]`` to ``[batch, heads, length, head_width]``, a view."""
    return x.unflatten(-1, (n_heads, -1)).transpose(1, 2)


def merge(x: torch.Tensor) -> torch.Tensor:
    """The inverse of `split`."""
    return x.transpose(1, 2).flatten(2)
