"""One run of the decoder's graph, pool by pool: each row's input and attention masks.

The graph needs at least one row of every pool, all with the same number of tokens. A pool's batch
is one of these: all its rows (the result of a row that is not in the step is discarded),
neighbouring rows with several tokens each, or, if no row of the pool is in the step, one empty row.
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
    """Rows from ``start`` of a pool, or one row of zeros if ``pool`` is None.

    Attributes:
        number: the pool's index.
        pool: the pool.
        start: the first row.
        rows: the decoder's input for each row.
        requested: for each row, whether it is in the step.
        self_kv: the rows' keys and values of their texts, ``[2 * layers, rows, heads, length,
            head_width]``.
        cross_kv: the rows' keys and values of their audio, the same over positions.
        lengths: ``[rows]``, the number of past tokens that each row attends to.
        scores: ``[rows, positions]``, added to the cross-attention scores; -inf at unused
            positions.
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
        """Equal for two batches whose caches are the same memory."""
        version = -1 if self.pool is None else self.pool.version
        return (version, self.start, len(self))

    def self_mask(self, length: int) -> NDArray[np.float32]:
        """Return the mask of self-attention: each row's past, then its new tokens in order.

        ``[rows, 1, length, past + length]`` float32, added to the scores.
        """
        capacity = self.self_kv.shape[3]
        past = np.arange(capacity) < self.lengths[:, None]  # [rows, capacity]
        past = np.broadcast_to(past[:, None, None], (len(self), 1, length, capacity))
        new = np.tri(length, dtype=bool)
        new = np.broadcast_to(new, (len(self), 1, length, length))
        return _scores(np.concatenate([past, new], axis=-1))

    def cross_mask(self) -> NDArray[np.float32]:
        """Return the mask of cross-attention, ``[rows, 1, 1, positions]``, added to the scores."""
        return self.scores[:, None, None]

    def store(self, new: NDArray[Any]) -> None:
        """Store the new tokens' keys and values of the requested rows in the pool."""
        if self.pool is not None:
            requested = np.flatnonzero(self.requested)
            self.pool.write_self_kv(
                self.start + requested, self.lengths[requested], new[:, requested]
            )


def _scores(visible: NDArray[np.bool_]) -> NDArray[np.float32]:
    return np.where(visible, np.float32(0), np.float32(-np.inf))


@dataclass(frozen=True)
class PooledRow:
    """A row of a step, with the index of its pool and its row there."""

    pool: int
    pool_row: int
    row: StepRow


def group_by_length(rows: Iterable[PooledRow]) -> list[list[PooledRow]]:
    """Group rows into runs of equal token count whose rows are neighbours within every pool.

    New windows are at the end of their pools, so their prompts usually form one run.
    """
    passes: dict[tuple[int, int], list[PooledRow]] = {}
    parts: Counter[tuple[int, int]] = Counter()  # gaps so far per length and pool
    before: dict[tuple[int, int], int] = {}
    for each in sorted(rows, key=lambda each: (each.pool, each.pool_row)):
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
    """Make a batch of all rows of a pool, with one token each."""
    wanted = {row.slot: row for row in requested_rows}
    rows = tuple(
        wanted.get(slot) or StepRow(slot, (idle_token,), int(pool.lengths[row]), None)
        for row, slot in enumerate(pool.slots)
    )
    requested = tuple(slot in wanted for slot in pool.slots)
    return _pool_batch(number, pool, 0, rows, requested)


def partial_pool_batch(number: int, pool: SlotPool, neighbours: Sequence[PooledRow]) -> PoolBatch:
    """Make a batch of neighbouring rows of a pool, in order, with as many tokens each."""
    rows = tuple(each.row for each in neighbours)
    return _pool_batch(number, pool, neighbours[0].pool_row, rows, (True,) * len(rows))


def empty_pool_batch(number: int, shape: CacheShape, n_tokens: int, idle_token: int) -> PoolBatch:
    """Make a row of zeros for a pool without a row in the run."""
    layers = 2 * shape.n_layers
    cache = np.zeros((layers, 1, shape.n_heads, _EMPTY_LENGTH, shape.head_width), shape.element)
    idle = StepRow(-1, (idle_token,) * n_tokens, 0, None, GREEDY)
    scores, lengths = np.zeros((1, _EMPTY_LENGTH), np.float32), np.zeros(1, np.int64)
    return PoolBatch(number, None, 0, (idle,), (False,), cache, cache, lengths, scores)


def _pool_batch(
    number: int, pool: SlotPool, start: int, rows: tuple[StepRow, ...], requested: tuple[bool, ...]
) -> PoolBatch:
    """Make a batch over rows of a pool; first grow its text caches for the new tokens."""
    positions = np.array([row.position for row in rows])
    longest = int(positions.max()) + len(rows[0].tokens)
    pool.fit_text(max(longest, int(pool.lengths[: len(pool)].max())))
    here = slice(start, start + len(rows))
    self_kv, cross_kv = pool.self_kv[:, here], pool.cross_kv[:, here]
    return PoolBatch(
        number, pool, start, rows, requested, self_kv, cross_kv, positions, pool.scores[here]
    )
