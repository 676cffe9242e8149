"""Which windows are encoded together, and what the device is told of them.

Windows are laid end to end, whatever their lengths: what is done to every position by itself, which
is most of the encoder, knows nothing of windows, and nothing is padded. So the work of a batch
depends on the number of its positions alone, and can be recorded for a few of those. What is told
of windows and positions are whole numbers, in one piece of memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from batched_whisper.engines.merged_padding import Layout

MAX_WINDOWS = 64
"""Of one batch."""
TILE = 128
"""Queries that one program of the attention kernel has: of one window, so its last has fewer."""
GAP = 2
"""Feature frames of zeros between two windows, and before the first: what convolutions pad with."""
_SPARE = 8
"""More feature frames than twice its positions: of silence and of the gap (`append_silence`)."""

Numbers = NDArray[np.int32]


def split_batches(lengths: Sequence[int], most_positions: int) -> list[list[int]]:
    """Split windows by their numbers of positions, in their order; lists of their places.

    A batch has at most ``most_positions``, or one window, and at most `MAX_WINDOWS`.
    """
    found: list[list[int]] = []
    n_positions = 0
    for i, length in enumerate(lengths):
        fits = n_positions + length <= most_positions
        if not found or not fits or len(found[-1]) == MAX_WINDOWS:
            found.append([])
            n_positions = 0
        found[-1].append(i)
        n_positions += length
    return found


@dataclass(frozen=True)
class BatchShape:
    """How much memory a batch takes.

    Attributes:
        n_positions: of all its windows.
        full: the positions of a full window.
        padding_slot: the slot that belongs to no window.
    """

    n_positions: int
    full: int
    padding_slot: int

    @property
    def n_frames(self) -> int:
        """The feature frames of all windows, with what lies between them; always even."""
        return 2 * self.n_positions + _SPARE * (self.n_positions // self.full + 1) + GAP

    @property
    def n_tiles(self) -> int:
        """The parts in which its queries are asked."""
        return self.n_positions // TILE + MAX_WINDOWS

    @property
    def counts(self) -> tuple[int, ...]:
        """How many numbers each field of a `PackedBatch` has."""
        windows = (MAX_WINDOWS + 1,) * 5
        return (*windows, *(self.n_tiles,) * 2, *(self.n_positions,) * 4, self.n_frames)

    @property
    def n_numbers(self) -> int:
        """All of them."""
        return sum(self.counts)


@dataclass(frozen=True)
class PackedBatch:
    """Windows laid end to end, as numbers on the device; int32 but for ``log_sizes``.

    The first fields have an token_input for each of `MAX_WINDOWS` windows and one for none: missing
    windows and positions that are no window's are its, are of slot ``padding_slot``, and of length 0.

    Attributes:
        slots: whose window it is.
        starts: its first position among those of all.
        lengths: how many it has.
        n_own: how many are the window's own, the others being stand-ins.
        log_sizes: float32, what is added to the stand-ins' scores.
        tile_windows: of each tile the window.
        tile_firsts: its first position among those of all.
        windows: of each position the window.
        offsets: its place in the window.
        frames: `Layout.frames`, among the convolve features of all windows.
        places: `Layout.positions`.
        frame_windows: of each feature frame the window.
    """

    slots: torch.Tensor
    starts: torch.Tensor
    lengths: torch.Tensor
    n_own: torch.Tensor
    log_sizes: torch.Tensor
    tile_windows: torch.Tensor
    tile_firsts: torch.Tensor
    windows: torch.Tensor
    offsets: torch.Tensor
    frames: torch.Tensor
    places: torch.Tensor
    frame_windows: torch.Tensor

    @classmethod
    def of(cls, numbers: torch.Tensor, batch_shape: BatchShape) -> PackedBatch:
        """Views of the numbers that `write_batch` wrote."""
        fields = list(numbers[: batch_shape.n_numbers].split(batch_shape.counts))
        fields[4] = fields[4].view(torch.float32)
        return cls(*fields)

    @property
    def is_window_frame(self) -> torch.Tensor:
        """Which feature frames are a window's, ``[n_frames]``."""
        return self.frame_windows < MAX_WINDOWS


def frame_starts(layouts: Sequence[Layout]) -> list[int]:
    """Where the features of each window begin among those of all."""
    starts, start = [], GAP
    for each in layouts:
        starts.append(start)
        start += each.n_frames + GAP
    return starts


def write_batch(
    slots: Sequence[int], layouts: Sequence[Layout], batch_shape: BatchShape, into: Numbers
) -> None:
    """Write a batch's numbers, in the order of its fields."""
    into[: batch_shape.n_numbers] = 0
    bounds = np.cumsum(batch_shape.counts)[:-1]
    fields = np.split(into[: batch_shape.n_numbers], bounds)
    by_window, (tile_windows, tile_firsts), by_position = fields[:5], fields[5:7], fields[7:11]
    by_window[0][:] = batch_shape.padding_slot
    by_window[4].view(np.float32)[: len(layouts)] = [each.log_size for each in layouts]
    for each in (tile_windows, by_position[0], fields[11]):
        each[:] = MAX_WINDOWS
    start, tile = 0, 0
    for i, (window_layout, frame) in enumerate(zip(layouts, frame_starts(layouts), strict=True)):
        n = len(window_layout)
        for field, value in zip(by_window, (slots[i], start, n, window_layout.n_own), strict=False):
            field[i] = value
        firsts = np.arange(start, start + n, TILE)
        tile_windows[tile : tile + len(firsts)] = i
        tile_firsts[tile : tile + len(firsts)] = firsts
        windows, offsets, frames, places = (each[start : start + n] for each in by_position)
        windows[:], offsets[:] = i, np.arange(n)
        np.add(window_layout.frames, frame // 2, out=frames)
        places[:] = window_layout.positions
        fields[11][frame : frame + window_layout.n_frames] = i
        start, tile = start + n, tile + len(firsts)
