"""The laws of a pool: what it was given is done, whatever a call does, and nothing later."""

from __future__ import annotations

import threading
from functools import partial

import pytest
from scripted_speech import SOON_S

from batched_whisper.concurrency.thread_pool import ThreadPool


def test_all_calls_that_were_brought_are_made_before_it_is_shut_down_and_none_after() -> None:
    pool, made = ThreadPool(3, "test"), list[int]()
    for number in range(100):
        pool.submit(partial(made.append, number))
    pool.shutdown()
    pool.shutdown()
    assert sorted(made) == list(range(100))
    with pytest.raises(RuntimeError):
        pool.submit(lambda: made.append(100))


def test_as_many_calls_are_made_at_a_time_as_it_has_threads() -> None:
    pool, together = ThreadPool(3, "test"), threading.Barrier(3, timeout=SOON_S)
    for _ in range(3):
        pool.submit(together.wait)
    pool.shutdown()
    assert not together.broken


def test_a_call_that_fails_does_not_take_its_thread_along() -> None:
    pool, made = ThreadPool(1, "test"), list[int]()
    pool.submit(partial(__import__("sys").exit, 1))
    pool.submit(partial(made.append, 1))
    pool.shutdown()
    assert made == [1]
