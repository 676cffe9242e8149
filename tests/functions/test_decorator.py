"""Laws of @batched: what callers get, whatever the function or the other callers do."""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
import threading
import traceback
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import pytest

from batched_whisper.batching.clock import ManualClock
from batched_whisper.errors import BatchingError, Closed, OptionError, WrongBatchLength
from batched_whisper.functions.decorator import BatchedFunction, batched, enter

R = TypeVar("R")
SOON_S = 60.0  # a deadline for what happens at once unless something is broken
FOREVER_MS = 1e9  # a batch that is not full never starts


def squares(numbers: list[int]) -> list[int]:
    return [number * number for number in numbers]


async def squares_async(numbers: list[int]) -> list[int]:
    await asyncio.sleep(0)
    return squares(numbers)


def both_kinds(function: Callable[[list[int]], Any]) -> list[Callable[..., Any]]:
    async def asynchronous(numbers: list[int]) -> Any:
        await asyncio.sleep(0)
        return function(numbers)

    return [function, asynchronous]


async def together(*calls: Awaitable[R]) -> list[R]:
    return list(await asyncio.gather(*calls))


class Held:
    """A batch function that stops in its first batch until it is let go, and keeps its inputs."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.let_go = threading.Event()
        self.batches: list[list[int]] = []

    def __call__(self, numbers: list[int]) -> list[int]:
        self.batches.append(numbers)
        self.entered.set()
        assert self.let_go.wait(SOON_S)
        return squares(numbers)

    @property
    def seen(self) -> list[int]:
        return [number for batch in self.batches for number in batch]


@pytest.fixture
def held() -> Held:
    return Held()


# --- calls become batches -------------------------------------------------------------------------


@pytest.mark.parametrize("function", [squares, squares_async])
def test_a_batched_call_returns_its_own_result(
    function: Callable[[list[int]], Sequence[int]],
) -> None:
    assert batched(wait_ms=0)(function)(7) == 49


def test_batched_calls_from_many_threads_share_a_batch() -> None:
    function = batched(max_batch_size=8, wait_ms=FOREVER_MS)(squares)
    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(function, range(8))) == sorted(squares(list(range(8))))
    assert function.stats.n_batches == 1
    assert function.stats.mean_batch_size == 8


def test_calls_from_one_event_loop_share_a_batch() -> None:
    function = batched(max_batch_size=8, wait_ms=FOREVER_MS)(squares)

    async def main() -> list[int]:
        return await together(*(function.aio(number) for number in range(16)))

    assert asyncio.run(main()) == squares(list(range(16)))
    assert function.stats.n_batches == 2


def test_calls_from_several_event_loops_and_threads_share_a_batch() -> None:
    function = batched(max_batch_size=6, wait_ms=FOREVER_MS)(squares_async)

    async def two() -> list[int]:
        return await together(function.aio(1), function.aio(2))

    with ThreadPoolExecutor(4) as pool:
        loops = [pool.submit(lambda: asyncio.run(two())) for _ in range(2)]
        threads = [pool.submit(function, 3) for _ in range(2)]
        assert [each.result(SOON_S) for each in loops] == [[1, 4], [1, 4]]
        assert [each.result(SOON_S) for each in threads] == [9, 9]
    assert function.stats.n_batches == 1


def test_a_single_call_waits_for_wait_ms() -> None:
    clock = ManualClock()
    function = batched(max_batch_size=8, wait_ms=1000, clock=clock)(squares)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(function, 3)
        clock.await_sleeper(until_s=1.0)
        assert not answer.done()
        clock.advance(1.0)
        assert answer.result(SOON_S) == 9


def test_a_synchronous_call_works_within_a_running_event_loop() -> None:
    function = batched(wait_ms=0)(squares_async)

    async def main() -> int:
        return function(4)

    assert asyncio.run(main()) == 16


def test_batches_of_an_asynchronous_function_share_one_loop_that_is_not_the_callers() -> None:
    loops: list[asyncio.AbstractEventLoop] = []

    @batched(wait_ms=0)
    async def function(numbers: list[int]) -> list[int]:
        loops.append(asyncio.get_running_loop())
        return numbers

    async def main() -> asyncio.AbstractEventLoop:
        await function.aio(1)
        return asyncio.get_running_loop()

    callers = asyncio.run(main())
    function(2)
    assert len(set(loops)) == 1
    assert callers not in loops


# --- arguments ------------------------------------------------------------------------------------


def test_each_list_argument_is_given_one_item() -> None:
    @batched(max_batch_size=4, wait_ms=FOREVER_MS)
    def describe(names: list[str], ages: list[int], suffixes: list[str]) -> list[str]:
        return [f"{n} {a}{s}" for n, a, s in zip(names, ages, suffixes, strict=True)]

    async def main() -> list[str]:
        return await together(
            describe.aio("a", 1, "."),
            describe.aio("b", ages=2, suffixes="!"),
            describe.aio(suffixes="?", ages=3, names="c"),
            describe.aio("d", 4, suffixes=";"),
        )

    assert asyncio.run(main()) == ["a 1.", "b 2!", "c 3?", "d 4;"]
    assert describe.stats.n_batches == 1  # however they are written, they are the same call


def test_calls_that_give_different_arguments_are_batched_apart() -> None:
    @batched(max_batch_size=3, wait_ms=FOREVER_MS)
    def add(numbers: list[int], others: list[int] | None = None) -> list[int]:
        assert others is None or len(others) == len(numbers)
        return [n + o for n, o in zip(numbers, others or [0] * len(numbers), strict=True)]

    async def main() -> list[int]:
        return await together(add.aio(1), add.aio(2, 10), add.aio(3))

    assert asyncio.run(main()) == [1, 12, 3]
    assert add.stats.n_batches == 2


def test_calls_that_give_different_keywords_are_batched_apart() -> None:
    @batched(max_batch_size=2, wait_ms=FOREVER_MS)
    def add(
        numbers: list[int], *, more: list[int] | None = None, less: list[int] | None = None
    ) -> list[int]:
        changes = more if more is not None else [-each for each in less or []]
        return [n + c for n, c in zip(numbers, changes, strict=True)]

    async def main() -> list[int]:
        return await together(add.aio(1, more=10), add.aio(2, less=10))

    assert asyncio.run(main()) == [11, -8]


def test_arguments_that_do_not_fit_concern_their_caller_only() -> None:
    function = batched(wait_ms=0)(squares)
    with pytest.raises(TypeError, match="squares"):
        function(1, 2)
    assert function(3) == 9


def test_a_function_that_hides_its_parameters_can_be_batched() -> None:
    assert batched(wait_ms=0)(lambda *lists: list(map(max, *lists)))(3, 5) == 5


def test_the_decorated_function_keeps_its_name_documentation_and_signature() -> None:
    @batched()
    def documented(numbers: list[int]) -> list[int]:
        """Say what it does."""
        return numbers

    assert documented.__name__ == "documented"
    assert documented.__doc__ == "Say what it does."
    assert list(inspect.signature(documented).parameters) == ["numbers"]
    assert documented.__wrapped__([1, 2]) == [1, 2]


@pytest.mark.parametrize(
    "options", [{"max_batch_size": 0}, {"wait_ms": -1.0}, {"max_queue_size": 0}]
)
def test_batched_rejects_options_out_of_range_at_decoration(
    options: dict[str, Any],
) -> None:
    with pytest.raises(OptionError, match=next(iter(options))):
        batched(**options)(squares)


# --- functions that fail --------------------------------------------------------------------------


class Odd(Exception):
    """An error whose constructor does not take what it keeps, so that it cannot be copied."""

    def __init__(self, number: int, *, why: str) -> None:
        super().__init__(f"{number}: {why}")


class Doubling(Exception):
    """An error that says its message once more each time that it is copied."""

    def __init__(self, message: str) -> None:
        super().__init__(f"error: {message}")


async def errors_of(function: BatchedFunction[int], *numbers: int) -> list[Any]:
    return await asyncio.gather(*map(function.aio, numbers), return_exceptions=True)


@pytest.mark.parametrize(
    "error",
    [ValueError("bad"), KeyError("k"), Odd(1, why="odd"), Doubling("twice"), OSError(2, "x")],
)
@pytest.mark.parametrize("kind", [0, 1])
def test_a_batch_that_raises_fails_each_of_its_callers_and_nobody_else(
    error: Exception, kind: int
) -> None:
    def fails_on_zero(numbers: list[int]) -> list[int]:
        if 0 in numbers:
            raise error
        return numbers

    function = batched(max_batch_size=3, wait_ms=FOREVER_MS)(both_kinds(fails_on_zero)[kind])

    async def main() -> tuple[list[Any], list[Any]]:
        return await errors_of(function, 0, 1, 2), await errors_of(function, 3, 4, 5)

    failed, fine = asyncio.run(main())
    assert [type(each) for each in failed] == [type(error)] * 3
    assert [str(each) for each in failed] == [str(error)] * 3
    assert fine == [3, 4, 5]
    assert function.stats.n_failed_batches == 1


def test_each_caller_gets_its_own_copy_of_the_error_with_its_traceback() -> None:
    @batched(max_batch_size=2, wait_ms=FOREVER_MS)
    def function(numbers: list[int]) -> list[int]:
        try:
            raise KeyError("inner")
        except KeyError as inner:
            raise ValueError("outer") from inner

    first, second = asyncio.run(errors_of(function, 1, 2))
    assert first is not second
    for error in (first, second):
        assert isinstance(error.__cause__, KeyError)
        assert traceback.extract_tb(error.__traceback__)[-1].name == "function"


@pytest.mark.parametrize(
    "error",
    [
        SystemExit(3),
        KeyboardInterrupt(),
        GeneratorExit(),
        asyncio.CancelledError(),
        concurrent.futures.CancelledError(),
        StopIteration(),
        StopAsyncIteration(),
    ],
)
@pytest.mark.parametrize("kind", [0, 1])
def test_no_error_of_the_function_kills_the_worker_or_misleads_its_callers(
    error: BaseException, kind: int
) -> None:
    def fails_on_zero(numbers: list[int]) -> list[int]:
        if 0 in numbers:
            raise error
        return numbers

    function = batched(max_batch_size=2, wait_ms=FOREVER_MS)(both_kinds(fails_on_zero)[kind])

    async def main() -> tuple[list[Any], list[Any]]:
        return await errors_of(function, 0, 1), await errors_of(function, 2, 3)

    failed, fine = asyncio.run(main())
    for each in failed:
        # Python itself turns a StopIteration that leaves a coroutine into a RuntimeError.
        assert isinstance(each, (BatchingError, RuntimeError))
        assert each.__cause__ is not None
    assert fine == [2, 3]


def test_sys_exit_in_a_background_task_does_not_stop_the_event_loop_thread() -> None:
    async def exits() -> None:
        raise SystemExit(1)

    @batched(wait_ms=0)
    async def function(numbers: list[int]) -> list[int]:
        task = asyncio.create_task(exits())
        await asyncio.wait({task})
        assert isinstance(task.exception(), SystemExit)
        return numbers

    assert function(1) == 1
    assert function(2) == 2


@pytest.mark.parametrize("results", [[], [1], [1, 2, 3], None, 5, "ab", {1: 2, 3: 4}, iter([1, 2])])
def test_anything_but_one_result_per_input_raises_wrong_batch_length(results: Any) -> None:
    def odd(numbers: list[int]) -> Any:
        return results

    function: BatchedFunction[int] = batched(max_batch_size=2, wait_ms=FOREVER_MS)(odd)
    for error in asyncio.run(errors_of(function, 1, 2)):
        assert isinstance(error, WrongBatchLength)
        assert "odd" in str(error)
        assert "2 inputs" in str(error)


def test_a_result_that_is_an_exception_is_a_result() -> None:
    @batched(wait_ms=0)
    def function(numbers: list[int]) -> list[Exception]:
        return [ValueError(number) for number in numbers]

    assert isinstance(function(1), ValueError)


def test_a_batched_function_that_calls_itself_raises_batching_error() -> None:
    @batched(wait_ms=0)
    def function(numbers: list[int]) -> list[int]:
        return [function(number) for number in numbers]

    with pytest.raises(BatchingError, match="calls itself"):
        function(1)


def test_an_asynchronous_batched_function_that_awaits_itself_raises_batching_error() -> None:
    @batched(wait_ms=0)
    async def one_by_one(numbers: list[int]) -> list[int]:
        return [await one_by_one.aio(number) for number in numbers]

    @batched(wait_ms=0)
    async def all_at_once(numbers: list[int]) -> list[int]:
        return await asyncio.gather(*map(all_at_once.aio, numbers))

    @batched(wait_ms=0)
    async def on_another_thread(numbers: list[int]) -> list[int]:
        return [await asyncio.to_thread(on_another_thread, number) for number in numbers]

    @batched(wait_ms=0)
    def on_a_loop_of_its_own(numbers: list[int]) -> list[int]:
        return [asyncio.run(on_a_loop_of_its_own.aio(number)) for number in numbers]

    for function in (one_by_one, all_at_once, on_another_thread, on_a_loop_of_its_own):
        with pytest.raises(BatchingError, match="calls itself"):
            asyncio.run(asyncio.wait_for(function.aio(1), SOON_S))


def test_map_of_a_batched_function_within_itself_raises_batching_error() -> None:
    @batched(wait_ms=0)
    async def function(numbers: list[int]) -> list[int]:
        return [result async for result in function.map.aio(numbers)]

    with pytest.raises(BatchingError, match="calls itself"):
        asyncio.run(asyncio.wait_for(function.aio(1), SOON_S))


def test_an_enter_method_that_calls_its_batched_method_raises_batching_error() -> None:
    class Model:
        @enter()
        async def warm_up(self) -> None:
            await self.double.aio(1)

        @batched(wait_ms=0)
        async def double(self, numbers: list[int]) -> list[int]:
            return [2 * number for number in numbers]

    with pytest.raises(BatchingError, match="calls itself"):
        asyncio.run(asyncio.wait_for(Model().double.aio(1), SOON_S))


def test_asynchronous_methods_of_one_instance_may_await_each_other() -> None:
    class Model:
        @batched(wait_ms=0)
        async def twice_and_one(self, numbers: list[int]) -> list[int]:
            doubled = await asyncio.gather(*map(self.double.aio, numbers))
            return [number + 1 for number in doubled]

        @batched(wait_ms=0)
        async def double(self, numbers: list[int]) -> list[int]:
            return [2 * number for number in numbers]

    assert asyncio.run(asyncio.wait_for(Model().twice_and_one.aio(3), SOON_S)) == 7


def test_instances_of_one_class_may_await_each_other() -> None:
    class Node:
        def __init__(self, below: Node | None) -> None:
            self.below = below

        @batched(wait_ms=0)
        async def depth(self, starts: list[int]) -> list[int]:
            if self.below is None:
                return starts
            return [1 + await self.below.depth.aio(start) for start in starts]

    assert asyncio.run(asyncio.wait_for(Node(Node(Node(None))).depth.aio(0), SOON_S)) == 2


def test_a_task_that_outlives_its_batch_may_call_the_function() -> None:
    later: list[asyncio.Task[int]] = []
    over = threading.Event()

    @batched(wait_ms=0)
    async def function(numbers: list[int]) -> list[int]:
        async def call_when_it_is_over() -> int:
            await asyncio.to_thread(over.wait, SOON_S)
            return await function.aio(10)

        if not later:
            later.append(asyncio.create_task(call_when_it_is_over()))
        return [2 * number for number in numbers]

    assert function(1) == 2
    over.set()

    async def result_of_later() -> int:
        return await later[0]

    loop = later[0].get_loop()
    assert asyncio.run_coroutine_threadsafe(result_of_later(), loop).result(SOON_S) == 20


# --- callers that give up -------------------------------------------------------------------------


@pytest.mark.parametrize("n_cancelled", [1, 3, 5])
def test_cancelled_callers_are_not_computed_and_the_others_are(
    held: Held, n_cancelled: int
) -> None:
    function = batched(max_batch_size=8, wait_ms=0)(held)

    async def main() -> list[Any]:
        first = asyncio.create_task(function.aio(100))
        await asyncio.to_thread(held.entered.wait, SOON_S)
        tasks = [asyncio.create_task(function.aio(number)) for number in range(5)]
        await asyncio.sleep(0)
        assert function.stats.n_waiting == 5
        for task in tasks[:n_cancelled]:
            task.cancel()
        await asyncio.wait(tasks[:n_cancelled])
        held.let_go.set()
        await first
        return await asyncio.gather(*tasks[n_cancelled:], function.aio(50))

    answers = asyncio.run(asyncio.wait_for(main(), SOON_S))
    assert answers == squares([*range(n_cancelled, 5), 50])
    assert sorted(held.seen) == sorted([100, *range(n_cancelled, 5), 50])


def test_cancelling_a_batch_while_it_runs_does_not_wedge_the_next(held: Held) -> None:
    function = batched(max_batch_size=4, wait_ms=0)(held)

    async def main() -> int:
        task = asyncio.create_task(function.aio(1))
        await asyncio.to_thread(held.entered.wait, SOON_S)
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()
        held.let_go.set()
        return await function.aio(2)

    assert asyncio.run(asyncio.wait_for(main(), SOON_S)) == 4


def test_timeouts_of_callers_do_not_affect_later_calls(held: Held) -> None:
    function = batched(max_batch_size=4, wait_ms=0, max_queue_size=8)(held)

    async def main() -> list[int]:
        first = asyncio.create_task(function.aio(0))
        await asyncio.to_thread(held.entered.wait, SOON_S)
        impatient = [asyncio.wait_for(function.aio(number), 0.001) for number in range(1, 100)]
        outcomes = await asyncio.gather(*impatient, return_exceptions=True)
        assert all(isinstance(outcome, asyncio.TimeoutError) for outcome in outcomes)
        assert function.stats.n_waiting == 0
        held.let_go.set()
        await first
        return await asyncio.gather(*(function.aio(number) for number in range(100, 120)))

    assert asyncio.run(asyncio.wait_for(main(), SOON_S)) == squares(list(range(100, 120)))
    assert sorted(held.seen) == [0, *range(100, 120)]


def test_an_event_loop_that_ends_with_calls_in_the_queue_does_not_wedge_others(held: Held) -> None:
    function = batched(max_batch_size=4, wait_ms=0)(held)

    async def leaves() -> None:
        waiting = [asyncio.create_task(function.aio(number)) for number in range(3)]
        await asyncio.to_thread(held.entered.wait, SOON_S)
        assert not any(task.done() for task in waiting)

    asyncio.run(leaves())
    held.let_go.set()
    assert function(7) == 49


def test_ctrl_c_while_waiting_takes_the_item_out_of_the_queue(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(future: Future[int], timeout: float | None = None) -> int:
        raise KeyboardInterrupt

    function = batched(max_batch_size=8, wait_ms=1000, clock=ManualClock())(squares)
    monkeypatch.setattr(Future, "result", interrupted)
    with pytest.raises(KeyboardInterrupt):
        function(3)
    assert function.stats.n_waiting == 0


def test_a_full_queue_makes_tasks_wait_and_serves_them_all(held: Held) -> None:
    function = batched(max_batch_size=2, wait_ms=0, max_queue_size=2)(held)

    async def main() -> list[int]:
        calls = asyncio.gather(*(function.aio(number) for number in range(20)))
        await asyncio.to_thread(held.entered.wait, SOON_S)
        assert function.stats.n_waiting <= 2
        held.let_go.set()
        return await calls

    assert asyncio.run(asyncio.wait_for(main(), SOON_S)) == squares(list(range(20)))


# --- closing --------------------------------------------------------------------------------------


def test_close_finishes_accepted_calls_and_rejects_later_ones() -> None:
    clock = ManualClock()
    function = batched(max_batch_size=8, wait_ms=1000, clock=clock)(squares)
    with ThreadPoolExecutor(1) as pool:
        accepted = pool.submit(function, 3)
        clock.await_sleeper(until_s=1.0)
        function.close()
        assert function.stats.n_items == 1
        assert accepted.result(SOON_S) == 9
    with pytest.raises(Closed):
        function(4)
    function.close()


def test_close_of_an_unused_function_only_closes_it() -> None:
    function = batched()(squares)
    asyncio.run(function.aclose())
    with pytest.raises(Closed):
        asyncio.run(function.aio(1))


@pytest.mark.parametrize("kind", [0, 1])
def test_close_within_the_function_does_not_deadlock(kind: int) -> None:
    made: list[BatchedFunction[int]] = []

    def closes(numbers: list[int]) -> list[int]:
        made[0].close()
        return numbers

    made.append(batched(wait_ms=0)(both_kinds(closes)[kind]))
    assert made[0](1) == 1
    with pytest.raises(Closed):
        made[0](2)
    made[0].close()


def test_the_worker_starts_with_the_first_call_and_ends_with_close() -> None:
    def workers() -> list[threading.Thread]:
        return [t for t in threading.enumerate() if t.name == "only_here worker"]

    def only_here(numbers: list[int]) -> list[int]:
        return numbers

    only_here.__qualname__ = "only_here"
    function = batched(wait_ms=0)(only_here)
    assert not workers()
    function(1)
    (worker,) = workers()
    function.close()
    worker.join(SOON_S)
    assert not worker.is_alive()


def test_stats_is_a_snapshot() -> None:
    function = batched(wait_ms=0)(squares)
    before = function.stats
    function(1)
    assert before.n_items == 0
    assert before.mean_batch_size == 0
    assert function.stats.n_items == 1


def test_threads_that_race_to_be_first_start_one_worker() -> None:
    n_threads = 8
    barrier = threading.Barrier(n_threads)
    workers: set[int] = set()

    @batched(max_batch_size=2, wait_ms=1)
    def function(numbers: list[int]) -> list[int]:
        workers.add(threading.get_ident())
        return numbers

    def call(number: int) -> int:
        barrier.wait(SOON_S)
        return function(number)

    with ThreadPoolExecutor(n_threads) as pool:
        futures: list[Future[int]] = [pool.submit(call, number) for number in range(n_threads)]
        assert [future.result(SOON_S) for future in futures] == list(range(n_threads))
    assert len(workers) == 1
