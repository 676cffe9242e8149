"""Laws of the queue, on a `ManualClock`."""

from __future__ import annotations

import asyncio
import gc
import math
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from batched_whisper.batching.clock import ManualClock, MonotonicClock
from batched_whisper.batching.policy import Decision, FixedWait, Start, WaitUntil
from batched_whisper.batching.queue import Item, ItemQueue
from batched_whisper.errors import Closed, DeadlineExceeded, OptionError, QueueFull

SOON_S = 60.0  # a deadline for what happens at once unless something is broken


def payloads(batch: list[Item[str, str]]) -> list[str]:
    return [item.payload for item in batch]


def filled(*words: str, max_size: int = 100) -> ItemQueue[str, str]:
    queue: ItemQueue[str, str] = ItemQueue(max_size, ManualClock())
    for word in words:
        queue.put(word)
    return queue


class ArrivalClock(ManualClock):
    """Signals when a caller has an arrival time, which the queue sets inside its lock."""

    def __init__(self) -> None:
        super().__init__()
        self._arrived = threading.Event()

    def now_s(self) -> float:
        self._arrived.set()
        return super().now_s()

    def put_from_outside(
        self, pool: ThreadPoolExecutor, queue: ItemQueue[str, str], word: str, **options: float
    ) -> Future[Future[str]]:
        """Put into a full queue from another thread; return when that thread waits for a place."""
        self._arrived.clear()
        putting = pool.submit(lambda: queue.put(word, deadline_s=options.get("deadline_s")))
        assert self._arrived.wait(SOON_S)
        assert queue.n_overflow == 1
        assert not putting.done()
        return putting


class Taker:
    """Takes one batch in a thread of its own."""

    def __init__(self, queue: ItemQueue[str, str], max_items: int, wait_ms: float) -> None:
        self.batches: Future[list[Item[str, str]]] = Future()
        self._take: Callable[[], list[Item[str, str]]] = lambda: queue.take(
            max_items, FixedWait(wait_ms)
        )
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self.batches.set_result(self._take())

    def batch(self) -> list[str]:
        taken = payloads(self.batches.result(SOON_S))
        self._thread.join(SOON_S)
        return taken


# --- when a batch starts --------------------------------------------------------------------------


def test_a_full_batch_starts_at_once() -> None:
    queue = filled("a", "b", "c")
    assert payloads(queue.take(2, FixedWait(1000))) == ["a", "b"]


def test_the_item_that_fills_a_batch_starts_it() -> None:
    clock = ManualClock()
    queue: ItemQueue[str, str] = ItemQueue(100, clock)
    taker = Taker(queue, max_items=2, wait_ms=1000)
    clock.await_sleeper(until_s=None)
    queue.put("a")
    clock.await_sleeper(until_s=1.0)
    queue.put("b")
    assert taker.batch() == ["a", "b"]


def test_an_idle_taker_waits_for_company_from_the_first_arrival_on() -> None:
    clock = ManualClock()
    queue: ItemQueue[str, str] = ItemQueue(100, clock)
    taker = Taker(queue, max_items=8, wait_ms=1000)
    clock.await_sleeper(until_s=None)
    queue.put("a")
    clock.await_sleeper(until_s=1.0)
    clock.advance(0.5)
    queue.put("b")
    assert not taker.batches.done()
    clock.advance(0.5)
    assert taker.batch() == ["a", "b"]


def test_items_that_came_while_the_taker_was_busy_do_not_wait_again() -> None:
    clock = ManualClock()
    queue: ItemQueue[str, str] = ItemQueue(100, clock)
    queue.put("a")
    clock.advance(1.0)
    queue.put("b")
    assert payloads(queue.take(8, FixedWait(1000))) == ["a", "b"]


def sized(*sizes: int) -> ItemQueue[str, str]:
    queue: ItemQueue[str, str] = ItemQueue(100, ManualClock())
    for number, size in enumerate(sizes):
        queue.put(f"{'abcdefgh'[number]}{size}", size=size)
    return queue


def test_a_batch_is_as_large_as_the_room_for_it() -> None:
    queue = sized(2, 1, 3, 1, 1)
    assert payloads(queue.take_now(8, room=6)) == ["a2", "b1", "c3"]
    assert payloads(queue.take(8, FixedWait(0), room=6)) == ["d1", "e1"]


def test_no_item_overtakes_one_that_does_not_fit_yet() -> None:
    queue = sized(1, 4, 1)
    assert payloads(queue.take_now(8, room=3)) == ["a1"]
    assert payloads(queue.take_now(8, room=3)) == []
    assert payloads(queue.take_now(8, room=4)) == ["b4"]
    assert payloads(queue.take_now(8, room=4)) == ["c1"]


def test_a_cancelled_item_takes_no_room() -> None:
    queue: ItemQueue[str, str] = ItemQueue(100, ManualClock())
    gone = queue.put("a", size=4)
    queue.put("b", size=2)
    gone.cancel()
    assert payloads(queue.take_now(8, room=2)) == ["b"]


def test_taking_now_never_waits() -> None:
    assert filled().take_now(8) == []
    assert payloads(filled("a").take_now(8)) == ["a"]


def test_a_wake_up_interrupts_the_wait_and_leaves_the_items() -> None:
    clock = ManualClock()
    queue: ItemQueue[str, str] = ItemQueue(100, clock)
    queue.put("a")
    taker = Taker(queue, max_items=8, wait_ms=1000)
    clock.await_sleeper(until_s=1.0)
    queue.wake()
    assert taker.batch() == []
    assert payloads(queue.take_now(8)) == ["a"]


def test_a_wake_up_before_the_wait_is_not_lost_and_counts_once() -> None:
    queue = filled("a", "b")
    queue.wake()
    queue.wake()
    assert queue.take(2, FixedWait(0)) == []
    assert payloads(queue.take(2, FixedWait(0))) == ["a", "b"]


def test_a_policy_without_a_count_is_asked_at_every_arrival() -> None:
    class ThreeOfThem:
        def decide(
            self, n_waiting: int, oldest_arrival_s: float, now_s: float, max_batch_size: int
        ) -> Decision:
            return Start() if n_waiting >= 3 else WaitUntil(now_s + n_waiting)

    clock = ManualClock()
    queue: ItemQueue[str, str] = ItemQueue(100, clock)
    with ThreadPoolExecutor(1) as pool:
        taken = pool.submit(queue.take, 8, ThreeOfThem())
        clock.await_sleeper(until_s=None)
        queue.put("a")
        clock.await_sleeper(until_s=1.0)
        queue.put("b")
        clock.await_sleeper(until_s=2.0)
        queue.put("c")
        assert payloads(taken.result(SOON_S)) == ["a", "b", "c"]


# --- order ----------------------------------------------------------------------------------------


def test_within_a_group_it_is_first_come_first_served() -> None:
    queue: ItemQueue[str, str] = ItemQueue(100)
    for word in "abcdef":
        queue.put(word, group="one recording")
    assert payloads(queue.take_now(4)) + payloads(queue.take_now(4)) == list("abcdef")


def test_calls_without_a_group_are_first_come_first_served() -> None:
    assert payloads(filled(*"abcdef").take_now(6)) == list("abcdef")


def test_a_long_recording_does_not_shut_out_a_short_call() -> None:
    queue: ItemQueue[str, str] = ItemQueue(1000)
    for index in range(150):
        queue.put(f"hour {index}", group="an hour")
    queue.put("short", group="3 seconds")
    assert payloads(queue.take_now(3)) == ["hour 0", "short", "hour 1"]


def test_turns_go_on_from_one_batch_to_the_next() -> None:
    queue: ItemQueue[str, str] = ItemQueue(100)
    for group in "abc":
        for index in range(2):
            queue.put(f"{group}{index}", group=group)
    assert payloads(queue.take_now(2)) == ["a0", "b0"]
    assert payloads(queue.take_now(2)) == ["c0", "a1"]


def test_a_lower_priority_number_comes_first() -> None:
    queue: ItemQueue[str, str] = ItemQueue(100)
    queue.put("later", priority=1)
    queue.put("sooner", priority=0)
    assert payloads(queue.take_now(2)) == ["sooner", "later"]


# --- cancellation ---------------------------------------------------------------------------------


def test_a_cancelled_caller_leaves_the_queue_and_the_others_stay() -> None:
    queue = filled()
    futures = [queue.put(word) for word in "abc"]
    assert futures[1].cancel()
    assert len(queue) == 2
    assert payloads(queue.take_now(3)) == ["a", "c"]


def test_when_all_gave_up_the_next_caller_is_served() -> None:
    clock = ManualClock()
    queue: ItemQueue[str, str] = ItemQueue(100, clock)
    futures = [queue.put(word) for word in "abc"]
    taker = Taker(queue, max_items=8, wait_ms=1000)
    clock.await_sleeper(until_s=1.0)
    for future in futures:
        future.cancel()
    clock.advance(2.0)
    clock.await_sleeper(until_s=None)
    queue.put("d")
    clock.await_sleeper(until_s=3.0)
    clock.advance(1.0)
    assert taker.batch() == ["d"]


def test_an_item_that_was_taken_cannot_be_cancelled() -> None:
    queue = filled()
    future = queue.put("a")
    (item,) = queue.take_now(1)
    assert not future.cancel()
    item.future.set_result("done")
    assert future.result(0) == "done"


def test_a_cancellation_frees_its_place_for_who_waits_outside() -> None:
    clock = ArrivalClock()
    queue: ItemQueue[str, str] = ItemQueue(1, clock)
    first = queue.put("a")
    with ThreadPoolExecutor(1) as pool:
        putting = clock.put_from_outside(pool, queue, "b")
        first.cancel()
        putting.result(SOON_S)
    assert payloads(queue.take_now(2)) == ["b"]


def test_a_cancellation_in_the_thread_that_holds_the_lock_does_not_deadlock() -> None:
    """Like a finaliser, which the garbage collector may run at any time."""
    victims: list[Future[str]] = []

    class CancelsWhileDeciding(FixedWait):
        def decide(
            self, n_waiting: int, oldest_arrival_s: float, now_s: float, max_batch_size: int
        ) -> Decision:
            while victims:
                victims.pop().cancel()
            return Start()

    queue = filled()
    victims.append(queue.put("a"))
    queue.put("b")
    with ThreadPoolExecutor(1) as pool:
        taken = pool.submit(queue.take, 8, CancelsWhileDeciding(0))
        assert payloads(taken.result(SOON_S)) == ["b"]
    assert len(queue) == 0


def test_a_place_freed_in_the_middle_of_a_put_is_not_lost() -> None:
    victims: list[Future[str]] = []

    class CancellingClock(ManualClock):
        def now_s(self) -> float:
            while victims:
                victims.pop().cancel()
            return super().now_s()

    queue: ItemQueue[str, str] = ItemQueue(1, CancellingClock())
    victims.append(queue.put("a"))
    with ThreadPoolExecutor(1) as pool:
        putting = pool.submit(queue.put, "b")
        try:
            putting.result(SOON_S)
        finally:
            queue.close()
    assert payloads(queue.take_now(1)) == ["b"]


def test_a_kept_future_does_not_keep_the_payload() -> None:
    class Recording:
        pass

    queue: ItemQueue[Recording, str] = ItemQueue(100, ManualClock())
    recording = Recording()
    gone = weakref.ref(recording)
    future = queue.put(recording, deadline_s=3600)
    del recording
    for item in queue.take_now(1):
        item.future.set_result("done")
    del item
    gc.collect()
    assert gone() is None
    assert future.result(0) == "done"


# --- deadlines ------------------------------------------------------------------------------------


def test_an_item_past_its_deadline_fails_when_a_batch_is_formed() -> None:
    clock = ManualClock()
    queue: ItemQueue[str, str] = ItemQueue(100, clock)
    late = queue.put("late", deadline_s=1.0)
    queue.put("patient", deadline_s=2.0)
    clock.advance(1.5)
    assert payloads(queue.take_now(1)) == ["patient"]
    with pytest.raises(DeadlineExceeded):
        late.result(0)


def test_a_late_item_fails_even_where_its_turn_is_far_off() -> None:
    clock = ManualClock()
    queue: ItemQueue[str, str] = ItemQueue(100, clock)
    queue.put("a", priority=0)
    late = queue.put("late", priority=5, deadline_s=1.0)
    clock.advance(2.0)
    assert payloads(queue.take_now(1)) == ["a"]
    assert late.done()


def test_a_late_caller_outside_fails_and_does_not_take_part() -> None:
    clock = ArrivalClock()
    queue: ItemQueue[str, str] = ItemQueue(1, clock)
    queue.put("a")
    with ThreadPoolExecutor(1) as pool:
        putting = clock.put_from_outside(pool, queue, "late", deadline_s=1.0)
        clock.advance(2.0)
        assert payloads(queue.take_now(8)) == ["a"]
        assert isinstance(putting.result(SOON_S).exception(SOON_S), DeadlineExceeded)


def test_a_batch_of_late_items_only_lets_the_taker_wait_on() -> None:
    clock = ManualClock()
    queue: ItemQueue[str, str] = ItemQueue(100, clock)
    late = queue.put("late", deadline_s=0.5)
    taker = Taker(queue, max_items=8, wait_ms=1000)
    clock.await_sleeper(until_s=1.0)
    clock.advance(1.0)
    with pytest.raises(DeadlineExceeded):
        late.result(SOON_S)
    clock.await_sleeper(until_s=None)
    queue.close()
    assert taker.batch() == []


def test_a_callers_callback_may_use_the_queue() -> None:
    clock = ManualClock()
    queue: ItemQueue[str, str] = ItemQueue(100, clock)
    late = queue.put("late", deadline_s=1.0)
    late.add_done_callback(lambda _: queue.put("again"))
    clock.advance(2.0)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(queue.take_now, 1).result(SOON_S) == []
    assert payloads(queue.take_now(1)) == ["again"]


# --- the bound ------------------------------------------------------------------------------------


def test_a_full_queue_refuses_who_does_not_want_to_wait() -> None:
    queue = filled("a", "b", max_size=2)
    with pytest.raises(QueueFull, match="2 wait already"):
        queue.put("c", block=False)
    assert len(queue) == 2


def test_a_full_queue_makes_callers_wait_for_a_batch() -> None:
    clock = ArrivalClock()
    queue: ItemQueue[str, str] = ItemQueue(1, clock)
    queue.put("a")
    with ThreadPoolExecutor(1) as pool:
        putting = clock.put_from_outside(pool, queue, "b")
        assert payloads(queue.take_now(1)) == ["a"]
        putting.result(SOON_S)
    assert len(queue) == 1


def test_an_item_put_in_turn_waits_outside_without_its_caller() -> None:
    queue = filled("first", max_size=1)
    second, third = (queue.put_queued(word) for word in ("second", "third"))
    assert (len(queue), queue.n_overflow) == (1, 2)
    assert second.cancel()
    assert payloads(queue.take_now(3)) == ["first", "third"]
    assert third.running()


def test_an_item_put_in_turn_finds_a_free_place_at_once() -> None:
    queue = filled(max_size=1)
    queue.put_queued("only")
    assert (len(queue), queue.n_overflow) == (1, 0)


@pytest.mark.parametrize("drain", [True, False])
def test_an_item_put_in_turn_fails_where_the_queue_closes_before_it_came_in(drain: bool) -> None:
    queue = filled("first", max_size=1)
    outside = queue.put_queued("outside")
    queue.close(drain=drain)
    with pytest.raises(Closed):
        outside.result(SOON_S)
    with pytest.raises(Closed):
        queue.put_queued("late")


def test_a_batch_may_be_larger_than_the_queue_and_who_waits_outside_fills_it() -> None:
    async def main() -> list[str]:
        queue = filled(max_size=1)
        tasks = [asyncio.create_task(queue.put_async(word)) for word in "abc"]
        await asyncio.sleep(0)
        batch = queue.take(3, FixedWait(1000))
        await asyncio.gather(*tasks)
        return payloads(batch)

    assert asyncio.run(main()) == ["a", "b", "c"]


def test_a_waiting_task_holds_no_thread_and_can_be_cancelled() -> None:
    async def main() -> None:
        queue = filled("a", max_size=1)
        n_threads = threading.active_count()
        tasks = [asyncio.create_task(queue.put_async(word)) for word in "bcd"]
        await asyncio.sleep(0)
        assert queue.n_overflow == 3
        assert threading.active_count() == n_threads
        tasks[0].cancel()
        await asyncio.wait(tasks[:1])
        assert tasks[0].cancelled()
        assert queue.n_overflow == 2
        assert payloads(queue.take_now(3)) == ["a", "c", "d"]
        await asyncio.gather(*tasks[1:])

    asyncio.run(main())


def test_a_task_cancelled_between_its_place_and_its_return_leaves_the_queue() -> None:
    async def main() -> None:
        queue = filled("a", max_size=1)
        task = asyncio.create_task(queue.put_async("b"))
        await asyncio.sleep(0)
        assert payloads(queue.take_now(1)) == ["a"]  # "b" has the place now
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(queue) == 0

    asyncio.run(main())


def test_a_queue_without_places_is_refused() -> None:
    with pytest.raises(OptionError, match="max_queue_size"):
        ItemQueue[str, str](0)


# --- closing --------------------------------------------------------------------------------------


def test_a_closed_queue_refuses_and_drains_without_waiting_for_company() -> None:
    queue = filled("a", "b")
    queue.close()
    with pytest.raises(Closed):
        queue.put("c")
    assert not queue.drained
    assert payloads(queue.take(8, FixedWait(1000))) == ["a", "b"]
    assert queue.drained
    assert queue.take(8, FixedWait(1000)) == []


def test_closing_wakes_the_taker() -> None:
    clock = ManualClock()
    queue: ItemQueue[str, str] = ItemQueue(100, clock)
    taker = Taker(queue, max_items=8, wait_ms=1000)
    clock.await_sleeper(until_s=None)
    queue.close()
    assert taker.batch() == []


def test_closing_without_draining_fails_what_waits() -> None:
    queue = filled()
    future = queue.put("a")
    queue.close(drain=False)
    with pytest.raises(Closed):
        future.result(0)
    assert queue.drained


def test_closing_sends_away_who_waits_outside() -> None:
    clock = ArrivalClock()
    queue: ItemQueue[str, str] = ItemQueue(1, clock)
    queue.put("a")
    with ThreadPoolExecutor(1) as pool:
        putting = clock.put_from_outside(pool, queue, "b")
        queue.close()
        with pytest.raises(Closed):
            putting.result(SOON_S)
    assert payloads(queue.take_now(8)) == ["a"]


# --- many threads ---------------------------------------------------------------------------------


def test_from_many_threads_every_item_ends_exactly_once() -> None:
    queue: ItemQueue[int, int] = ItemQueue(16, MonotonicClock())
    n_threads, n_each = 8, 100
    taken: list[int] = []

    def serve() -> None:
        while batch := queue.take(7, FixedWait(0.1)):
            for item in batch:
                taken.append(item.payload)
                item.future.set_result(-item.payload)

    def call(thread: int) -> int:
        n_cancelled = 0
        for index in range(n_each):
            number = thread * n_each + index
            future = queue.put(number, group=thread)
            if index % 3 == 0 and future.cancel():
                n_cancelled += 1
                continue
            assert future.result(SOON_S) == -number
        return n_cancelled

    server = threading.Thread(target=serve, daemon=True)
    server.start()
    with ThreadPoolExecutor(n_threads) as pool:
        n_cancelled = sum(pool.map(call, range(n_threads)))
    queue.close()
    server.join(SOON_S)
    assert not server.is_alive()
    assert len(taken) == len(set(taken)) == n_threads * n_each - n_cancelled


# --- several takers -------------------------------------------------------------------------------


def test_each_item_goes_to_one_of_those_who_take() -> None:
    clock = ManualClock()
    queue: ItemQueue[str, str] = ItemQueue(100, clock)
    takers = [Taker(queue, max_items=1, wait_ms=0) for _ in range(3)]
    for word in "abc":
        queue.put(word)
    assert sorted(taker.batch()[0] for taker in takers) == ["a", "b", "c"]


@pytest.mark.parametrize("patient_first", [True, False])
def test_a_taker_who_waits_for_more_does_not_keep_the_news_from_one_who_wants_one(
    patient_first: bool,
) -> None:
    @dataclass(frozen=True)
    class AtLeast:
        n: int

        def decide(self, n_waiting: int, oldest_s: float, now_s: float, most: int) -> Decision:
            return Start() if n_waiting >= self.n else WaitUntil(math.inf, self.n)

    clock = ManualClock()
    queue: ItemQueue[str, str] = ItemQueue(100, clock)
    queue.put("a")
    wants = [3, 2] if patient_first else [2, 3]
    found: dict[int, Future[list[str]]] = {n: Future() for n in wants}

    def take(n: int) -> None:
        found[n].set_result(payloads(queue.take(n, AtLeast(n))))

    for n in wants:
        threading.Thread(target=take, args=(n,), daemon=True).start()
        clock.await_sleeper(until_s=math.inf)
    queue.put("b")
    assert found[2].result(SOON_S) == ["a", "b"]
    for word in "cde":
        queue.put(word)
    assert found[3].result(SOON_S) == ["c", "d", "e"]
