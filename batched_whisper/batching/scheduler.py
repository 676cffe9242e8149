"""Plans the engine's next round, as a pure function: no clock, no thread, no tensor.

A new plan is made before every step, so that windows enter and leave at every step: a waiting
window gets a free slot, and every window in a slot is stepped. A window with beams takes several
slots, and waits until they are free; no window overtakes it meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """The limits of a plan.

    Attributes:
        max_batch_size: the slots: the most windows and beams that are decoded together.
        max_encodes: the most windows encoded between two steps while others are decoded. Encoding
            delays their next token, but an empty slot is wasted in every step, so it should exceed
            the number of windows that finish per step (`enough_encodes`).
    """

    max_batch_size: int
    max_encodes: int = 4


def enough_encodes(max_batch_size: int, tokens_per_step: int) -> int:
    """Return how many windows must be encoded between two steps to keep the slots full.

    Args:
        max_batch_size: the slots.
        tokens_per_step: the tokens that each slot decodes per step.
    """
    return max(Limits.max_encodes, max_batch_size * tokens_per_step // _SHORT_TEXT)


_SHORT_TEXT = 16
"""The tokens of a text of some seconds. With shorter texts, slots may stay empty."""


@dataclass(frozen=True)
class Plan:
    """Admit waiting windows, then step every slot, if any is taken.

    Attributes:
        n_admit: the most windows to admit.
        n_free: the free slots, which those windows must fit into.
        step: whether there is a slot to step.
    """

    n_admit: int
    n_free: int
    step: bool


def plan(n_waiting: int, n_taken: int, n_encodes_due: int, limits: Limits) -> Plan:
    """Plan the next round.

    Args:
        n_waiting: windows in the queue.
        n_taken: the taken slots.
        n_encodes_due: windows in slots that must be encoded again first.
        limits: the limits of the plan.
    """
    n_free = max(0, limits.max_batch_size - n_taken)
    room = max(0, limits.max_encodes - n_encodes_due)
    n_admit = min(n_waiting, n_free, room)
    return Plan(n_admit=n_admit, n_free=n_free, step=n_taken + n_admit > 0)
