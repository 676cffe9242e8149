"""Which slots are free, and which sequence has each of the others."""

from __future__ import annotations

from collections.abc import Iterator

from batched_whisper.batching.sequence import Sequence, WindowTask


class SlotTable:
    """The engine's slots, handed out lowest first and one sequence at a time."""

    def __init__(self, n_slots: int) -> None:
        self._free = list(range(n_slots - 1, -1, -1))
        self._sequences: dict[int, Sequence] = {}

    def __len__(self) -> int:
        return len(self._sequences)

    def __iter__(self) -> Iterator[Sequence]:
        """The sequences that have a slot, longest there first."""
        return iter(tuple(self._sequences.values()))

    @property
    def n_free(self) -> int:
        """How many more windows there is room for."""
        return len(self._free)

    def give(self, task: WindowTask) -> Sequence:
        """A slot for a window. Raises IndexError where none is free."""
        slot = self._free.pop()
        sequence = self._sequences[slot] = Sequence(task, slot)
        return sequence

    def take_back(self, sequence: Sequence) -> None:
        """Free the sequence's slot."""
        del self._sequences[sequence.slot]
        self._free.append(sequence.slot)
