"""The counters of a loop."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LoopStats:
    """The counters of one loop at one time.

    A batch is one step of the decoder; its size is its number of rows, one per window or beam.
    """

    n_windows: int = 0  # answered
    n_failed: int = 0  # answered with an error
    n_cancelled: int = 0  # dropped because their futures were cancelled
    n_retries: int = 0  # decoded again
    n_batches: int = 0
    n_rows: int = 0  # over all batches
    largest_batch: int = 0
    n_encodes: int = 0
    encode_s: float = 0.0
    step_s: float = 0.0
    queue_depth: int = 0  # windows waiting now
    n_active: int = 0  # windows in slots now

    @property
    def mean_batch_size(self) -> float:
        """Windows per step; 0 before the first."""
        return self.n_rows / self.n_batches if self.n_batches else 0.0


class LoopMetrics:
    """The counters. The loop's thread writes them; a reader gets a frozen copy."""

    def __init__(self) -> None:
        self.n_windows = self.n_failed = self.n_cancelled = self.n_retries = 0
        self.n_batches = self.n_rows = self.largest_batch = self.n_encodes = 0
        self.encode_s = self.step_s = 0.0

    def stepped(self, n_rows: int, seconds: float) -> None:
        """Record a step over ``n_rows`` windows or beams, and its time."""
        self.n_batches += 1
        self.n_rows += n_rows
        self.largest_batch = max(self.largest_batch, n_rows)
        self.step_s += seconds

    def encoded(self, n_windows: int, seconds: float) -> None:
        """Record the encoding of ``n_windows`` windows, and its time."""
        self.n_encodes += n_windows
        self.encode_s += seconds

    def read(self, queue_depth: int, n_active: int) -> LoopStats:
        """Return the counters now."""
        return LoopStats(**vars(self), queue_depth=queue_depth, n_active=n_active)
