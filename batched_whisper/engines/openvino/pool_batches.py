"""One pass of the decoder's graph, pool by pool: what each row is fed and what it may attend to.

The graph wants at least one row of every pool, all fed the same number of tokens. A block is one
pool's share of a pass: all its rows (those not requested for are computed and forgotten), or
neighbours that are fed a longer text, or, where the pool has none, a row of nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from batched_whisper.decoding.sampling import GREEDY
from batched_whisper.engines.interface import StepRow
from batched_whisper.engines.openvino.pools import CacheShape, SlotPool

_EMPTY_LENGTH = 8


@dataclass(frozen=True)
class PoolBatch:
    """Rows ``start`` to ``stop`` of a pool, or one row of zeros where ``pool`` is None.

    ``self_kv`` and ``cross_kv`` are the rows' caches, ``[2 * layers, rows, heads, length, width]``;
    ``lengths`` counts the tokens that each row keeps of its past; ``scores`` ``[rows, positions]``
    are added to the scores of its audio, -inf where it has none.
    """

    number: int
    pool: SlotPool | None
    start: int
    rows: tuple[StepRow, ...]
    requested: tuple[bool, ...]
    self_kv: NDArray[Any]
    cross_kv: NDArray[Any]
    lengths: NDArray[np.int64]
    scores: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def binding(self) -> tuple[int, ...]:
        """Equal for two blocks whose caches lie in the same memory."""
        window_layout = -1 if self.pool is None else self.pool.version
        return (window_layout, self.start, len(self))

    def self_mask(self, length: int) -> NDArray[np.float32]:
        """Added to the self-attention scores: each row's past, then its new tokens in order."""
        held = self.self_kv.shape[3]
        past = np.arange(held) < self.lengths[:, None]  # [rows, held]
        past = np.broadcast_to(past[:, None, None], (len(self), 1, length, held))
        new = np.tri(length, dtype=bool)
        new = np.broadcast_to(new, (len(self), 1, length, length))
        return _scores(np.concatenate([past, new], axis=-1))

    def cross_mask(self) -> NDArray[np.float32]:
        """Added to the cross_kv-attention scores."""
        return self.scores[:, None, None]

    def store(self, new: NDArray[Any]) -> None:
        """Keep the new tokens of the rows that were requested for in the pool."""
        if self.pool is not None:
            requested = np.flatnonzero(self.requested)
            self.pool.write_self_kv(
                self.start + requested, self.lengths[requested], new[:, requested]
            )


def _scores(visible: NDArray[np.bool_]) -> NDArray[np.float32]:
    return np.where(visible, np.float32(0), np.float32(-np.inf))


@dataclass(frozen=True)
class PooledRow:
    """A row of a step, and where it lies: the number of its pool, its pool_row there."""

    pool: int
    pool_row: int
    row: StepRow


def group_by_length(fed: Iterable[PooledRow]) -> list[list[PooledRow]]:
    """Passes: in each, rows that are fed the same number of tokens, neighbours in every pool.

    New windows lie at the end of their pools, so their prompts mostly make one pass.
    """
    passes: dict[tuple[int, int], list[PooledRow]] = {}
    parts: Counter[tuple[int, int]] = Counter()  # of each length and pool: how many gaps so far
    before: dict[tuple[int, int], int] = {}
    for each in sorted(fed, key=lambda each: (each.pool, each.pool_row)):
        length = len(each.row.tokens)
        here = (length, each.pool)
        if here in before and each.pool_row != before[here] + 1:
            parts[here] += 1
        before[here] = each.pool_row
        passes.setdefault((length, parts[here]), []).append(each)
    return list(passes.values())


def whole_pool_batch(
    number: int, pool: SlotPool, requested_rows: Sequence[StepRow], idle_token: int
) -> PoolBatch:
    """All rows of a pool, each fed one token."""
    wanted = {row.slot: row for row in requested_rows}
    rows = tuple(
        wanted.get(slot) or StepRow(slot, (idle_token,), int(pool.lengths[row]), None)
        for row, slot in enumerate(pool.slots)
    )
    requested = tuple(slot in wanted for slot in pool.slots)
    return _pool_batch(number, pool, 0, rows, requested)


def partial_pool_batch(number: int, pool: SlotPool, neighbours: Sequence[PooledRow]) -> PoolBatch:
    """Neighbours of a pool, in their order, each fed the same number of tokens."""
    rows = tuple(each.row for each in neighbours)
    return _pool_batch(number, pool, neighbours[0].pool_row, rows, (True,) * len(rows))


def empty_pool_batch(number: int, shape: CacheShape, n_tokens: int, idle_token: int) -> PoolBatch:
    """A row of zeros for a pool that has none."""
    layers = 2 * shape.n_layers
    cache = np.zeros((layers, 1, shape.n_heads, _EMPTY_LENGTH, shape.head_width), shape.element)
    idle = StepRow(-1, (idle_token,) * n_tokens, 0, None, GREEDY)
    scores, lengths = np.zeros((1, _EMPTY_LENGTH), np.float32), np.zeros(1, np.int64)
    return PoolBatch(number, None, 0, (idle,), (False,), cache, cache, lengths, scores)


def _pool_batch(
    number: int, pool: SlotPool, start: int, rows: tuple[StepRow, ...], requested: tuple[bool, ...]
) -> PoolBatch:
    """A block over rows of a pool, which is first made to hold their new tokens."""
    positions = np.array([row.position for row in rows])
    longest = int(positions.max()) + len(rows[0].tokens)
    pool.fit_text(max(longest, int(pool.lengths[: len(pool)].max())))
    here = slice(start, start + len(rows))
    self_kv, cross_kv = pool.self_kv[:, here], pool.cross_kv[:, here]
    return PoolBatch(
        number, pool, start, rows, requested, self_kv, cross_kv, positions, pool.scores[here]
    )
