"""Laws of serial calls: in order, never two at a time, on any number of threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial

import pytest
from scripted_speech import SOON_S

from batched_whisper.concurrency.serial_executor import SerialExecutor
from batched_whisper.concurrency.thread_pool import LimitedExecutor, ThreadPool


@pytest.fixture
def executor() -> Iterator[LimitedExecutor]:
    pool = ThreadPool("test")
    executor = pool.executor(4)
    yield executor
    executor.shutdown()
    pool.shutdown()


def test_calls_are_made_in_the_order_they_were_asked_for(executor: LimitedExecutor) -> None:
    made = list[int]()
    calls = SerialExecutor(executor)
    for number in range(500):
        calls.submit(partial(made.append, number))
    executor.shutdown()
    assert made == list(range(500))


def test_a_call_is_not_made_before_the_one_before_it_returned(executor: LimitedExecutor) -> None:
    go, made, passed = threading.Event(), list[int](), threading.Event()
    calls = SerialExecutor(executor)
    calls.submit(lambda: go.wait(SOON_S))
    calls.submit(partial(made.append, 1))
    executor.submit(passed.set)  # another thread had nothing to do before this
    assert passed.wait(SOON_S)
    assert made == []
    go.set()
    executor.shutdown()
    assert made == [1]


def test_executors_do_not_wait_for_each_other(executor: LimitedExecutor) -> None:
    go, done = threading.Event(), threading.Event()
    slow, quick = SerialExecutor(executor), SerialExecutor(executor)
    slow.submit(lambda: go.wait(SOON_S))
    quick.submit(done.set)
    assert done.wait(SOON_S)
    go.set()


def test_where_the_executor_was_shut_down_the_call_is_made_all_the_same(
    executor: LimitedExecutor,
) -> None:
    executor.shutdown()
    made = list[int]()
    SerialExecutor(executor).submit(lambda: made.append(1))
    assert made == [1]


def test_where_no_thread_can_be_started_the_caller_makes_the_calls_in_their_order(
    executor: LimitedExecutor, no_threads: None
) -> None:
    made, calls = list[int](), SerialExecutor(executor)

    def first() -> None:
        calls.submit(partial(made.append, 2))
        made.append(1)

    calls.submit(first)
    assert made == [1, 2]
