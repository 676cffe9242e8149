"""The loop's counters."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batched_whisper.batching.metrics import LoopMetrics, LoopStats


@given(st.lists(st.tuples(st.integers(1, 64), st.floats(0, 1)), max_size=20))
def test_the_figures_are_sums_over_the_steps(steps: list[tuple[int, float]]) -> None:
    meters = LoopMetrics()
    for n_rows, seconds in steps:
        meters.stepped(n_rows, seconds)
    stats = meters.read(queue_depth=3, n_active=2)
    assert stats.n_batches == len(steps)
    assert stats.n_rows == sum(n_rows for n_rows, _ in steps)
    assert stats.largest_batch == max((n_rows for n_rows, _ in steps), default=0)
    assert stats.step_s == sum(seconds for _, seconds in steps)
    assert (stats.queue_depth, stats.n_active) == (3, 2)
    assert stats.mean_batch_size * len(steps) == pytest.approx(stats.n_rows)


def test_before_the_first_step_the_mean_is_zero() -> None:
    assert LoopStats().mean_batch_size == 0


def test_what_was_read_does_not_change_later() -> None:
    meters = LoopMetrics()
    before = meters.read(0, 0)
    meters.encoded(4, 0.5)
    assert before == LoopStats()
    assert meters.read(0, 0) == LoopStats(n_encodes=4, encode_s=0.5)
