"""Which slots are free, and which sequence has which of the others."""

from __future__ import annotations

from collections.abc import Iterator

from batched_whisper.batching.sequence import DecodeRequest, Sequence


class SlotTable:
    """The engine's slots, handed out lowest first; each is one sequence's at a time.

    Args:
        n_slots: how many.
        tokens_per_step: the engine's (`EngineInfo`), for the sequences.
    """

    def __init__(self, n_slots: int, tokens_per_step: int = 1) -> None:
        self._n_slots = n_slots
        self._tokens_per_step = tokens_per_step
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

    def give(self, task: DecodeRequest) -> Sequence:
        """As many slots as a window takes. Raises IndexError where too few are free."""
        if task.n_slots > len(self._free):
            raise IndexError(f"{task.n_slots} slots are wanted, {len(self._free)} are free")
        slots = tuple(self._free[: -task.n_slots - 1 : -1])
        sequence = Sequence(task, slots, self._tokens_per_step)  # may fail: a task's own rules
        del self._free[-task.n_slots :]
        self._sequences[slots[0]] = sequence
        return sequence

    def take_back(self, sequence: Sequence) -> None:
        """Free the sequence's slots."""
        del self._sequences[sequence.slots[0]]
        self._free.extend(reversed(sequence.slots))
