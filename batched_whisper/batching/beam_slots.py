"""Assigns the slots of a window to its beams, and plans the copies when texts branch.

One of the texts that continue another stays in its slot; the others are copied into the slots of
dropped texts. So no slot is both read and overwritten, and the number of copies is minimal.
"""

from __future__ import annotations

from collections.abc import Sequence

from batched_whisper.engines.interface import CopyRow


class BeamSlots:
    """The slots of one window's texts.

    Args:
        slots: the window's slots; the first one holds its audio, and the first text.
    """

    def __init__(self, slots: Sequence[int]) -> None:
        self._slots = tuple(slots)
        self.taken = self._slots[:1]
        """The slot of each live text."""

    def branch(self, sources: Sequence[int]) -> tuple[CopyRow, ...]:
        """Assign slots to the new texts. Return the copies to make.

        Args:
            sources: for each new text, the index of the text that it continues.
        """
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
