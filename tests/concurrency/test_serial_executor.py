"""The law of calls in turn: in their order, never two at a time, whatever the threads."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from scripted_speech import SOON_S

from batched_whisper.concurrency.serial_executor import SerialExecutor


def test_calls_are_made_in_the_order_they_were_asked_for() -> None:
    made = list[int]()
    with ThreadPoolExecutor(4) as pool:
        calls = SerialExecutor(pool)
        for number in range(500):
            calls.submit(partial(made.append, number))
    assert made == list(range(500))


def test_a_call_is_not_made_before_the_one_before_it_returned() -> None:
    go, made = threading.Event(), list[int]()
    with ThreadPoolExecutor(2) as pool:
        calls = SerialExecutor(pool)
        calls.submit(lambda: go.wait(SOON_S))
        calls.submit(partial(made.append, 1))
        pool.submit(int).result(SOON_S)  # the other thread had nothing to do before this
        assert made == []
        go.set()
    assert made == [1]


def test_nobody_waits_for_the_calls_of_others() -> None:
    go, done = threading.Event(), threading.Event()
    with ThreadPoolExecutor(2) as pool:
        slow, quick = SerialExecutor(pool), SerialExecutor(pool)
        slow.submit(lambda: go.wait(SOON_S))
        quick.submit(done.set)
        assert done.wait(SOON_S)
        go.set()


def test_where_the_pool_was_shut_down_the_call_is_made_all_the_same() -> None:
    pool, made = ThreadPoolExecutor(1), list[int]()
    pool.shutdown()
    SerialExecutor(pool).submit(lambda: made.append(1))
    assert made == [1]
