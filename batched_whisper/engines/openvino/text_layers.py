"""The text decoder's layers, shared by the graphs of one step and of whole texts.

Each graph computes the attention between these parts itself, because the graphs differ there: in
keys and values, in where they are stored, and in what is output.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from batched_whisper._openvino import op
from batched_whisper.engines.openvino.graph import Layers, Node
from batched_whisper.models.checkpoint import Checkpoint


@dataclass(frozen=True)
class SelfAttentionHeads:
    """Inputs of self-attention, ``[rows, heads, length, head_width]`` each; queries are scaled."""

    queries: Node
    keys: Node
    values: Node


class TextLayers:
    """Builds the decoder's layers from one checkpoint; ``x`` is ``[rows, length, width]``.

    ``cache_shape`` is the shape of a layer's keys or values, with -1 for dynamic axes.
    """

    def __init__(self, checkpoint: Checkpoint, *, int8: bool = False) -> None:
        sizes = checkpoint.dimensions
        self._layers = Layers(checkpoint, sizes.n_text_head, sizes.n_text_state, int8=int8)
        self.n_layers = sizes.n_text_layer
        self.cache_shape = [-1, sizes.n_text_head, -1, self._layers.head_width]

    def embed(self, tokens: Node, positions: Node) -> Node:
        """Embed tokens and positions, both ``[rows, length]``."""
        layers = self._layers
        return op.add(
            op.gather(layers.weight("decoder.token_embedding.weight"), tokens, 0),
            op.gather(layers.weight("decoder.positional_embedding"), positions, 0),
        )

    def self_attention_heads(self, x: Node, i: int) -> SelfAttentionHeads:
        """Compute queries, keys and values of layer ``i``'s self-attention."""
        layers, name = self._layers, f"decoder.blocks.{i}.attn"
        normed = layers.layer_norm(x, f"{name}_ln")
        return SelfAttentionHeads(
            layers.queries(normed, f"{name}.query"),
            layers.heads(normed, f"{name}.key"),
            layers.heads(normed, f"{name}.value"),
        )

    def add_self_attention(self, x: Node, attended: Node, i: int) -> Node:
        """Add layer ``i``'s projected self-attention output to ``x``."""
        return self._add(x, attended, f"decoder.blocks.{i}.attn")

    def cross_queries(self, x: Node, i: int) -> Node:
        """Compute the queries of layer ``i``'s cross-attention, scaled."""
        layers, name = self._layers, f"decoder.blocks.{i}.cross_attn"
        return layers.queries(layers.layer_norm(x, f"{name}_ln"), f"{name}.query")

    def add_cross_attention(self, x: Node, attended: Node, i: int) -> Node:
        """Add layer ``i``'s projected cross-attention output to ``x``."""
        return self._add(x, attended, f"decoder.blocks.{i}.cross_attn")

    def mlp(self, x: Node, i: int) -> Node:
        """Add layer ``i``'s MLP to ``x``."""
        return self._layers.mlp(x, f"decoder.blocks.{i}")

    def logits(self, x: Node, *, only_last: bool = False) -> Node:
        """Compute logits, ``[rows, length, n_vocab]``; of the last position ``[rows, n_vocab]``."""
        normed = self._layers.layer_norm(x, "decoder.ln")
        if only_last:
            normed = op.gather(normed, np.array(-1), np.array(1))
        return self._layers.project(normed, "decoder.token_embedding.weight")

    def _add(self, x: Node, attended: Node, name: str) -> Node:
        return op.add(x, self._layers.linear(self._layers.merge(attended), f"{name}.out"))
