"""The layers that Whisper is made of, as calls on tensors, straight from named weights.

Names of weights are openai/whisper's. Everything is functional: no modules, no gradients. Knows
nothing of slots.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray

LAYER_NORM_EPSILON = 1e-5

Layer = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Linear:
    """``x @ weight.T + bias``; weight is ``[out, in]``."""

    weight: torch.Tensor
    bias: torch.Tensor | None

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """``[..., in]`` to ``[..., out]``."""
        return F.linear(x, self.weight, self.bias)


@dataclass(frozen=True)
class LayerNorm:
    """Over the last axis."""

    weight: torch.Tensor
    bias: torch.Tensor

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Of the same shape."""
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, LAYER_NORM_EPSILON)


@dataclass(frozen=True)
class Perceptron:
    """A block's two linear layers with their norm; what is added to ``x``."""

    norm: LayerNorm
    first: Layer
    second: Layer

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Of the same shape; GELU is the exact one, as Whisper was trained with."""
        return self.second(F.gelu(self.first(self.norm(x))))


@dataclass(frozen=True)
class Weights:
    """A checkpoint's weights on a device.

    Args:
        arrays: those of `models.checkpoint.Checkpoint`.
        device: where they go.
        dtype: what they become.
        make_linear: makes a linear layer of its weight and bias.
    """

    arrays: Mapping[str, NDArray[Any]]
    device: torch.device
    dtype: torch.dtype
    make_linear: Callable[[torch.Tensor, torch.Tensor | None], Layer] = Linear

    def tensor(self, name: str) -> torch.Tensor:
        """The tensor of that name."""
        # A copy on the way: the checkpoint's arrays are read-only views of a file.
        copied = torch.from_numpy(np.array(self.arrays[name], order="C"))
        return copied.to(self.device, self.dtype)

    def linear(self, *names: str) -> Layer:
        """One layer that computes several side by side; keys have no bias."""
        weights = [self.tensor(f"{name}.weight") for name in names]
        biases = self._biases(names, weights)
        weight = weights[0] if len(weights) == 1 else torch.cat(weights)
        return self.make_linear(weight, torch.cat(biases) if biases else None)

    def layer_norm(self, name: str) -> LayerNorm:
        """The norm of that name."""
        return LayerNorm(self.tensor(f"{name}.weight"), self.tensor(f"{name}.bias"))

    def perceptron(self, block: str) -> Perceptron:
        """The perceptron of a block."""
        return Perceptron(
            self.layer_norm(f"{block}.mlp_ln"),
            self.linear(f"{block}.mlp.0"),
            self.linear(f"{block}.mlp.2"),
        )

    def convolution(self, name: str) -> Linear:
        """A convolution of width 3 as a product: weight ``[out, in * 3]``."""
        return Linear(self.tensor(f"{name}.weight").flatten(1), self.tensor(f"{name}.bias"))

    def _biases(self, names: Sequence[str], weights: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        if not any(f"{name}.bias" in self.arrays for name in names):
            return []
        return [
            self.tensor(f"{name}.bias")
            if f"{name}.bias" in self.arrays
            else weight.new_zeros(weight.shape[0])
            for name, weight in zip(names, weights, strict=True)
        ]


def convolved(x: torch.Tensor, layer: Linear, stride: int) -> torch.Tensor:
    """A convolution of width 3 with one zero on both sides, as one product of matrices.

    ``[batch, n, in]`` to ``[batch, n / stride, out]``. As a product it stays in the layout of the
    layers after it, and in their arithmetic: cuDNN would compute float32 in fewer bits.
    """
    padded = F.pad(x, (0, 0, 1, 1))
    taps = padded.unfold(1, 3, stride)  # [batch, n / stride, in, 3]
    return F.gelu(layer(taps.flatten(2)))


def split(x: torch.Tensor, n_heads: int) -> torch.Tensor:
    """``[batch, length, width]`` to ``[batch, heads, length, head_width]``, a view."""
    return x.unflatten(-1, (n_heads, -1)).transpose(1, 2)


def merge(x: torch.Tensor) -> torch.Tensor:
    """The inverse of `split`."""
    return x.transpose(1, 2).flatten(2)
