"""How many slots fit into a GPU's memory: arithmetic on bytes, no device in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch

from batched_whisper.errors import EngineError
from batched_whisper.models.dimensions import Dimensions

RESERVE_BYTES = 1 << 30
"""LayerKV free for the libraries' workspaces."""
_WIDTHS = 24
"""What a position of a batch takes at once while it is encoded, in widths of the model: the
mlp's first layer twice (4 each), queries, keys and values, the convolutions' taps, and
some more."""

Allocated = TypeVar("Allocated")


@dataclass(frozen=True)
class MemoryBudget:
    """A GPU's memory at one moment, in bytes, and the share of it that may be used."""

    total: int
    free: int
    fraction: float

    @property
    def allowed(self) -> int:
        """How many more bytes may be taken."""
        return max(0, min(self.free, int(self.total * self.fraction) - (self.total - self.free)))


@dataclass(frozen=True)
class SlotCount:
    """How many slots, and why not more."""

    n_slots: int
    why: str


def reserve_bytes(
    sizes: Dimensions,
    dtype: torch.dtype,
    n_positions: int,
    max_tokens: int,
    n_stream_slots: int = 1,
) -> int:
    """What is kept free beside the slots: for libraries, and for what is recorded.

    ``n_positions`` are the most that are encoded together, ``max_tokens`` those of a pass, whose
    logits are in float32 and worked on twice. ``n_stream_slots`` is at how many it is recorded: what is
    worked with at one of them is not for another.
    """
    encoding = _WIDTHS * n_positions * sizes.n_audio_state * dtype.itemsize
    stepping = 4 * max_tokens * sizes.n_vocab
    return RESERVE_BYTES + n_stream_slots * int(encoding) + (1 + 2 * n_stream_slots) * stepping


def count_slots(
    wanted: int, slot_bytes: int, budget: MemoryBudget | None, reserve: int = RESERVE_BYTES
) -> SlotCount:
    """How many slots to take.

    Args:
        wanted: the most.
        slot_bytes: what one takes.
        budget: what there is; None where padding_slot counts.
        reserve: bytes that are kept free beside them.

    Raises:
        EngineError: not one slot fits.
    """
    each = f"slots of {slot_bytes / 1e6:.0f} MB"
    if budget is None:
        return SlotCount(wanted, f"{wanted} {each}, as asked for")
    # One more than asked for: the row that is padding_slot's.
    fitting = (budget.allowed - reserve) // slot_bytes - 1
    if fitting < 1:
        raise EngineError(
            f"the GPU has {budget.free / 1e9:.1f} GB free of {budget.total / 1e9:.1f}, and "
            f"gpu_memory_utilization={budget.fraction:g} leaves {budget.allowed / 1e9:.1f} of it: not "
            f"enough for one window of {slot_bytes / 1e9:.2f} GB beside {reserve / 1e9:.1f} "
            "GB of workspace. Free memory, raise the fraction, or choose a smaller model"
        )
    if fitting >= wanted:
        return SlotCount(wanted, f"{wanted} {each}, as asked for")
    why = f"{fitting} {each} instead of {wanted}: what fits into {budget.allowed / 1e9:.1f} GB"
    return SlotCount(fitting, why)


@dataclass(frozen=True)
class Allocation(Generic[Allocated]):
    """What was allocated, and for how many slots."""

    value: Allocated
    count: SlotCount


def allocate_slots(take: Callable[[int], Allocated], count: SlotCount) -> Allocation[Allocated]:
    """Allocate; where the memory is not there after all, for half as many slots, and so on.

    Raises:
        EngineError: there is not enough for one.
    """
    n_slots = count.n_slots
    while True:
        try:
            value = take(n_slots)
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
