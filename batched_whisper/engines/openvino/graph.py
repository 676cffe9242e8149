"""The layers of Whisper as OpenVINO graph nodes, built from named weights.

Names of weights are those of openai/whisper. This module knows nothing of slots, files or
precision: the runtime selects the precision when it compiles the graph.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from batched_whisper._openvino import op, ov
from batched_whisper.models.checkpoint import Checkpoint

Node = Any  # OpenVINO's nodes are untyped

LAYER_NORM_EPSILON = 1e-5


class Layers:
    """Builds layers from one checkpoint's weights.

    Each tensor becomes one constant, so that a weight used twice (the token embedding) is in memory
    once.
    """

    def __init__(
        self, checkpoint: Checkpoint, n_heads: int, width: int, *, int8: bool = False
    ) -> None:
        self._int8 = int8
        self._weights = checkpoint.weights
        self._constants: dict[str, Node] = {}
        self.n_heads = n_heads
        self.width = width
        self.head_width = width // n_heads

    def weight(self, name: str) -> Node:
        """Return the tensor of that name as a float32 constant."""
        if name not in self._constants:
            self._constants[name] = op.constant(self.array(name))
        return self._constants[name]

    def array(self, name: str) -> NDArray[np.float32]:
        """Return the tensor of that name in float32."""
        return np.ascontiguousarray(self._weights[name], dtype=np.float32)

    def project(self, x: Node, name: str) -> Node:
        """Multiply ``x @ weight.T``, with int8 weights if ``int8`` is set.

        Such weights have a scale per output. The runtime computes the scales of the activations per
        token, so no calibration is needed.
        """
        weight = self._quantised(name) if self._int8 else self.weight(name)
        return op.matmul(x, weight, False, True)

    def _quantised(self, name: str) -> Node:
        """Quantise to integers from -127 to 127 with a scale per row, symmetrically."""
        array = self.array(name)
        scale = np.maximum(np.abs(array).max(axis=1, keepdims=True), 1e-12) / 127
        integers = op.constant(np.round(array / scale).astype(np.int8))
        return op.multiply(op.convert(integers, "f32"), op.constant(scale.astype(np.float32)))

    def linear(self, x: Node, name: str) -> Node:
        """Apply a linear layer, ``x @ weight.T + bias``; keys have no bias."""
        y = self.project(x, f"{name}.weight")
        bias = f"{name}.bias"
        return op.add(y, self.weight(bias)) if bias in self._weights else y

    def layer_norm(self, x: Node, name: str) -> Node:
        """Normalise over the last axis."""
        y = op.mvn(x, [-1], True, LAYER_NORM_EPSILON, "INSIDE_SQRT")
        return op.add(op.multiply(y, self.weight(f"{name}.weight")), self.weight(f"{name}.bias"))

    def mlp(self, x: Node, block: str) -> Node:
        """Apply a block's MLP with its layer norm and residual connection."""
        hidden = self.linear(self.layer_norm(x, f"{block}.mlp_ln"), f"{block}.mlp.0")
        return op.add(x, self.linear(gelu(hidden), f"{block}.mlp.2"))

    def heads(self, x: Node, name: str) -> Node:
        """Project, and split into heads: ``[batch, heads, length, head_width]``."""
        return self.split(self.linear(x, name))

    def queries(self, x: Node, name: str) -> Node:
        """Like `heads`, scaled by ``head_width**-0.5``."""
        scaled = op.multiply(self.linear(x, name), np.float32(self.head_width**-0.5))
        return self.split(scaled)

    def split(self, x: Node) -> Node:
        """Split ``[batch, length, width]`` into ``[batch, heads, length, head_width]``."""
        shape = [0, 0, self.n_heads, self.head_width]
        return op.transpose(op.reshape(x, shape, True), [0, 2, 1, 3])

    def merge(self, x: Node) -> Node:
        """Undo `split`."""
        return op.reshape(op.transpose(x, [0, 2, 1, 3]), [0, 0, self.width], True)


def gelu(x: Node) -> Node:
    """Compute the exact GELU, which Whisper was trained with."""
    return op.gelu(x, "erf")


def attention(queries: Node, keys: Node, values: Node, mask: Node | None = None) -> Node:
    """Compute softmax attention; ``mask`` is added to the scores.

    The runtime recognises these three operations in this layout and runs them as one kernel, which
    is fastest for many queries or few keys.
    """
    scores = op.matmul(queries, keys, False, True)
    if mask is not None:
        scores = op.add(scores, mask)
    return op.matmul(op.softmax(scores, -1), values, False, False)


def attention_of_few(queries: Node, keys: Node, values: Node, mask: Node) -> Node:
    """Compute the same for few queries over many keys, where reading keys and values dominates.

    The runtime's fused kernel first repacks them for its products, which one query does not repay.
    An extra axis, added and removed, prevents the fusion: keys and values are then read 1.5 times
    as fast.
    """
    scores = op.add(op.matmul(queries, keys, False, True), mask)
    weights = op.softmax(op.unsqueeze(scores, np.array([0])), -1)
    return op.matmul(op.squeeze(weights, np.array([0])), values, False, False)


def attention_weights(queries: Node, keys: Node, mask: Node) -> Node:
    """Compute the weights of `attention` as an output."""
    return op.softmax(op.add(op.matmul(queries, keys, False, True), mask), -1)


def log_sum_exp(x: Node, highest: Node) -> Node:
    """Compute log-sum-exp over the last axis, given its maximum; -inf if all are -inf."""
    floor = op.maximum(highest, np.float32(-1e30))
    total = op.reduce_sum(op.exp(op.subtract(x, floor)), np.array([-1]), True)
    return op.add(op.log(total), floor)


def axis_length(x: Node, axis: int) -> Node:
    """Return the length of one axis as a tensor of one element."""
    return op.gather(op.shape_of(x), np.array([axis]), np.array(0))


def slice_axis(x: Node, start: Node, stop: Node, axis: int) -> Node:
    """Return ``x[start:stop]`` along one axis."""
    one = np.array([1])
    return op.slice(x, start, stop, one, np.array([axis]))


def model(outputs: list[Node], inputs: list[Node], name: str) -> ov.Model:
    """Build a graph with these outputs, in this order."""
    return ov.Model([op.result(node) for node in outputs], inputs, name)
