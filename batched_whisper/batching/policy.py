"""How long a batch waits for company.

A policy is a pure decision over four numbers: it holds no clock, no queue and no thread, and does
not know what is batched.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from batched_whisper.errors import OptionError


@dataclass(frozen=True)
class Start:
    """Form a batch of what waits, now."""


@dataclass(frozen=True)
class WaitUntil:
    """Wait for company, and ask again at that time.

    ``n_items``: ask again before that once so many wait; None asks again at every arrival. It only
    spares waking the waiting thread for arrivals that cannot change the decision.
    """

    time_s: float
    n_items: int | None = None


Decision = Start | WaitUntil


class Policy(Protocol):
    """Decides when a batch starts in an idle engine."""

    def decide(
        self, n_waiting: int, oldest_arrival_s: float, now_s: float, max_batch_size: int
    ) -> Decision:
        """Start a batch, or wait until when?

        Args:
            n_waiting: the items that wait, at least 1.
            oldest_arrival_s: when the first of them came.
            now_s: the time now, on the same clock. A `WaitUntil` not after it means `Start`.
            max_batch_size: the most items a batch may have.
        """


@dataclass(frozen=True)
class FixedWait:
    """A full batch starts at once; any other ``wait_ms`` after its oldest item came.

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
    """A policy that counts a batch as full at another size than is taken at once.

    Attributes:
        policy: decides.
        max_batch_size: the size: of a loop that steps between encodes, say, and fetches the others
            of its batch then.
    """

    policy: Policy
    max_batch_size: int

    def decide(
        self, n_waiting: int, oldest_arrival_s: float, now_s: float, max_batch_size: int
    ) -> Decision:
        """See `Policy.decide`."""
        return self.policy.decide(n_waiting, oldest_arrival_s, now_s, self.max_batch_size)
