"""Laws of how long an idle engine waits for more items."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batched_whisper.batching.policy import FixedWait, Start, WaitUntil
from batched_whisper.errors import OptionError

seconds = st.floats(0, 1e6)


def test_a_full_batch_starts_at_once() -> None:
    assert FixedWait(wait_ms=1000).decide(8, 0.0, 0.0, 8) == Start()


def test_more_than_a_batch_starts_at_once() -> None:
    assert FixedWait(wait_ms=1000).decide(9, 0.0, 0.0, 8) == Start()


def test_a_lone_item_waits_from_its_arrival_not_from_now() -> None:
    assert FixedWait(wait_ms=500).decide(1, 10.0, 10.25, 8) == WaitUntil(10.5, n_items=8)


def test_an_item_that_came_while_the_engine_ran_has_waited_already() -> None:
    assert FixedWait(wait_ms=500).decide(1, 10.0, 11.0, 8) == Start()


def test_no_wait_starts_at_once() -> None:
    assert FixedWait(wait_ms=0).decide(1, 3.0, 3.0, 64) == Start()


@given(st.integers(1, 100), seconds, seconds, st.integers(1, 100), st.floats(0, 1e5))
def test_no_item_waits_longer_than_wait_ms(
    n_waiting: int, arrival_s: float, waited_s: float, max_batch_size: int, wait_ms: float
) -> None:
    now_s = arrival_s + waited_s
    decision = FixedWait(wait_ms).decide(n_waiting, arrival_s, now_s, max_batch_size)
    if isinstance(decision, WaitUntil):
        assert now_s < decision.time_s <= arrival_s + wait_ms / 1000


@given(st.integers(1, 100), seconds, st.integers(1, 100), st.floats(0, 1e5))
def test_at_the_time_it_named_the_batch_starts(
    n_waiting: int, arrival_s: float, max_batch_size: int, wait_ms: float
) -> None:
    policy = FixedWait(wait_ms)
    decision = policy.decide(n_waiting, arrival_s, arrival_s, max_batch_size)
    if isinstance(decision, WaitUntil):
        assert policy.decide(n_waiting, arrival_s, decision.time_s, max_batch_size) == Start()


@pytest.mark.parametrize("wait_ms", [-1, math.nan, math.inf])
def test_a_wait_that_makes_no_sense_is_refused(wait_ms: float) -> None:
    with pytest.raises(OptionError, match="wait_ms"):
        FixedWait(wait_ms)
