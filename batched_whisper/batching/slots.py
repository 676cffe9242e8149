"""Which slots are free, and which sequence has which of the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from batched_whisper.batching.sequence import Sequence


class SlotTable:
    """The engine's slots, handed out lowest first; each is one sequence's at a time.

    Args:
        n_slots: how many.
    """

    def __init__(self, n_slots: int) -> None:
        self._n_slots = n_slots
        self._free = list(range(n_slots - 1, -1, -1))
        self._sequences: dict[int, Sequence] = {}

    def __len__(self) -> int:
        return len(self._sequences)

    def __iter__(self) -> Iterator[Sequence]:
        """The sequences that have a slot, longest there first."""
        return iter(tuple(self._sequences.values()))

    @property
    def n_free(self) -> int:
        """How many slots are left."""
        return len(self._free)

    @property
    def n_taken(self) -> int:
        """How many are given out: at least as many as there are sequences."""
        return self._n_slots - len(self._free)

    def allocate(self, n_slots: int, new: Callable[[tuple[int, ...]], Sequence]) -> Sequence:
        """Make a sequence in so many slots, given to ``new``. Raises IndexError: too few are free.

        The slots stay free if ``new`` raises.
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
