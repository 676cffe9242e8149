"""The audio encoder's graph: features in, the decoder's cross-attention keys and values out."""

from __future__ import annotations

import numpy as np
import openvino as ov
import openvino.opset13 as op

from batched_whisper.engines.openvino.graph import (
    Layers,
    Node,
    attention,
    axis_length,
    gelu,
    model,
    slice_axis,
)
from batched_whisper.models.checkpoint import Checkpoint


def build_encoder(
    checkpoint: Checkpoint, cache_type: ov.Type, *, eight_bits: bool = False
) -> ov.Model:
    """The encoder with the cross-attention projections of every decoder layer.

    Input ``features`` is ``[batch, n_mels, 2 * context]``. Outputs, for each decoder layer, are
    keys then values, ``[batch, heads, context, head_width]`` in the caches' type. The context is
    free: positions are absolute, so a shorter window uses the first ones.
    """
    sizes = checkpoint.dimensions
    layers = Layers(checkpoint, sizes.n_audio_head, sizes.n_audio_state, eight_bits=eight_bits)
    features = op.parameter([-1, sizes.n_mels, -1], ov.Type.f32, name="features")
    x = _positioned(layers, _convolved(layers, features))
    for i in range(sizes.n_audio_layer):
        x = _block(layers, x, f"encoder.blocks.{i}")
    x = layers.layer_norm(x, "encoder.ln_post")
    outputs = []
    text = Layers(checkpoint, sizes.n_text_head, sizes.n_text_state, eight_bits=eight_bits)
    for i in range(sizes.n_text_layer):
        for part in ("key", "value"):
            projected = text.heads(x, f"decoder.blocks.{i}.cross_attn.{part}")
            outputs.append(op.convert(projected, cache_type))
    return model(outputs, [features], "whisper_encoder")


def _convolved(layers: Layers, features: Node) -> Node:
    """Two convolutions, the second halving the frames: ``[batch, context, width]``."""
    x = features
    for name, stride in (("encoder.conv1", 1), ("encoder.conv2", 2)):
        kernel = layers.weight(f"{name}.weight")
        bias = op.constant(layers.array(f"{name}.bias").reshape(1, -1, 1))
        x = gelu(op.add(op.convolution(x, kernel, [stride], [1], [1], [1]), bias))
    return op.transpose(x, [0, 2, 1])


def _positioned(layers: Layers, x: Node) -> Node:
    table = layers.weight("encoder.positional_embedding")
    return op.add(x, slice_axis(table, np.array([0]), axis_length(x, 1), axis=0))


def _block(layers: Layers, x: Node, block: str) -> Node:
    normed = layers.layer_norm(x, f"{block}.attn_ln")
    heard = attention(
        layers.queries(normed, f"{block}.attn.query"),
        layers.heads(normed, f"{block}.attn.key"),
        layers.heads(normed, f"{block}.attn.value"),
    )
    x = op.add(x, layers.linear(layers.merge(heard), f"{block}.attn.out"))
    return layers.mlp(x, block)
