"""The text decoder's layers, for every graph that runs it: one token a step, or a whole text.

Between these pieces a graph does the attention itself, because that is where graphs differ: what
is attended to, where it lies, and what of it is wanted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from batched_whisper._openvino import op
from batched_whisper.engines.openvino.graph import Layers, Node
from batched_whisper.models.checkpoint import Checkpoint


@dataclass(frozen=True)
class OwnHeads:
    """What self-attention is made of, ``[rows, heads, length, head_width]``; queries scaled."""

    queries: Node
    keys: Node
    values: Node


class TextLayers:
    """Builds the decoder's layers on one checkpoint's weights; ``x`` is ``[rows, length, width]``.

    ``cache_shape`` is that of a layer's keys or values, -1 where it is free.
    """

    def __init__(self, checkpoint: Checkpoint, *, eight_bits: bool = False) -> None:
        sizes = checkpoint.dimensions
        self._layers = Layers(
            checkpoint, sizes.n_text_head, sizes.n_text_state, eight_bits=eight_bits
        )
        self.n_layers = sizes.n_text_layer
        self.cache_shape = [-1, sizes.n_text_head, -1, self._layers.head_width]

    def embedded(self, tokens: Node, positions: Node) -> Node:
        """Tokens and their places, both ``[rows, length]``, as vectors."""
        layers = self._layers
        return op.add(
            op.gather(layers.weight("decoder.token_embedding.weight"), tokens, 0),
            op.gather(layers.weight("decoder.positional_embedding"), positions, 0),
        )

    def own_heads(self, x: Node, i: int) -> OwnHeads:
        """Queries, keys and values of layer ``i``'s self-attention."""
        layers, name = self._layers, f"decoder.blocks.{i}.attn"
        normed = layers.layer_norm(x, f"{name}_ln")
        return OwnHeads(
            layers.queries(normed, f"{name}.query"),
            layers.heads(normed, f"{name}.key"),
            layers.heads(normed, f"{name}.value"),
        )

    def add_own(self, x: Node, heard: Node, i: int) -> Node:
        """What layer ``i``'s self-attention heard, added to ``x``."""
        return self._add(x, heard, f"decoder.blocks.{i}.attn")

    def cross_queries(self, x: Node, i: int) -> Node:
        """The queries of layer ``i``'s cross-attention, scaled."""
        layers, name = self._layers, f"decoder.blocks.{i}.cross_attn"
        return layers.queries(layers.layer_norm(x, f"{name}_ln"), f"{name}.query")

    def add_cross(self, x: Node, heard: Node, i: int) -> Node:
        """What layer ``i``'s cross-attention heard, added to ``x``."""
        return self._add(x, heard, f"decoder.blocks.{i}.cross_attn")

    def perceptron(self, x: Node, i: int) -> Node:
        """Layer ``i``'s perceptron, added to ``x``."""
        return self._layers.mlp(x, f"decoder.blocks.{i}")

    def logits(self, x: Node, *, only_last: bool = False) -> Node:
        """``[rows, length, n_vocab]``, or ``[rows, n_vocab]`` of the last place alone."""
        normed = self._layers.layer_norm(x, "decoder.ln")
        if only_last:
            normed = op.gather(normed, np.array(-1), np.array(1))
        return self._layers.project(normed, "decoder.token_embedding.weight")

    def _add(self, x: Node, heard: Node, name: str) -> Node:
        return op.add(x, self._layers.linear(self._layers.merge(heard), f"{name}.out"))
