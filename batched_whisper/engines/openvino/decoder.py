"""The text decoder's graph: one step of many slots, with the caches outside the graph.

The rows of a step are grouped by pool (`pools.py`): the rows of a pool have caches of one shape.
Everything but attention runs on all rows at once; attention runs per pool, so that the row of a
short window does not read keys of a long one. The most probable token is found inside the graph, so
that it outputs a few numbers per row.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from batched_whisper._openvino import op, ov
from batched_whisper.decoding.rules import TokenIds
from batched_whisper.engines.openvino.graph import (
    Node,
    attention,
    attention_of_few,
    axis_length,
    log_sum_exp,
    model,
    slice_axis,
)
from batched_whisper.engines.openvino.text_layers import TextLayers
from batched_whisper.models.checkpoint import Checkpoint

OUTPUTS = ("text_token", "text_score", "text_total", "time_token", "time_score", "time_total")
"""Per row: the best token below the timestamps, its logit, their log-sum-exp; the same of
timestamps."""


def cache_input(kind: str, layer: int, part: str, pool: int) -> str:
    """Return the name of one cache's input; ``kind`` is self or cross, ``part`` is key or value."""
    return f"{kind}_{part}.{layer}.{pool}"


@dataclass(frozen=True)
class _PoolMasks:
    """Masks added to the attention scores of one pool's rows."""

    self_mask: Node  # self-attention: [rows, 1, length, past + length]
    cross_mask: Node  # [rows, 1, 1, context]


class DecoderGraph:
    """Builds the graph and collects its inputs."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        ids: TokenIds,
        n_pools: int,
        cache_type: ov.Type,
        *,
        int8: bool = False,
    ) -> None:
        self._layers = TextLayers(checkpoint, int8=int8)
        self._ids = ids
        self._n_pools = n_pools
        self._cache_type = cache_type
        self._inputs: list[Node] = []

    def build(self) -> ov.Model:
        """Build the graph of one step.

        Inputs: ``tokens`` and ``positions`` ``[rows, length]``; ``pool_rows`` ``[pools]``, the
        number of rows per pool, at least one; ``text_masks`` ``[masks, n_vocab]``, -inf at the
        timestamps, and ``text_mask`` ``[rows]``, the index of each row's mask; ``time_first`` and
        ``time_last`` ``[rows, 1]``, the allowed timestamps, inclusive. Then the masks and caches of
        each pool.

        Outputs: those of `OUTPUTS`, ``[rows, 1]``; ``logits`` ``[rows, n_vocab]``; ``new_cache``
        ``[2 * layers, rows, heads, length, head_width]``, the keys and values of this step's
        tokens.
        """
        tokens = self._input("tokens", [-1, -1], ov.Type.i32)
        positions = self._input("positions", [-1, -1], ov.Type.i32)
        pool_rows = self._input("pool_rows", [self._n_pools], ov.Type.i64)
        masks = [
            _PoolMasks(
                self._input(f"self_mask.{g}", [-1, 1, -1, -1], ov.Type.f32),
                self._input(f"cross_mask.{g}", [-1, 1, 1, -1], ov.Type.f32),
            )
            for g in range(self._n_pools)
        ]
        layers = self._layers
        x = layers.embed(tokens, positions)
        new_cache: list[Node] = []
        for i in range(layers.n_layers):
            x = self._self_attention(x, i, pool_rows, masks, new_cache)
            x = self._cross_attention(x, i, pool_rows, masks)
            x = layers.mlp(x, i)
        logits = layers.logits(x, only_last=True)
        outputs = [*self._best_tokens(logits), logits, op.concat(new_cache, 0)]
        graph = model(outputs, self._inputs, "whisper_decoder")
        for port, name in zip(graph.outputs, (*OUTPUTS, "logits", "new_cache"), strict=True):
            port.get_tensor().set_names({name})
        return graph

    def _input(self, name: str, shape: list[int], kind: ov.Type) -> Node:
        node = op.parameter(shape, kind, name=name)
        node.output(0).get_tensor().set_names({name})
        self._inputs.append(node)
        return node

    def _cache(self, kind: str, layer: int, part: str, pool: int) -> Node:
        shape = self._layers.cache_shape
        cache = self._input(cache_input(kind, layer, part, pool), shape, self._cache_type)
        return cache if self._cache_type == ov.Type.f32 else op.convert(cache, "f32")

    def _by_pool(self, x: Node, pool_rows: Node) -> list[Node]:
        return [x] if self._n_pools == 1 else op.variadic_split(x, 0, pool_rows).outputs()

    def _self_attention(
        self, x: Node, i: int, pool_rows: Node, masks: list[_PoolMasks], new_cache: list[Node]
    ) -> Node:
        new_heads = self._layers.self_attention_heads(x, i)
        new = {"key": new_heads.keys, "value": new_heads.values}
        for part in ("key", "value"):
            new_cache.append(op.unsqueeze(op.convert(new[part], self._cache_type), 0))
        split = {part: self._by_pool(new[part], pool_rows) for part in new}
        attended = []
        for g, rows in enumerate(self._by_pool(new_heads.queries, pool_rows)):
            keys, values = (
                op.concat([self._cache("self", i, part, g), split[part][g]], 2)
                for part in ("key", "value")
            )
            attended.append(attention(rows, keys, values, masks[g].self_mask))
        return self._layers.add_self_attention(x, self._concat(attended), i)

    def _cross_attention(self, x: Node, i: int, pool_rows: Node, masks: list[_PoolMasks]) -> Node:
        queries = self._layers.cross_queries(x, i)
        attended = []
        for g, rows in enumerate(self._by_pool(queries, pool_rows)):
            keys, values = (self._cache("cross", i, part, g) for part in ("key", "value"))
            attended.append(attention_of_few(rows, keys, values, masks[g].cross_mask))
        return self._layers.add_cross_attention(x, self._concat(attended), i)

    def _concat(self, parts: list[Node]) -> Node:
        return parts[0] if len(parts) == 1 else op.concat(parts, 0)

    def _best_tokens(self, logits: Node) -> list[Node]:
        """Find the best token, its logit and the log-sum-exp: of text, then of timestamps."""
        begin = self._ids.timestamp_begin
        table = self._input("text_masks", [-1, self._ids.n_vocab], ov.Type.f32)
        mask = op.gather(table, self._input("text_mask", [-1], ov.Type.i32), 0)
        text = op.add(logits, mask)  # over the whole vocabulary: slicing the text off would copy it
        timed = slice_axis(logits, np.array([begin]), axis_length(logits, 1), axis=1)
        first = self._input("time_first", [-1, 1], ov.Type.f32)
        last = self._input("time_last", [-1, 1], ov.Type.f32)
        numbers = np.arange(begin, self._ids.n_vocab, dtype=np.float32)[None]
        inside = op.logical_and(op.greater_equal(numbers, first), op.less_equal(numbers, last))
        timed = op.select(inside, timed, np.float32(-np.inf))
        outputs = []
        for part, offset in ((text, 0), (timed, begin)):
            best = op.topk(part, np.int32(1), -1, "max", "none", index_element_type="i32")
            token = op.add(best.output(1), np.int32(offset))
            outputs += [token, best.output(0), log_sum_exp(part, best.output(0))]
        return outputs
