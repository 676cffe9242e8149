"""Calculates how many slots fit into a GPU's memory; works on byte counts, without a device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch

from batched_whisper.errors import EngineError
from batched_whisper.models.dimensions import Dimensions

RESERVE_BYTES = 1 << 30
"""Bytes kept free for the libraries' workspaces."""
_WIDTHS = 24
"""Temporary memory per encoded position, in multiples of the model's width: the MLP's first layer
twice (4 each), queries, keys and values, the convolutions' taps, and some more."""

Allocated = TypeVar("Allocated")


@dataclass(frozen=True)
class MemoryBudget:
    """A GPU's memory in bytes at one moment, and the fraction that may be used."""

    total: int
    free: int
    fraction: float

    @property
    def allowed(self) -> int:
        """How many more bytes may be allocated."""
        return max(0, min(self.free, int(self.total * self.fraction) - (self.total - self.free)))


@dataclass(frozen=True)
class SlotCount:
    """A number of slots, and why it is not larger."""

    n_slots: int
    why: str


def reserve_bytes(
    sizes: Dimensions,
    dtype: torch.dtype,
    n_positions: int,
    max_tokens: int,
    n_stream_slots: int = 1,
) -> int:
    """Return the bytes to keep free besides the slots: for libraries and for recorded graphs.

    Args:
        sizes: the model's dimensions.
        dtype: the type of activations.
        n_positions: the most positions of one encoder batch.
        max_tokens: the most tokens of one decoder pass; their logits are float32, with two copies.
        n_stream_slots: the number of streams with graphs of their own, which share no temporary
            memory.
    """
    encoding = _WIDTHS * n_positions * sizes.n_audio_state * dtype.itemsize
    stepping = 4 * max_tokens * sizes.n_vocab
    return RESERVE_BYTES + n_stream_slots * int(encoding) + (1 + 2 * n_stream_slots) * stepping


def count_slots(
    wanted: int, slot_bytes: int, budget: MemoryBudget | None, reserve: int = RESERVE_BYTES
) -> SlotCount:
    """Return how many slots to allocate.

    Args:
        wanted: the most.
        slot_bytes: bytes per slot.
        budget: the available memory; None if it is not limited.
        reserve: bytes to keep free besides the slots.

    Raises:
        EngineError: not even one slot fits.
    """
    each = f"slots of {slot_bytes / 1e6:.0f} MB"
    if budget is None:
        return SlotCount(wanted, f"{wanted} {each}, as asked for")
    # One row more than slots: the padding slot.
    fitting = (budget.allowed - reserve) // slot_bytes - 1
    if fitting < 1:
        raise EngineError(
            f"the GPU has {budget.free / 1e9:.1f} GB free of {budget.total / 1e9:.1f}, and "
            f"gpu_memory_utilization={budget.fraction:g} leaves {budget.allowed / 1e9:.1f} GB: not "
            f"enough for one window of {slot_bytes / 1e9:.2f} GB beside {reserve / 1e9:.1f} "
            "GB of workspace. Free memory, raise gpu_memory_utilization, or choose a smaller model"
        )
    if fitting >= wanted:
        return SlotCount(wanted, f"{wanted} {each}, as asked for")
    why = f"{fitting} {each} instead of {wanted}: what fits into {budget.allowed / 1e9:.1f} GB"
    return SlotCount(fitting, why)


@dataclass(frozen=True)
class Allocation(Generic[Allocated]):
    """An allocated value, and its number of slots."""

    value: Allocated
    count: SlotCount


def allocate_slots(allocate: Callable[[int], Allocated], count: SlotCount) -> Allocation[Allocated]:
    """Allocate for ``count`` slots; on running out of memory, retry with half as many, and so on.

    Raises:
        EngineError: there is not enough for one slot.
    """
    n_slots = count.n_slots
    while True:
        try:
            value = allocate(n_slots)
        except torch.OutOfMemoryError:
            if n_slots == 1:
                raise EngineError(
                    "the GPU ran out of memory for a single window: free some, or choose a "
                    "smaller model"
                ) from None
            n_slots //= 2
            continue
        if n_slots == count.n_slots:
            return Allocation(value, count)
        why = f"{n_slots} slots instead of {count.n_slots}: the GPU ran out of memory"
        return Allocation(value, SlotCount(n_slots, why))
