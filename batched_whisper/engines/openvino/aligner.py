"""The aligner: aligns a whole text with the audio of a slot, in one pass of a third graph.

The graph's outputs are the attention of the alignment heads and one log-probability per token. The
graph is built on first use; until then it costs nothing.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batched_whisper._openvino import op, ov
from batched_whisper.engines.interface import Alignment, AlignRow
from batched_whisper.engines.merged_padding import Layout, renormalise_own
from batched_whisper.engines.openvino.graph import (
    Node,
    attention,
    attention_weights,
    log_sum_exp,
    model,
)
from batched_whisper.engines.openvino.runtime import Runtime
from batched_whisper.engines.openvino.text_layers import TextLayers
from batched_whisper.models.checkpoint import Checkpoint

_LENGTH_MULTIPLE = 16
"""Texts are padded to a multiple of this many tokens, so that few shapes occur."""


def build_aligner(checkpoint: Checkpoint, cache_type: ov.Type, *, int8: bool = False) -> ov.Model:
    """Build the decoder over whole texts, without a cache of past tokens.

    Inputs: ``tokens``, ``positions`` and ``next_tokens`` ``[rows, length]``; ``self_mask`` ``[1, 1,
    length, length]`` and ``cross_mask`` ``[rows, 1, 1, context]``, added to the scores; then each
    layer's cross-attention keys and values in the caches' type.

    Outputs: ``weights`` ``[rows, n_alignment_heads, length, context]``, heads in the checkpoint's
    order; ``logprobs`` ``[rows, length]`` of the next tokens.
    """
    layers = TextLayers(checkpoint, int8=int8)
    inputs = [
        _input("tokens", [-1, -1], ov.Type.i32),
        _input("positions", [-1, -1], ov.Type.i32),
        _input("next_tokens", [-1, -1], ov.Type.i32),
        _input("self_mask", [1, 1, -1, -1], ov.Type.f32),
        _input("cross_mask", [-1, 1, 1, -1], ov.Type.f32),
    ]
    tokens, positions, next_tokens, self_mask, cross_mask = inputs
    x = layers.embed(tokens, positions)
    weights: dict[int, Node] = {}  # weights per layer with an alignment head
    aligning = {head.layer for head in checkpoint.alignment_heads}
    for i in range(layers.n_layers):
        heads = layers.self_attention_heads(x, i)
        x = layers.add_self_attention(
            x, attention(heads.queries, heads.keys, heads.values, self_mask), i
        )
        caches = [_input(_cache(i, part), layers.cache_shape, cache_type) for part in _PARTS]
        inputs += caches
        keys, values = (op.convert(cache, "f32") for cache in caches)
        queries = layers.cross_queries(x, i)
        if i in aligning:
            weights[i] = attention_weights(queries, keys, cross_mask)
            attended = op.matmul(weights[i], values, False, False)
        else:
            attended = attention(queries, keys, values, cross_mask)
        x = layers.mlp(layers.add_cross_attention(x, attended, i), i)
    aligned = [
        op.gather(weights[head.layer], np.array([head.head]), np.array(1))
        for head in checkpoint.alignment_heads
    ]
    outputs = [op.concat(aligned, 1), _logprobs(layers.logits(x), next_tokens)]
    graph = model(outputs, inputs, "whisper_aligner")
    for port, name in zip(graph.outputs, ("weights", "logprobs"), strict=True):
        port.get_tensor().set_names({name})
    return graph


_PARTS = ("key", "value")


def _cache(layer: int, part: str) -> str:
    return f"cross_{part}.{layer}"


def _input(name: str, shape: list[int], kind: ov.Type) -> Node:
    node = op.parameter(shape, kind, name=name)
    node.output(0).get_tensor().set_names({name})
    return node


def _logprobs(logits: Node, next_tokens: Node) -> Node:
    """Return the natural log-probability of each next token, ``[rows, length]``."""
    last = np.array([-1])
    chosen = op.gather_elements(logits, op.unsqueeze(next_tokens, last), -1)
    total = log_sum_exp(logits, op.reduce_max(logits, last, True))
    return op.squeeze(op.subtract(chosen, total), last)


class Aligner:
    """Aligns one text at a time; compiles its graph on first use.

    Args:
        checkpoint: the weights, of which only the decoder's are kept.
        runtime: compiles the graph.
        key: identifies the weights among the compiled graphs on disk.
        padding_token: a token to pad texts with.
    """

    def __init__(
        self, checkpoint: Checkpoint, runtime: Runtime, key: str, padding_token: int
    ) -> None:
        weights = {k: v for k, v in checkpoint.weights.items() if k.startswith("decoder.")}
        self._checkpoint = replace(checkpoint, weights=weights)
        self._runtime = runtime
        self._key = key
        self._padding_token = padding_token
        self._request: Any = None

    def align(self, row: AlignRow, cross_kv: NDArray[Any], window_layout: Layout) -> Alignment:
        """Align the text of a row with its slot's audio.

        Args:
            row: the text.
            cross_kv: the slot's keys and values, ``[2 * layers, 1, heads, positions, head_width]``,
                read without a copy.
            window_layout: the layout of the first positions; any others are masked.
        """
        if self._request is None:
            self._request = self._compile().create_infer_request()
        request, n_tokens = self._request, len(row.tokens)
        inputs = self._inputs(row, cross_kv.shape[3], window_layout)
        for name, array in inputs.items():
            request.set_tensor(name, ov.Tensor(array))
        kind = self._runtime.precision.cache_type
        for i in range(len(cross_kv) // 2):
            for j, part in enumerate(_PARTS):
                view = cross_kv[2 * i + j]
                request.set_tensor(_cache(i, part), ov.Tensor(view, list(view.shape), kind))
        request.infer()
        weights = renormalise_own(
            request.get_tensor("weights").data[0, :, :n_tokens], window_layout.n_own
        )
        logprobs = np.zeros(n_tokens, np.float32)
        first = row.n_prompt
        logprobs[first:] = request.get_tensor("logprobs").data[0, first - 1 : n_tokens - 1]
        return Alignment(weights, logprobs)

    def _compile(self) -> Any:
        heads = [(head.layer, head.head) for head in self._checkpoint.alignment_heads]
        return self._runtime.compile(f"aligner {self._key} {heads}", self._build)

    def _build(self) -> ov.Model:
        precision = self._runtime.precision
        return build_aligner(self._checkpoint, precision.cache_type, int8=precision.int8)

    def _inputs(
        self, row: AlignRow, n_positions: int, window_layout: Layout
    ) -> dict[str, NDArray[Any]]:
        n_max = self._checkpoint.dimensions.n_text_ctx
        length = min(-(-len(row.tokens) // _LENGTH_MULTIPLE) * _LENGTH_MULTIPLE, n_max)
        tokens = np.full((1, length), self._padding_token, np.int32)
        tokens[0, : len(row.tokens)] = row.tokens
        scores = np.full((1, 1, 1, n_positions), -np.inf, np.float32)
        scores[..., : len(window_layout)] = window_layout.scores
        return {
            "tokens": tokens,
            "positions": np.arange(length, dtype=np.int32)[None],
            "next_tokens": np.roll(tokens, -1),
            "self_mask": _as_mask(np.tri(length, dtype=bool))[None, None],
            "cross_mask": scores,
        }


def _as_mask(visible: NDArray[np.bool_]) -> NDArray[np.float32]:
    return np.where(visible, np.float32(0), np.float32(-np.inf))
