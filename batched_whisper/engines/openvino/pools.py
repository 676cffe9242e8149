"""Memory for the slots' keys and values: pools of rows with caches of one shape.

A pool holds windows of similar audio context. Its rows are packed from 0, so that a step reads them
as one block without copying: when a row is removed, the last row moves into its place. Address
space is reserved for all slots at once; memory is used only by rows that have been written. It is
reused until the pool is empty, and then all but a little is released.

This module knows shapes and bytes, and nothing of OpenVINO's graphs.
"""

from __future__ import annotations

import mmap
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from batched_whisper.engines.merged_padding import Layout, layout

TEXT_LENGTH_MULTIPLE = 32
"""The length of the text caches is a multiple of this many tokens."""

RETAINED_BYTES = 32 << 20
"""An empty pool keeps about this much memory, and at least one row, for occasional calls."""

# Without this flag, Linux may refuse to reserve more address space than there is memory.
_NO_RESERVE = 0x4000  # MAP_NORESERVE, which Python's mmap names from 3.13 on
_RESERVE = (
    {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NO_RESERVE}
    if sys.platform == "linux"
    else {}
)


_NOTHING = layout(0, 0)


@dataclass(frozen=True)
class CacheShape:
    """The shape that all pools of a model share; ``element`` is the type of a stored number."""

    n_slots: int
    n_layers: int
    n_heads: int
    head_width: int
    n_text_ctx: int
    element: DTypeLike


class SlotPool:
    """Rows of similar audio context.

    Attributes:
        context: the most encoder positions of a row.
        slots: the slot in each row.
        layouts: the layout of each row's positions.
        scores: ``[rows, context]`` float32, added to the cross-attention scores; -inf if unused.
        lengths: ``[rows]``, the number of tokens in each row.
        audio_ids: ``[rows]``; rows with equal ids hold the same audio.
        cross_kv: ``[2 * layers, rows, heads, context, head_width]``, keys, then values of each
            layer.
        self_kv: the same over the tokens of the text.
        version: incremented when the text caches are reallocated.
    """

    def __init__(self, context: int, shape: CacheShape) -> None:
        self.context = context
        self.slots: list[int] = []  # by row
        self.layouts = [_NOTHING] * shape.n_slots
        self.scores = np.full((shape.n_slots, context), -np.inf, np.float32)
        self.lengths = np.zeros(shape.n_slots, np.int64)
        self.audio_ids = np.zeros(shape.n_slots, np.int64)
        self._n_audio_ids = 0
        self._shape = shape
        self._cross_memory, self.cross_kv = self._empty(context)
        self._self_memory, self.self_kv = self._empty(TEXT_LENGTH_MULTIPLE)
        self._n_used = 0  # rows that have memory
        self.version = 0

    def __len__(self) -> int:
        return len(self.slots)

    def add(self, slot: int) -> int:
        """Give a slot the next row, and return its index."""
        row = len(self.slots)
        self.slots.append(slot)
        self._n_used = max(self._n_used, row + 1)
        self._set_layout(row, _NOTHING)
        self.lengths[row] = self.audio_ids[row] = 0
        return row

    def remove(self, row: int) -> int | None:
        """Remove a row. The last row moves into its place; returns that row's slot, if any."""
        last = len(self.slots) - 1
        moved = self.slots.pop()
        if not self.slots:
            self._release_memory()
        if row == last:
            return None
        self.copy(last, row)
        self.slots[row] = moved
        return moved

    def copy(self, source: int, target: int) -> None:
        """Copy a row's state to another; equal audio is not copied again."""
        if self.audio_ids[source] != self.audio_ids[target]:
            window_layout, n_before = self.layouts[source], len(self.layouts[target])
            n = len(window_layout)
            self.cross_kv[:, target, :, :n] = self.cross_kv[:, source, :, :n]
            self.cross_kv[:, target, :, n:n_before] = 0
            self._set_layout(target, window_layout)
            self.audio_ids[target] = self.audio_ids[source]
        length = self.lengths[source]
        self.self_kv[:, target, :, :length] = self.self_kv[:, source, :, :length]
        self.lengths[target] = length

    def write_cross_kv(self, row: int, encoded: list[NDArray[Any]], window_layout: Layout) -> None:
        """Store encoded audio: ``2 * layers`` arrays of ``[heads, positions, head_width]``."""
        n, n_before = len(window_layout), len(self.layouts[row])
        for into, part in zip(self.cross_kv, encoded, strict=True):
            into[row, :, :n] = part
        self.cross_kv[:, row, :, n:n_before] = 0  # masked values must be finite
        self._set_layout(row, window_layout)
        self._n_audio_ids += 1
        self.audio_ids[row], self.lengths[row] = self._n_audio_ids, 0

    def write_self_kv(
        self, rows: NDArray[np.int64], positions: NDArray[np.int64], new: NDArray[Any]
    ) -> None:
        """Store new keys and values, ``[2 * layers, rows, heads, tokens, head_width]``."""
        n_tokens = new.shape[3]
        for i in range(n_tokens):
            self.self_kv[:, rows, :, positions + i] = new[:, :, :, i].transpose(1, 0, 2, 3)
        self.lengths[rows] = positions + n_tokens

    def fit_text(self, longest: int) -> None:
        """Resize the text caches to hold ``longest`` tokens, without keeping a multiple of that."""
        capacity = self.self_kv.shape[3]
        needed = min(
            -(-max(longest, 1) // TEXT_LENGTH_MULTIPLE) * TEXT_LENGTH_MULTIPLE,
            self._shape.n_text_ctx,
        )
        if capacity < needed or capacity >= 4 * needed:
            memory, self_kv = self._empty(needed)
            rows, kept = len(self.slots), min(capacity, needed)
            self_kv[:, :rows, :, :kept] = self.self_kv[:, :rows, :, :kept]
            self._self_memory, self.self_kv = memory, self_kv
            self.version += 1

    def _set_layout(self, row: int, window_layout: Layout) -> None:
        self.layouts[row] = window_layout
        self.scores[row, : len(window_layout)] = window_layout.scores
        self.scores[row, len(window_layout) :] = -np.inf

    def _release_memory(self) -> None:
        """Release memory that a burst of windows used; released pages read as zeros."""
        n_retained = max(
            1, RETAINED_BYTES // (2 * self._shape.n_layers * self._row_bytes(self.context))
        )
        if self._n_used <= n_retained or not hasattr(mmap, "MADV_DONTNEED"):
            return
        self._release_rows(self._cross_memory, self._row_bytes(self.context), n_retained)
        self._release_rows(self._self_memory, self._row_bytes(self.self_kv.shape[3]), n_retained)
        self._n_used = n_retained

    def _release_rows(self, memory: mmap.mmap, row_bytes: int, n_retained: int) -> None:
        """Release all whole pages of the used rows after the first ``n_retained``."""
        page = mmap.PAGESIZE
        for part in range(2 * self._shape.n_layers):
            before = part * self._shape.n_slots
            start = -(-(before + n_retained) * row_bytes // page) * page
            stop = (before + self._n_used) * row_bytes // page * page
            if start < stop:
                memory.madvise(mmap.MADV_DONTNEED, start, stop - start)

    def _empty(self, length: int) -> tuple[mmap.mmap, NDArray[Any]]:
        """Allocate zeros for all slots; the system assigns memory on the first write."""
        shape = self._shape
        sizes = (2 * shape.n_layers, shape.n_slots, shape.n_heads, length, shape.head_width)
        memory = mmap.mmap(-1, sizes[0] * sizes[1] * self._row_bytes(length), **_RESERVE)
        return memory, np.frombuffer(memory, shape.element).reshape(sizes)

    def _row_bytes(self, length: int) -> int:
        shape = self._shape
        return shape.n_heads * length * shape.head_width * np.dtype(shape.element).itemsize
