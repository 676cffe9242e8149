"""The law of calls in turn: in their order, never two at a time, whatever the threads."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from scripted_speech import SOON_S

from batched_whisper.in_turn import InTurn


def test_calls_are_made_one_at_a_time_in_the_order_they_were_asked_for() -> None:
    made, inside = list[int](), threading.Lock()

    def call(number: int) -> None:
        assert inside.acquire(blocking=False)
        made.append(number)
        inside.release()

    with ThreadPoolExecutor(4) as pool:
        calls = InTurn(pool)
        for number in range(500):
            calls.ask(lambda number=number: call(number))  # type: ignore[misc]
    assert made == list(range(500))


def test_nobody_waits_for_the_calls_of_others() -> None:
    go, done = threading.Event(), threading.Event()
    with ThreadPoolExecutor(2) as pool:
        slow, quick = InTurn(pool), InTurn(pool)
        slow.ask(lambda: go.wait(SOON_S))
        quick.ask(done.set)
        assert done.wait(SOON_S)
        go.set()


def test_where_the_pool_was_shut_down_the_call_is_made_all_the_same() -> None:
    pool, made = ThreadPoolExecutor(1), list[int]()
    pool.shutdown()
    InTurn(pool).ask(lambda: made.append(1))
    assert made == [1]
