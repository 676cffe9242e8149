"""Decides how long an idle engine waits for more items.

A policy is a pure function of four numbers. It has no clock, no queue and no thread, and does not
know what is batched.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from batched_whisper.errors import OptionError


@dataclass(frozen=True)
class Start:
    """Form a batch of the waiting items now."""


@dataclass(frozen=True)
class WaitUntil:
    """Wait for more items, and decide again at that time.

    Attributes:
        time_s: when to decide again.
        n_items: decide again earlier if this many items wait; None decides again at each arrival.
            It saves waking the thread for arrivals that cannot change the decision.
    """

    time_s: float
    n_items: int | None = None


Decision = Start | WaitUntil


class Policy(Protocol):
    """Decides when a batch starts in an idle engine."""

    def decide(
        self, n_waiting: int, oldest_arrival_s: float, now_s: float, max_batch_size: int
    ) -> Decision:
        """Decide whether to start a batch, or until when to wait.

        Args:
            n_waiting: the waiting items, at least 1.
            oldest_arrival_s: when the first of them arrived.
            now_s: the time now, on the same clock. A `WaitUntil` not after it means `Start`.
            max_batch_size: the most items in a batch.
        """


@dataclass(frozen=True)
class FixedWait:
    """Starts a full batch immediately, and any other ``wait_ms`` after its oldest item arrived.

    Raises:
        OptionError: ``wait_ms`` is negative or not a finite number.
    """

    wait_ms: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.wait_ms) and self.wait_ms >= 0):
            raise OptionError(f"wait_ms={self.wait_ms!r}: give milliseconds, 0 or more")

    def decide(
        self, n_waiting: int, oldest_arrival_s: float, now_s: float, max_batch_size: int
    ) -> Decision:
        """See `Policy.decide`."""
        latest_start_s = oldest_arrival_s + self.wait_ms / 1000
        if n_waiting >= max_batch_size or now_s >= latest_start_s:
            return Start()
        return WaitUntil(latest_start_s, n_items=max_batch_size)


@dataclass(frozen=True)
class OfBatch:
    """A policy for which a batch is full at a given size, whatever is taken at a time.

    Attributes:
        policy: decides.
        max_batch_size: the size of a full batch, such as the slots of a loop that takes only a
            part of them before its first step.
    """

    policy: Policy
    max_batch_size: int

    def decide(
        self, n_waiting: int, oldest_arrival_s: float, now_s: float, max_batch_size: int
    ) -> Decision:
        """See `Policy.decide`."""
        return self.policy.decide(n_waiting, oldest_arrival_s, now_s, self.max_batch_size)
