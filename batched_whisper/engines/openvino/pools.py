"""Where the slots' keys and values lie: pools of rows with caches of one shape.

A pool holds windows of similar audio context. Its rows are always packed from 0, so that a step
reads them as one block without copying: when a row is given up, the last one moves into its place.
Address space is reserved for all slots at once; memory is only taken by rows that are used. It is
kept for the next ones until the pool is empty, and then given back but for a little.

It knows shapes and bytes, and nothing of OpenVINO's graphs.
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
"""The text caches' length is a multiple of this many tokens."""

RETAINED_BYTES = 32 << 20
"""An empty pool keeps about so much memory, and a row at least, for a call now and then."""

# Without the flag a system may refuse to reserve more than it has, though less will be used.
_NO_RESERVE = 0x4000  # MAP_NORESERVE, which Python's mmap names from 3.13 on
_RESERVE = (
    {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NO_RESERVE}
    if sys.platform == "linux"
    else {}
)


_NOTHING = layout(0, 0)


@dataclass(frozen=True)
class CacheShape:
    """What all pools of a model share. ``element`` is the type that stands for one number."""

    n_slots: int
    n_layers: int
    n_heads: int
    head_width: int
    n_text_ctx: int
    element: DTypeLike


class SlotPool:
    """Rows of similar audio context; ``context`` is the most encoder positions that they hold.

    ``cross_kv`` is ``[2 * layers, rows, heads, context, head_width]``, keys and values of the layers
    in turn; ``self_kv`` is the same over the tokens so far. ``layouts`` write_self_kv what each row's positions
    are, ``scores`` ``[rows, context]`` what is added to their scores: -inf where there is none.
    ``lengths`` counts each row's tokens. Rows with equal ``audio_ids`` hold the same audio.
    """

    def __init__(self, context: int, shape: CacheShape) -> None:
        self.context = context
        self.slots: list[int] = []  # which slot is in which row
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
        """Counts the times that the memory was laid out anew."""

    def __len__(self) -> int:
        return len(self.slots)

    def add(self, slot: int) -> int:
        """Give a slot the next row."""
        row = len(self.slots)
        self.slots.append(slot)
        self._n_used = max(self._n_used, row + 1)
        self._lay_out(row, _NOTHING)
        self.lengths[row] = self.audio_ids[row] = 0
        return row

    def remove(self, row: int) -> int | None:
        """Give up a row. The last row moves into its place; returns that row's slot, if any."""
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
        """Make a row know what another one does; audio that it has is not moved again."""
        if self.audio_ids[source] != self.audio_ids[target]:
            window_layout, n_before = self.layouts[source], len(self.layouts[target])
            n = len(window_layout)
            self.cross_kv[:, target, :, :n] = self.cross_kv[:, source, :, :n]
            self.cross_kv[:, target, :, n:n_before] = 0
            self._lay_out(target, window_layout)
            self.audio_ids[target] = self.audio_ids[source]
        length = self.lengths[source]
        self.self_kv[:, target, :, :length] = self.self_kv[:, source, :, :length]
        self.lengths[target] = length

    def write_cross_kv(self, row: int, encoded: list[NDArray[Any]], window_layout: Layout) -> None:
        """Keep a window's encoded audio: 2 * layers of ``[heads, positions, head_width]``."""
        n, n_before = len(window_layout), len(self.layouts[row])
        for into, part in zip(self.cross_kv, encoded, strict=True):
            into[row, :, :n] = part
        self.cross_kv[:, row, :, n:n_before] = 0  # what is masked must be a number
        self._lay_out(row, window_layout)
        self._n_audio_ids += 1
        self.audio_ids[row], self.lengths[row] = self._n_audio_ids, 0

    def write_self_kv(
        self, rows: NDArray[np.int64], positions: NDArray[np.int64], new: NDArray[Any]
    ) -> None:
        """Keep new tokens' keys and values: ``[2 * layers, rows, heads, tokens, width]``."""
        n_tokens = new.shape[3]
        for i in range(n_tokens):
            self.self_kv[:, rows, :, positions + i] = new[:, :, :, i].transpose(1, 0, 2, 3)
        self.lengths[rows] = positions + n_tokens

    def fit_text(self, longest: int) -> None:
        """Make the text caches hold ``longest`` tokens, and not many times more."""
        held = self.self_kv.shape[3]
        needed = min(
            -(-max(longest, 1) // TEXT_LENGTH_MULTIPLE) * TEXT_LENGTH_MULTIPLE,
            self._shape.n_text_ctx,
        )
        if held < needed or held >= 4 * needed:
            memory, self_kv = self._empty(needed)
            rows, kept = len(self.slots), min(held, needed)
            self_kv[:, :rows, :, :kept] = self.self_kv[:, :rows, :, :kept]
            self._self_memory, self.self_kv = memory, self_kv
            self.version += 1

    def _lay_out(self, row: int, window_layout: Layout) -> None:
        self.layouts[row] = window_layout
        self.scores[row, : len(window_layout)] = window_layout.scores
        self.scores[row, len(window_layout) :] = -np.inf

    def _release_memory(self) -> None:
        """Let the system have the memory of what a burst of windows left behind; zeros remain."""
        n_retained = max(
            1, RETAINED_BYTES // (2 * self._shape.n_layers * self._row_bytes(self.context))
        )
        if self._n_used <= n_retained or not hasattr(mmap, "MADV_DONTNEED"):
            return
        self._release_rows(self._cross_memory, self._row_bytes(self.context), n_retained)
        self._release_rows(self._self_memory, self._row_bytes(self.self_kv.shape[3]), n_retained)
        self._n_used = n_retained

    def _release_rows(self, memory: mmap.mmap, row_bytes: int, n_retained: int) -> None:
        """All whole pages of the rows in use but for the first ones."""
        page = mmap.PAGESIZE
        for part in range(2 * self._shape.n_layers):
            before = part * self._shape.n_slots
            start = -(-(before + n_retained) * row_bytes // page) * page
            stop = (before + self._n_used) * row_bytes // page * page
            if start < stop:
                memory.madvise(mmap.MADV_DONTNEED, start, stop - start)

    def _empty(self, length: int) -> tuple[mmap.mmap, NDArray[Any]]:
        """Zeros for every slot, whose memory is taken when they are first written to."""
        shape = self._shape
        sizes = (2 * shape.n_layers, shape.n_slots, shape.n_heads, length, shape.head_width)
        memory = mmap.mmap(-1, sizes[0] * sizes[1] * self._row_bytes(length), **_RESERVE)
        return memory, np.frombuffer(memory, shape.element).reshape(sizes)

    def _row_bytes(self, length: int) -> int:
        shape = self._shape
        return shape.n_heads * length * shape.head_width * np.dtype(shape.element).itemsize
