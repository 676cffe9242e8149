"""Assigns the engine's slots to sequences."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from batched_whisper.batching.sequence import Sequence


class SlotTable:
    """The engine's slots, allocated lowest first; each belongs to at most one sequence.

    Args:
        n_slots: the number of slots.
    """

    def __init__(self, n_slots: int) -> None:
        self._n_slots = n_slots
        self._free = list(range(n_slots - 1, -1, -1))
        self._sequences: dict[int, Sequence] = {}

    def __len__(self) -> int:
        return len(self._sequences)

    def __iter__(self) -> Iterator[Sequence]:
        """Iterate over the sequences that have a slot, oldest first."""
        return iter(tuple(self._sequences.values()))

    @property
    def n_free(self) -> int:
        """The number of free slots."""
        return len(self._free)

    @property
    def n_taken(self) -> int:
        """The number of allocated slots, at least one per sequence."""
        return self._n_slots - len(self._free)

    def allocate(self, n_slots: int, new: Callable[[tuple[int, ...]], Sequence]) -> Sequence:
        """Allocate slots and make the sequence with ``new(slots)``.

        The slots stay free if ``new`` raises.

        Raises:
            IndexError: fewer than ``n_slots`` are free.
        """
        if n_slots > len(self._free):
            raise IndexError(f"{n_slots} slots are wanted, {len(self._free)} are free")
        slots = tuple(self._free[: -n_slots - 1 : -1])
        sequence = new(slots)
        del self._free[-n_slots:]
        self._sequences[slots[0]] = sequence
        return sequence

    def free(self, sequence: Sequence) -> None:
        """Free the sequence's slots."""
        del self._sequences[sequence.slots[0]]
        self._free.extend(reversed(sequence.slots))
