"""Laws of a pool: accepted calls are made, even after one fails, and none after shutdown."""

from __future__ import annotations

import gc
import threading
import weakref
from functools import partial

import pytest
from scripted_speech import SOON_S

from batched_whisper.concurrency.thread_pool import ThreadPool


def n_threads() -> int:
    return sum(thread.name.startswith("test_pool") for thread in threading.enumerate())


def test_all_calls_that_were_brought_are_made_before_it_is_shut_down_and_none_after() -> None:
    pool, made = ThreadPool("test_pool"), list[int]()
    executor = pool.executor(3)
    for number in range(100):
        executor.submit(partial(made.append, number))
    assert executor.shutdown()
    pool.shutdown()
    pool.shutdown()
    assert sorted(made) == list(range(100))
    assert n_threads() == 0
    with pytest.raises(RuntimeError):
        executor.submit(lambda: made.append(100))


def test_as_many_calls_are_made_at_a_time_as_the_limit() -> None:
    executor, together = ThreadPool("test").executor(3), threading.Barrier(3, timeout=SOON_S)
    for _ in range(3):
        executor.submit(together.wait)
    executor.shutdown()
    assert not together.broken


def test_no_more_calls_are_made_at_a_time_than_the_limit() -> None:
    pool, lock = ThreadPool("test"), threading.Lock()
    limited, other = pool.executor(2), pool.executor(8)
    running, most = 0, 0

    def call() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        passed = threading.Event()
        other.submit(passed.set)  # others may run meanwhile
        assert passed.wait(SOON_S)
        with lock:
            running -= 1

    for _ in range(50):
        limited.submit(call)
    limited.shutdown()
    assert running == 0
    assert most <= 2


def test_a_full_executor_does_not_hold_up_another() -> None:
    pool, go, done = ThreadPool("test"), threading.Event(), threading.Event()
    full, other = pool.executor(1), pool.executor(1)
    for _ in range(5):
        full.submit(lambda: go.wait(SOON_S))
    other.submit(done.set)
    assert done.wait(SOON_S)
    go.set()


def test_a_thread_is_started_when_there_is_a_call_and_none_is_idle() -> None:
    pool = ThreadPool("test_pool")
    assert n_threads() == 0
    for _ in range(20):
        executor = pool.executor(4)
        executor.submit(int)
        executor.shutdown()  # the thread is idle again
    assert n_threads() == 1
    executors, together = [pool.executor(1) for _ in range(3)], threading.Barrier(3, timeout=SOON_S)
    for executor in executors:
        executor.submit(together.wait)
    for executor in executors:
        executor.shutdown()
    assert n_threads() == 3
    pool.shutdown()


def test_a_call_that_fails_does_not_take_its_thread_along() -> None:
    executor, made = ThreadPool("test").executor(1), list[int]()
    executor.submit(partial(__import__("sys").exit, 1))
    executor.submit(partial(made.append, 1))
    executor.shutdown()
    assert made == [1]


def test_waiting_for_the_end_has_a_limit() -> None:
    executor, go = ThreadPool("test").executor(1), threading.Event()
    executor.submit(lambda: go.wait(SOON_S))
    assert not executor.shutdown(0)
    go.set()
    assert executor.shutdown()


def test_where_no_thread_can_be_started_a_call_is_refused_and_not_made_later(
    no_threads: None,
) -> None:
    pool, made = ThreadPool("test"), list[int]()
    executor = pool.executor(1)
    for number in range(3):
        with pytest.raises(RuntimeError, match="thread"):
            executor.submit(partial(made.append, number))
    assert executor.shutdown(SOON_S)
    pool.shutdown()
    assert made == []


def test_what_others_left_to_a_call_that_has_no_thread_is_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another call comes while a thread is being started for the first, in vain."""
    executor, made = ThreadPool("test").executor(1), list[int]()

    def start(_: threading.Thread) -> None:
        executor.submit(partial(made.append, 2))
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(RuntimeError):
        executor.submit(partial(made.append, 1))
    assert made == [2]


def test_a_finished_call_is_released_while_its_thread_makes_the_next() -> None:
    pool, go, begun = ThreadPool("test"), threading.Event(), threading.Event()
    executor, made = pool.executor(1), threading.Event()

    def next_call() -> None:
        begun.set()
        go.wait(SOON_S)

    class Call:
        def __call__(self) -> None:
            made.wait(SOON_S)

    first = Call()
    released = weakref.ref(first)
    executor.submit(first)
    executor.submit(next_call)  # waits for the thread of the first
    del first
    made.set()
    assert begun.wait(SOON_S)
    gc.collect()
    assert released() is None
    go.set()
    assert executor.shutdown(SOON_S)
    pool.shutdown()
