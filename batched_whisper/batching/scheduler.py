"""What the engine does next, as a pure function: no clock, no thread, no tensor.

The plan is made anew before every step, so that windows come and go at every step: a waiting window
gets a free slot now, and every window in a slot goes on. A window with beams takes several slots,
and waits until so many are free; no window overtakes it meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What a plan keeps within.

    Attributes:
        max_batch_size: the slots: the most windows and beams that are decoded together.
        max_encodes: the most windows encoded between two steps while others are being decoded.
            Encoding holds up their next token, but an empty slot is wasted in every step, so it
            should be more than the windows that end in a step (`enough_encodes`).
    """

    max_batch_size: int
    max_encodes: int = 4


def enough_encodes(max_batch_size: int, tokens_per_step: int) -> int:
    """How many windows may have to be encoded between two steps for slots to stay full.

    Args:
        max_batch_size: the slots.
        tokens_per_step: how many tokens each of them says in a step.
    """
    return max(Limits.max_encodes, max_batch_size * tokens_per_step // _SHORT_TEXT)


_SHORT_TEXT = 16
"""Tokens of a text of some seconds: with shorter ones, slots may be left empty."""


@dataclass(frozen=True)
class Plan:
    """Admit so many of those who wait, then step every slot, if any is taken.

    ``n_admit`` are the most of them, as far as the ``n_free`` slots are enough for them all.
    """

    n_admit: int
    n_free: int
    step: bool


def plan(n_waiting: int, n_taken: int, n_encodes_due: int, limits: Limits) -> Plan:
    """Plan the next round.

    Args:
        n_waiting: windows in the queue.
        n_taken: slots that are taken.
        n_encodes_due: windows in them that must be encoded again first.
        limits: what to keep within.
    """
    n_free = max(0, limits.max_batch_size - n_taken)
    room = max(0, limits.max_encodes - n_encodes_due)
    n_admit = min(n_waiting, n_free, room)
    return Plan(n_admit=n_admit, n_free=n_free, step=n_taken + n_admit > 0)
