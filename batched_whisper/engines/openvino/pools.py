"""Where the slots' keys and values lie: pools of rows with caches of one shape.

A pool holds windows of similar audio context. Its rows are always packed from 0, so that a step
reads them as one block without copying: when a row is given up, the last one moves into its place.
The memory grows with the rows in use and is kept for the next ones.

It knows shapes and bytes, and nothing of OpenVINO's graphs or of what the numbers mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

TEXT_GRAIN = 32
"""The text caches' length is a multiple of this many tokens."""


@dataclass(frozen=True)
class CacheShape:
    """What all pools of a model share. ``element`` is the type that stands for one number."""

    n_layers: int
    n_heads: int
    head_width: int
    n_text_ctx: int
    element: DTypeLike


class Pool:
    """The rows of one audio context; ``context`` is the most encoder positions that they hold.

    ``cross`` is ``[2 * layers, rows, heads, context, head_width]``, keys and values of the layers
    in turn; ``own`` is the same over the tokens so far. ``contexts`` and ``lengths`` say how many
    positions of each row are real.
    """

    def __init__(self, context: int, shape: CacheShape) -> None:
        self.context = context
        self.slots: list[int] = []  # which slot is in which row
        self.contexts: NDArray[np.int64] = np.zeros(0, np.int64)
        self.lengths: NDArray[np.int64] = np.zeros(0, np.int64)
        self._shape = shape
        self.cross = self._empty(0, context)
        self.own = self._empty(0, TEXT_GRAIN)
        self.version = 0
        """Counts the times that the memory was laid out anew."""

    def __len__(self) -> int:
        return len(self.slots)

    def add(self, slot: int) -> int:
        """Give a slot the next row."""
        row = len(self.slots)
        if row == self.cross.shape[1]:
            self._grow(max(1, row * 2))
        self.slots.append(slot)
        self.contexts[row] = self.lengths[row] = 0
        return row

    def remove(self, row: int) -> int | None:
        """Give up a row. The last row moves into its place; returns that row's slot, if any."""
        last = len(self.slots) - 1
        moved = self.slots.pop()
        if row == last:
            return None
        context, length = self.contexts[last], self.lengths[last]
        self.cross[:, row, :, :context] = self.cross[:, last, :, :context]
        self.cross[:, row, :, context : self.contexts[row]] = 0
        self.own[:, row, :, :length] = self.own[:, last, :, :length]
        self.contexts[row], self.lengths[row] = context, length
        self.slots[row] = moved
        return moved

    def hear(self, row: int, encoded: list[NDArray[Any]]) -> None:
        """Keep a window's encoded audio: 2 * layers of ``[heads, context, head_width]``."""
        context = encoded[0].shape[1]
        for into, part in zip(self.cross, encoded, strict=True):
            into[row, :, :context] = part
        self.cross[:, row, :, context : self.contexts[row]] = 0  # what is masked must be a number
        self.contexts[row] = context

    def say(self, rows: NDArray[np.int64], positions: NDArray[np.int64], new: NDArray[Any]) -> None:
        """Keep new tokens' keys and values: ``[2 * layers, rows, heads, tokens, width]``."""
        n_tokens = new.shape[3]
        for i in range(n_tokens):
            self.own[:, rows, :, positions + i] = new[:, :, :, i].transpose(1, 0, 2, 3)
        self.lengths[rows] = positions + n_tokens

    def fit_text(self, longest: int) -> None:
        """Make the text caches hold ``longest`` tokens, and not many times more."""
        held = self.own.shape[3]
        needed = min(-(-max(longest, 1) // TEXT_GRAIN) * TEXT_GRAIN, self._shape.n_text_ctx)
        if held < needed or held >= 4 * needed:
            own = self._empty(self.own.shape[1], needed)
            kept = min(held, needed)
            own[:, :, :, :kept] = self.own[:, :, :, :kept]
            self.own = own
            self.version += 1

    def _grow(self, n_rows: int) -> None:
        old = self.cross.shape[1]
        for name in ("cross", "own"):
            before: NDArray[Any] = getattr(self, name)
            after = self._empty(n_rows, before.shape[3])
            after[:, :old] = before
            setattr(self, name, after)
        self.contexts = np.concatenate([self.contexts, np.zeros(n_rows - old, np.int64)])
        self.lengths = np.concatenate([self.lengths, np.zeros(n_rows - old, np.int64)])
        self.version += 1

    def _empty(self, n_rows: int, length: int) -> NDArray[Any]:
        shape = self._shape
        layers, heads, width = 2 * shape.n_layers, shape.n_heads, shape.head_width
        return np.zeros((layers, n_rows, heads, length, width), shape.element)
