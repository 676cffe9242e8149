"""Which windows are encoded together, and what the device is told of them.

A short window alone does not fill a GPU, and windows of just the same length seldom meet. So
windows of similar length go together, padded to the longest; what is padded is heard by nobody.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from batched_whisper.engines.stand_ins import Layout

ENOUGH_POSITIONS = 6000
"""Four full windows: with fewer, company is worth more than what padding costs."""
MUCH_SHORTER = 0.75
"""Of the longest: such a window does not join a company that is large enough."""
_GRAIN = 8
"""Keys of a masked product are padded to a multiple of so many, or PyTorch would copy the mask."""


def companies(lengths: Sequence[int], most_positions: int) -> list[list[int]]:
    """Split windows by their numbers of positions; lists of their places, longest windows first.

    A company with its padding has at most ``most_positions``, or one window.
    """
    found: list[list[int]] = []
    longest = 0
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if found:
            n = len(found[-1])
            is_enough = n * longest >= ENOUGH_POSITIONS and lengths[i] < MUCH_SHORTER * longest
            if not is_enough and (n + 1) * longest <= most_positions:
                found[-1].append(i)
                continue
        found.append([i])
        longest = lengths[i]
    return found


@dataclass(frozen=True)
class Company:
    """Layouts of windows side by side, padded to the longest, on the device.

    Attributes:
        frames: ``[batch, n]``, `Layout.frames`.
        positions: ``[batch, n]``, `Layout.positions`.
        scores: ``[batch, 1, 1, n]``, added to the scores of keys; None where all would be 0.
        lengths: ``[batch]``, how many positions are not padding.
        n_own: ``[batch]``, how many are the window's own.
        log_counts: ``[batch]`` float32, the score of each window's stand-ins.
    """

    frames: torch.Tensor
    positions: torch.Tensor
    scores: torch.Tensor | None
    lengths: torch.Tensor
    n_own: torch.Tensor
    log_counts: torch.Tensor

    @classmethod
    def of(cls, layouts: Sequence[Layout], device: torch.device, dtype: torch.dtype) -> Company:
        """``dtype`` is that of the scores."""
        lengths = [len(each) for each in layouts]
        n, is_padded = max(lengths), min(lengths) < max(lengths)
        if is_padded:
            n += -n % _GRAIN
        places = np.zeros((2, len(layouts), n), np.int32)
        scores = np.full((len(layouts), 1, 1, n), -np.inf, np.float32)
        for i, each in enumerate(layouts):
            places[:, i, : len(each)] = each.frames, each.positions
            scores[i, 0, 0, : len(each)] = each.scores
        numbers = np.array([lengths, [each.n_own for each in layouts]], np.int32)
        log_counts = np.array([each.log_count for each in layouts], np.float32)
        is_plain = not is_padded and not log_counts.any()
        frames, positions = to_device(places, device)
        n_positions, n_own = to_device(numbers, device)
        return cls(
            frames,
            positions,
            None if is_plain else to_device(scores, device).to(dtype),
            n_positions,
            n_own,
            to_device(log_counts, device),
        )

    def __len__(self) -> int:
        return len(self.lengths)


def to_device(array: NDArray[np.float32] | NDArray[np.int32], device: torch.device) -> torch.Tensor:
    """A copy on the device; on a GPU the host does not wait for it, nor for the work before it."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor
