"""How many slots fit into a GPU's memory: arithmetic on bytes, no device in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch

from batched_whisper.errors import EngineError
from batched_whisper.models.dimensions import Dimensions

RESERVE_BYTES = 1 << 30
"""Kept free for the libraries' workspaces."""
_WIDTHS = 24
"""What a position of a batch takes at once while it is encoded, in widths of the model: the
perceptron's first layer twice (4 each), queries, keys and values, the convolutions' taps, and
some more."""

Thing = TypeVar("Thing")


@dataclass(frozen=True)
class Room:
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
    sizes: Dimensions, dtype: torch.dtype, n_positions: int, most_tokens: int, n_places: int = 1
) -> int:
    """What is kept free beside the slots: for libraries, and for what is recorded.

    ``n_positions`` are the most that are encoded together, ``most_tokens`` those of a pass, whose
    logits are in float32 and worked on twice. ``n_places`` is at how many it is recorded: what is
    worked with at one of them is not for another.
    """
    encoding = _WIDTHS * n_positions * sizes.n_audio_state * dtype.itemsize
    stepping = 4 * most_tokens * sizes.n_vocab
    return RESERVE_BYTES + n_places * int(encoding) + (1 + 2 * n_places) * stepping


def count_slots(
    wanted: int, slot_bytes: int, room: Room | None, reserve: int = RESERVE_BYTES
) -> SlotCount:
    """How many slots to take.

    Args:
        wanted: the most.
        slot_bytes: what one takes.
        room: what there is; None where nobody counts.
        reserve: bytes that are kept free beside them.

    Raises:
        EngineError: not one slot fits.
    """
    each = f"slots of {slot_bytes / 1e6:.0f} MB"
    if room is None:
        return SlotCount(wanted, f"{wanted} {each}, as asked for")
    # One more than asked for: the row that is nobody's.
    fitting = (room.allowed - reserve) // slot_bytes - 1
    if fitting < 1:
        raise EngineError(
            f"the GPU has {room.free / 1e9:.1f} GB free of {room.total / 1e9:.1f}, and "
            f"gpu_memory_fraction={room.fraction:g} leaves {room.allowed / 1e9:.1f} of it: not "
            f"enough for one window of {slot_bytes / 1e9:.2f} GB beside {reserve / 1e9:.1f} "
            "GB of workspace. Free memory, raise the fraction, or choose a smaller model"
        )
    if fitting >= wanted:
        return SlotCount(wanted, f"{wanted} {each}, as asked for")
    why = f"{fitting} {each} instead of {wanted}: what fits into {room.allowed / 1e9:.1f} GB"
    return SlotCount(fitting, why)


@dataclass(frozen=True)
class Taken(Generic[Thing]):
    """What was allocated, and for how many slots."""

    thing: Thing
    count: SlotCount


def take_what_fits(take: Callable[[int], Thing], count: SlotCount) -> Taken[Thing]:
    """Allocate; where the memory is not there after all, for half as many slots, and so on.

    Raises:
        EngineError: there is not enough for one.
    """
    n_slots = count.n_slots
    while True:
        try:
            thing = take(n_slots)
        except torch.OutOfMemoryError:
            if n_slots == 1:
                raise EngineError(
                    "the GPU ran out of memory for a single window: free some, or choose a "
                    "smaller model"
                ) from None
            n_slots //= 2
            continue
        if n_slots == count.n_slots:
            return Taken(thing, count)
        why = f"{n_slots} slots instead of {count.n_slots}: the GPU ran out of memory"
        return Taken(thing, SlotCount(n_slots, why))
