"""The audio encoder's graph: features to the decoder's cross-attention keys and values."""

from __future__ import annotations

from batched_whisper._openvino import op, ov
from batched_whisper.engines.openvino.graph import (
    Layers,
    Node,
    attention,
    gelu,
    model,
)
from batched_whisper.models.checkpoint import Checkpoint


def build_encoder(checkpoint: Checkpoint, cache_type: ov.Type, *, int8: bool = False) -> ov.Model:
    """Build the encoder with the cross-attention projections of every decoder layer.

    Inputs, in this order: ``features`` ``[batch, n_mels, frames]``; then the layout of all windows
    in the batch (`merged_padding.Layout`): ``frames`` and ``positions`` ``[n]``, ``scores`` ``[1,
    1, 1, n]``. Outputs: keys, then values of each decoder layer, ``[batch, heads, n, head_width]``
    in the caches' type.
    """
    sizes = checkpoint.dimensions
    layers = Layers(checkpoint, sizes.n_audio_head, sizes.n_audio_state, int8=int8)
    features = op.parameter([-1, sizes.n_mels, -1], ov.Type.f32, name="features")
    frames = op.parameter([-1], ov.Type.i32, name="frames")
    positions = op.parameter([-1], ov.Type.i32, name="positions")
    scores = op.parameter([1, 1, 1, -1], ov.Type.f32, name="scores")
    embeddings = op.gather(layers.weight("encoder.positional_embedding"), positions, 0)
    x = op.add(op.gather(_convolve(layers, features), frames, 1), embeddings)
    for i in range(sizes.n_audio_layer):
        x = _encoder_block(layers, x, scores, f"encoder.blocks.{i}")
    x = layers.layer_norm(x, "encoder.ln_post")
    outputs = []
    text = Layers(checkpoint, sizes.n_text_head, sizes.n_text_state, int8=int8)
    for i in range(sizes.n_text_layer):
        for part in ("key", "value"):
            projected = text.heads(x, f"decoder.blocks.{i}.cross_attn.{part}")
            outputs.append(op.convert(projected, cache_type))
    return model(outputs, [features, frames, positions, scores], "whisper_encoder")


def _convolve(layers: Layers, features: Node) -> Node:
    """Apply two convolutions; the second halves the frames: ``[batch, frames / 2, width]``."""
    x = features
    for name, stride in (("encoder.conv1", 1), ("encoder.conv2", 2)):
        kernel = layers.weight(f"{name}.weight")
        bias = op.constant(layers.array(f"{name}.bias").reshape(1, -1, 1))
        x = gelu(op.add(op.convolution(x, kernel, [stride], [1], [1], [1]), bias))
    return op.transpose(x, [0, 2, 1])


def _encoder_block(layers: Layers, x: Node, scores: Node, block: str) -> Node:
    normed = layers.layer_norm(x, f"{block}.attn_ln")
    attended = attention(
        layers.queries(normed, f"{block}.attn.query"),
        layers.heads(normed, f"{block}.attn.key"),
        layers.heads(normed, f"{block}.attn.value"),
        scores,
    )
    x = op.add(x, layers.linear(layers.merge(attended), f"{block}.attn.out"))
    return layers.mlp(x, block)
