"""Which of a window's slots each of its texts is in, and what must be copied when they branch.

One of the texts that continue another stays where that one was; only the others move, into slots
whose text nobody continues. So no slot is read and overwritten at once, and as little moves as can
be.
"""

from __future__ import annotations

from collections.abc import Sequence

from batched_whisper.engines.interface import CopyRow


class BeamSlots:
    """Gives the texts of one window their slots.

    Args:
        slots: the window's; the first one holds its audio, and the first text.
    """

    def __init__(self, slots: Sequence[int]) -> None:
        self._slots = tuple(slots)
        self.taken = self._slots[:1]
        """The slot of each live text."""

    def branch(self, sources: Sequence[int]) -> tuple[CopyRow, ...]:
        """Take what each live text continues, of those that were live; returns what must move."""
        if len(self._slots) == 1:
            return ()
        stays = [self.taken[source] for source in dict.fromkeys(sources)]
        spare = [slot for slot in self._slots if slot not in stays]
        taken: list[int] = []
        copies: list[CopyRow] = []
        for source in sources:
            slot = self.taken[source]
            if slot in taken:
                copies.append(CopyRow(slot, spare.pop(0)))
                slot = copies[-1].target
            taken.append(slot)
        self.taken = tuple(taken)
        return tuple(copies)
