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
class SelfAttentionHeads:
    """What self-attention is made of, ``[rows, heads, length, head_width]``; queries scaled."""

    queries: Node
    keys: Node
    values: Node


class TextLayers:
    """Builds the decoder's layers on one checkpoint's weights; ``x`` is ``[rows, length, width]``.

    ``cache_shape`` is that of a layer's keys or values, -1 where it is free.
    """

    def __init__(self, checkpoint: Checkpoint, *, int8: bool = False) -> None:
        sizes = checkpoint.dimensions
        self._layers = Layers(checkpoint, sizes.n_text_head, sizes.n_text_state, int8=int8)
        self.n_layers = sizes.n_text_layer
        self.cache_shape = [-1, sizes.n_text_head, -1, self._layers.head_width]

    def embed(self, tokens: Node, positions: Node) -> Node:
        """Tokens and their places, both ``[rows, length]``, as vectors."""
        layers = self._layers
        return op.add(
            op.gather(layers.weight("decoder.token_embedding.weight"), tokens, 0),
            op.gather(layers.weight("decoder.positional_embedding"), positions, 0),
        )

    def self_attention_heads(self, x: Node, i: int) -> SelfAttentionHeads:
        """Queries, keys and values of layer ``i``'s self-attention."""
        layers, name = self._layers, f"decoder.blocks.{i}.attn"
        normed = layers.layer_norm(x, f"{name}_ln")
        return SelfAttentionHeads(
            layers.queries(normed, f"{name}.query"),
            layers.heads(normed, f"{name}.key"),
            layers.heads(normed, f"{name}.value"),
        )

    def add_self_attention(self, x: Node, attended: Node, i: int) -> Node:
        """What layer ``i``'s self-attention attended, added to ``x``."""
        return self._add(x, attended, f"decoder.blocks.{i}.attn")

    def cross_queries(self, x: Node, i: int) -> Node:
        """The queries of layer ``i``'s cross-attention, scaled."""
        layers, name = self._layers, f"decoder.blocks.{i}.cross_attn"
        return layers.queries(layers.layer_norm(x, f"{name}_ln"), f"{name}.query")

    def add_cross_attention(self, x: Node, attended: Node, i: int) -> Node:
        """What layer ``i``'s cross-attention attended, added to ``x``."""
        return self._add(x, attended, f"decoder.blocks.{i}.cross_attn")

    def mlp(self, x: Node, i: int) -> Node:
        """Layer ``i``'s mlp, added to ``x``."""
        return self._layers.mlp(x, f"decoder.blocks.{i}")

    def logits(self, x: Node, *, only_last: bool = False) -> Node:
        """``[rows, length, n_vocab]``, or ``[rows, n_vocab]`` of the last place alone."""
        normed = self._layers.layer_norm(x, "decoder.ln")
        if only_last:
            normed = op.gather(normed, np.array(-1), np.array(1))
        return self._layers.project(normed, "decoder.token_embedding.weight")

    def _add(self, x: Node, attended: Node, name: str) -> Node:
        return op.add(x, self._layers.linear(self._layers.merge(attended), f"{name}.out"))
