"""The layers that Whisper is made of, as OpenVINO graph nodes, straight from named weights.

Names of weights are openai/whisper's. Knows nothing of slots, files or precision: the runtime
chooses the arithmetic when it compiles the graph.
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
    """Builds layers on one checkpoint's weights.

    Constants are made once per tensor, so that a weight used twice (the token embedding) is in
    memory once.
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
        """The tensor of that name as a float32 constant."""
        if name not in self._constants:
            self._constants[name] = op.constant(self.array(name))
        return self._constants[name]

    def array(self, name: str) -> NDArray[np.float32]:
        """The tensor of that name in float32."""
        return np.ascontiguousarray(self._weights[name], dtype=np.float32)

    def project(self, x: Node, name: str) -> Node:
        """``x @ weight.T``, where requested for in 8 bits.

        The weights then have a scale for each output; the activations get theirs token by token
        while the model runs, so nothing has to be calibrated.
        """
        weight = self._compressed(name) if self._int8 else self.weight(name)
        return op.matmul(x, weight, False, True)

    def _compressed(self, name: str) -> Node:
        """Integers from -127 to 127 and a scale for each row; symmetric, to the nearest."""
        array = self.array(name)
        scale = np.maximum(np.abs(array).max(axis=1, keepdims=True), 1e-12) / 127
        integers = op.constant(np.round(array / scale).astype(np.int8))
        return op.multiply(op.convert(integers, "f32"), op.constant(scale.astype(np.float32)))

    def linear(self, x: Node, name: str) -> Node:
        """``x @ weight.T + bias``; keys have no bias."""
        y = self.project(x, f"{name}.weight")
        bias = f"{name}.bias"
        return op.add(y, self.weight(bias)) if bias in self._weights else y

    def layer_norm(self, x: Node, name: str) -> Node:
        """Over the last axis."""
        y = op.mvn(x, [-1], True, LAYER_NORM_EPSILON, "INSIDE_SQRT")
        return op.add(op.multiply(y, self.weight(f"{name}.weight")), self.weight(f"{name}.bias"))

    def mlp(self, x: Node, block: str) -> Node:
        """The two-layer mlp of a block, with its layer norm and residual."""
        hidden = self.linear(self.layer_norm(x, f"{block}.mlp_ln"), f"{block}.mlp.0")
        return op.add(x, self.linear(gelu(hidden), f"{block}.mlp.2"))

    def heads(self, x: Node, name: str) -> Node:
        """A projection split into heads: ``[batch, length, width]`` to ``[b, heads, l, 64]``."""
        return self.split(self.linear(x, name))

    def queries(self, x: Node, name: str) -> Node:
        """Like `heads`, scaled for attention."""
        scaled = op.multiply(self.linear(x, name), np.float32(self.head_width**-0.5))
        return self.split(scaled)

    def split(self, x: Node) -> Node:
        """``[batch, length, width]`` to ``[batch, heads, length, head_width]``."""
        shape = [0, 0, self.n_heads, self.head_width]
        return op.transpose(op.reshape(x, shape, True), [0, 2, 1, 3])

    def merge(self, x: Node) -> Node:
        """The inverse of `split`."""
        return op.reshape(op.transpose(x, [0, 2, 1, 3]), [0, 0, self.width], True)


def gelu(x: Node) -> Node:
    """The exact one, as Whisper was trained with."""
    return op.gelu(x, "erf")


def attention(queries: Node, keys: Node, values: Node, mask: Node | None = None) -> Node:
    """Softmax attention; ``mask`` is added to the scores.

    Written as these three operations in this layout because the runtime then runs them as one
    kernel, which is best for many queries or few keys.
    """
    scores = op.matmul(queries, keys, False, True)
    if mask is not None:
        scores = op.add(scores, mask)
    return op.matmul(op.softmax(scores, -1), values, False, False)


def attention_of_few(queries: Node, keys: Node, values: Node, mask: Node) -> Node:
    """The same for few queries of many keys, where reading the keys and values is the work.

    The runtime's one kernel first lays them out anew for its products, which a single query does
    not repay. An axis more and less keeps the products apart, and they read 1.5 times as fast.
    """
    scores = op.add(op.matmul(queries, keys, False, True), mask)
    weights = op.softmax(op.unsqueeze(scores, np.array([0])), -1)
    return op.matmul(op.squeeze(weights, np.array([0])), values, False, False)


def attention_weights(queries: Node, keys: Node, mask: Node) -> Node:
    """The weights of `attention`, for those who want to see them."""
    return op.softmax(op.add(op.matmul(queries, keys, False, True), mask), -1)


def log_sum_exp(x: Node, highest: Node) -> Node:
    """Over the last axis, whose maximum is ``highest``; rows of nothing but -inf give -inf."""
    floor = op.maximum(highest, np.float32(-1e30))
    total = op.reduce_sum(op.exp(op.subtract(x, floor)), np.array([-1]), True)
    return op.add(op.log(total), floor)


def axis_length(x: Node, axis: int) -> Node:
    """The length of one axis, as a tensor of one element."""
    return op.gather(op.shape_of(x), np.array([axis]), np.array(0))


def slice_axis(x: Node, start: Node, stop: Node, axis: int) -> Node:
    """``x[start:stop]`` along one axis."""
    one = np.array([1])
    return op.slice(x, start, stop, one, np.array([axis]))


def model(outputs: list[Node], inputs: list[Node], name: str) -> ov.Model:
    """A graph of these outputs, in this order."""
    return ov.Model([op.result(node) for node in outputs], inputs, name)
