"""A packed batch: windows of any length laid end to end, and its description for the device.

Most of the encoder treats each position by itself and knows nothing of windows, so nothing is
padded (as in the variable-length batches of Dao et al. 2022, FlashAttention). A batch's work
depends only on its number of positions, and can be recorded for a few of those. Windows and
positions are described by whole numbers in one array.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from batched_whisper.engines.merged_padding import Layout

MAX_WINDOWS = 64
"""The most windows of one batch."""
TILE = 128
"""Queries per program of the attention kernel, all of one window; its last tile has fewer."""
GAP = 2
"""Feature frames of zeros between windows and before the first: the convolutions' padding."""
_SPARE = 8
"""Feature frames besides two per position: silence (`append_silence`) and the gap."""

Numbers = NDArray[np.int32]


def split_batches(lengths: Sequence[int], max_positions: int) -> list[list[int]]:
    """Split windows, given their numbers of positions, into batches; returns lists of indices.

    The order is kept. A batch has at most ``max_positions``, or one window, and at most
    `MAX_WINDOWS` windows.
    """
    batches: list[list[int]] = []
    n_positions = 0
    for i, length in enumerate(lengths):
        fits = n_positions + length <= max_positions
        if not batches or not fits or len(batches[-1]) == MAX_WINDOWS:
            batches.append([])
            n_positions = 0
        batches[-1].append(i)
        n_positions += length
    return batches


@dataclass(frozen=True)
class BatchShape:
    """The shape of a batch's memory.

    Attributes:
        n_positions: the positions of all its windows.
        full: the positions of a full window.
        padding_slot: the slot of padding positions.
    """

    n_positions: int
    full: int
    padding_slot: int

    @property
    def n_frames(self) -> int:
        """The feature frames of all windows and the gaps between them; always even."""
        return 2 * self.n_positions + _SPARE * (self.n_positions // self.full + 1) + GAP

    @property
    def n_tiles(self) -> int:
        """The largest number of tiles of queries."""
        return self.n_positions // TILE + MAX_WINDOWS

    @property
    def counts(self) -> tuple[int, ...]:
        """The length of each field of a `PackedBatch`."""
        windows = (MAX_WINDOWS + 1,) * 5
        return (*windows, *(self.n_tiles,) * 2, *(self.n_positions,) * 4, self.n_frames)

    @property
    def n_numbers(self) -> int:
        """The length of all fields together."""
        return sum(self.counts)


@dataclass(frozen=True)
class PackedBatch:
    """Windows laid end to end, described on the device; int32 except ``log_sizes``.

    The fields per window have one entry for each of `MAX_WINDOWS` windows and a last one for
    padding. Missing windows have length 0 and the padding slot; padding positions belong to the
    last entry.

    Attributes:
        slots: per window, its slot.
        starts: per window, its first position in the batch.
        lengths: per window, its number of positions.
        n_own: per window, how many of them are its own; the others are merged positions.
        log_sizes: per window, float32, the score added to its merged positions.
        tile_windows: per tile, its window.
        tile_firsts: per tile, its first position in the batch.
        windows: per position, its window.
        offsets: per position, its index in the window.
        frames: per position, `Layout.frames`, as an index into the convolved features of all
            windows.
        positions: per position, `Layout.positions`.
        frame_windows: per feature frame, its window.
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
    positions: torch.Tensor
    frame_windows: torch.Tensor

    @classmethod
    def of(cls, numbers: torch.Tensor, batch_shape: BatchShape) -> PackedBatch:
        """View the numbers that `write_batch` wrote as fields."""
        fields = list(numbers[: batch_shape.n_numbers].split(batch_shape.counts))
        fields[4] = fields[4].view(torch.float32)
        return cls(*fields)

    @property
    def is_window_frame(self) -> torch.Tensor:
        """Whether each feature frame belongs to a window, ``[n_frames]``."""
        return self.frame_windows < MAX_WINDOWS


def frame_starts(layouts: Sequence[Layout]) -> list[int]:
    """Return the first feature frame of each window in the batch."""
    starts, start = [], GAP
    for each in layouts:
        starts.append(start)
        start += each.n_frames + GAP
    return starts


def write_batch(
    slots: Sequence[int], layouts: Sequence[Layout], batch_shape: BatchShape, into: Numbers
) -> None:
    """Write a batch's numbers, in the order of the fields of `PackedBatch`."""
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
        windows, offsets, frames, positions = (each[start : start + n] for each in by_position)
        windows[:], offsets[:] = i, np.arange(n)
        np.add(window_layout.frames, frame // 2, out=frames)
        positions[:] = window_layout.positions
        fields[11][frame : frame + window_layout.n_frames] = i
        start, tile = start + n, tile + len(firsts)
