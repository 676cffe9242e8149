"""Laws of map: lazy, bounded, in order or as completed, and nothing left behind."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batched_whisper.batching.clock import ManualClock
from batched_whisper.errors import Closed
from batched_whisper.functions.decorator import BatchedFunction, batched

SOON_S = 60.0  # a deadline for what happens at once unless something is broken
N = 200

Run = Callable[..., list[Any]]


def squares(numbers: list[int]) -> list[int]:
    return [number * number for number in numbers]


def fails_on_3(numbers: list[int]) -> list[int]:
    if 3 in numbers:
        raise ValueError("3 is in it")
    return numbers


def synchronously(function: BatchedFunction[Any], *inputs: Any, **options: Any) -> list[Any]:
    return list(function.map(*inputs, **options))


def asynchronously(function: BatchedFunction[Any], *inputs: Any, **options: Any) -> list[Any]:
    async def main() -> list[Any]:
        return [output async for output in function.map.aio(*inputs, **options)]

    return asyncio.run(asyncio.wait_for(main(), SOON_S))


both_ways = pytest.mark.parametrize("run", [synchronously, asynchronously])


class Source:
    """A generator of 0, 1, 2, ... that knows how many were read and whether it was closed."""

    def __init__(self) -> None:
        self.n_read = 0
        self.closed = False

    def numbers(self) -> Iterator[int]:
        try:
            for self.n_read in itertools.count(1):
                yield self.n_read - 1
        finally:
            self.closed = True

    async def numbers_async(self) -> AsyncIterator[int]:
        try:
            for self.n_read in itertools.count(1):
                yield self.n_read - 1
        finally:
            await asyncio.sleep(0)
            self.closed = True


class Gate:
    """A batch function that answers a batch only when told."""

    def __init__(self) -> None:
        self.seen: list[int] = []
        self.entered = threading.Semaphore(0)
        self.permits = threading.Semaphore(0)

    def __call__(self, numbers: list[int]) -> list[int]:
        self.seen += numbers
        self.entered.release()
        assert self.permits.acquire(timeout=SOON_S)
        return numbers


# --- outputs --------------------------------------------------------------------------------------


@both_ways
def test_map_returns_outputs_in_the_order_of_the_inputs(run: Run) -> None:
    function = batched(max_batch_size=8, wait_ms=0)(squares)
    assert run(function, range(N)) == squares(list(range(N)))


@both_ways
def test_map_with_order_outputs_false_returns_the_same_outputs(run: Run) -> None:
    function = batched(max_batch_size=8, wait_ms=0)(squares)
    assert sorted(run(function, range(N), order_outputs=False)) == squares(list(range(N)))


@both_ways
@settings(max_examples=20, deadline=None)
@given(numbers=st.lists(st.integers(0, 9), max_size=40), size=st.integers(1, 9))
def test_map_equals_calling_the_function_on_the_whole_list(
    run: Run, numbers: list[int], size: int
) -> None:
    function = batched(max_batch_size=size, wait_ms=0)(squares)
    assert run(function, numbers) == squares(numbers)
    function.close()


@both_ways
def test_map_of_several_iterables_ends_with_the_shortest(run: Run) -> None:
    @batched(max_batch_size=4, wait_ms=0)
    def add(numbers: list[int], others: list[int]) -> list[int]:
        return [n + o for n, o in zip(numbers, others, strict=True)]

    assert run(add, range(10), itertools.count(100)) == [100 + 2 * n for n in range(10)]


@both_ways
def test_map_of_no_inputs_is_empty(run: Run) -> None:
    assert run(batched(wait_ms=0)(squares), []) == []


@both_ways
def test_map_without_iterables_raises(run: Run) -> None:
    with pytest.raises(TypeError, match="at least one"):
        run(batched(wait_ms=0)(squares))


def test_starmap_spreads_tuples_over_the_arguments() -> None:
    function = batched(max_batch_size=4, wait_ms=0)(lambda a, b: list(map(pow, a, b)))

    async def main() -> list[int]:
        return [output async for output in function.starmap.aio([(2, 3), (3, 2)])]

    assert list(function.starmap([(2, 3), (3, 2)])) == [8, 9]
    assert asyncio.run(main()) == [8, 9]


def test_map_fills_batches() -> None:
    function = batched(max_batch_size=16, wait_ms=1e9)(squares)
    assert len(list(itertools.islice(function.map(itertools.count()), 160))) == 160
    assert function.stats.mean_batch_size == 16


def test_unordered_outputs_do_not_wait_for_a_slow_first_batch() -> None:
    gate = threading.Event()

    def slow_zero(numbers: list[int], kinds: list[str] | None = None) -> list[int]:
        if kinds is not None:
            assert gate.wait(SOON_S)
        return numbers

    function = batched(max_batch_size=2, wait_ms=1e9)(slow_zero)
    # Calls of another shape are another batch of the function: here the first, held one.
    outputs = function.starmap([(0,), (1, "slow")], order_outputs=False)
    assert next(outputs) == 0
    gate.set()
    assert list(outputs) == [1]


# --- inputs ---------------------------------------------------------------------------------------


def test_map_reads_an_infinite_generator_lazily() -> None:
    source = Source()
    function = batched(max_batch_size=4, wait_ms=0)(squares)
    numbers = source.numbers()
    outputs = function.map(numbers)
    assert source.n_read == 0
    assert [next(outputs) for _ in range(10)] == squares(list(range(10)))
    assert source.n_read <= 10 + 2 * 4
    outputs.close()
    assert source.closed


@pytest.mark.parametrize("order_outputs", [True, False])
@pytest.mark.parametrize("kind", ["numbers", "numbers_async"])
def test_map_aio_reads_an_infinite_input_lazily(kind: str, order_outputs: bool) -> None:
    source = Source()
    function = batched(max_batch_size=4, wait_ms=0)(squares)

    async def main() -> None:
        tasks_before = asyncio.all_tasks()
        outputs = function.map.aio(getattr(source, kind)(), order_outputs=order_outputs)
        assert source.n_read == 0
        assert len({await outputs.__anext__() for _ in range(10)}) == 10
        assert source.n_read <= 10 + 2 * 4
        await outputs.aclose()
        assert source.closed
        assert asyncio.all_tasks() <= tasks_before

    asyncio.run(asyncio.wait_for(main(), SOON_S))


def test_a_slow_asynchronous_input_does_not_hold_back_outputs() -> None:
    function = batched(max_batch_size=4, wait_ms=0)(squares)

    async def main() -> None:
        seen = asyncio.Event()

        async def slow() -> AsyncIterator[int]:
            yield 2
            await seen.wait()  # until its output was given
            yield 3

        outputs = function.map.aio(slow())
        assert await outputs.__anext__() == 4
        seen.set()
        assert [output async for output in outputs] == [9]

    asyncio.run(asyncio.wait_for(main(), SOON_S))


@both_ways
def test_an_error_of_the_input_comes_after_the_outputs_before_it(run: Run) -> None:
    outputs: list[int] = []

    def breaks() -> Iterator[int]:
        yield from range(10)
        raise OSError("the disk is gone")

    @batched(max_batch_size=4, wait_ms=0)
    def function(numbers: list[int]) -> list[int]:
        outputs.extend(numbers)
        return numbers

    with pytest.raises(OSError, match="the disk is gone"):
        run(function, breaks())
    assert outputs == list(range(10))


@pytest.mark.parametrize("error", [SystemExit, asyncio.CancelledError])
def test_an_input_that_ends_everything_ends_an_asynchronous_map(
    error: type[BaseException],
) -> None:
    async def ends() -> AsyncIterator[int]:
        yield 1
        raise error

    function = batched(wait_ms=0)(squares)
    with pytest.raises(error):
        asynchronously(function, ends())


def test_map_yields_ready_outputs_before_it_reads_more_inputs() -> None:
    function = batched(max_batch_size=100, wait_ms=0)(squares)
    source = Source()

    def slow() -> Iterator[int]:
        for number in source.numbers():
            yield number
            function(0)  # when this is answered, so is what came before

    for n_given, _ in enumerate(itertools.islice(function.map(slow()), 20), start=1):
        assert source.n_read <= n_given + 2


def test_an_input_whose_end_fails_does_not_hang_an_asynchronous_map() -> None:
    class Breaks(Exception):
        pass

    async def breaks_when_closed() -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            raise Breaks

    function = batched(wait_ms=0)(lambda a, b: a)
    with pytest.raises(Breaks):
        asynchronously(function, breaks_when_closed(), range(3))


def test_an_input_that_ignores_cancellation_does_not_hang_a_map_that_is_left() -> None:
    async def stubborn() -> AsyncIterator[int]:
        yield 0
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        for number in itertools.count(1):
            yield number

    function = batched(max_batch_size=4, wait_ms=0)(squares)

    async def main() -> None:
        outputs = function.map.aio(stubborn())
        assert await outputs.__anext__() == 0
        await outputs.aclose()
        assert function.stats.n_waiting == 0

    asyncio.run(asyncio.wait_for(main(), SOON_S))


# --- errors ---------------------------------------------------------------------------------------


@both_ways
@pytest.mark.parametrize("order_outputs", [True, False])
def test_map_raises_the_first_error(run: Run, order_outputs: bool) -> None:
    function = batched(max_batch_size=2, wait_ms=0)(fails_on_3)
    with pytest.raises(ValueError, match="3 is in it"):
        run(function, itertools.count(), order_outputs=order_outputs)


@both_ways
def test_map_with_return_exceptions_yields_errors(run: Run) -> None:
    function = batched(max_batch_size=1, wait_ms=0)(fails_on_3)
    outputs = run(function, range(6), return_exceptions=True)
    assert [repr(o) if isinstance(o, ValueError) else o for o in outputs] == [
        0, 1, 2, "ValueError('3 is in it')", 4, 5,
    ]  # fmt: skip


@both_ways
def test_map_of_a_closed_function_raises_closed_even_with_return_exceptions(run: Run) -> None:
    function = batched(wait_ms=0)(squares)
    function.close()
    with pytest.raises(Closed):
        run(function, range(3), return_exceptions=True)


# --- leaving --------------------------------------------------------------------------------------


@pytest.mark.parametrize("order_outputs", [True, False])
def test_a_map_that_is_interrupted_takes_its_items_out_of_the_queue(order_outputs: bool) -> None:
    function = batched(max_batch_size=8, wait_ms=1000, clock=ManualClock())(squares)

    def interrupted() -> Iterator[int]:
        yield from range(5)
        assert function.stats.n_waiting == 5
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        next(function.map(interrupted(), order_outputs=order_outputs))
    assert function.stats.n_waiting == 0


@pytest.mark.parametrize("order_outputs", [True, False])
def test_an_asynchronous_map_whose_task_is_cancelled_takes_its_items_out(
    order_outputs: bool,
) -> None:
    gate = Gate()
    source = Source()
    function = batched(max_batch_size=2, wait_ms=0, max_queue_size=3)(gate)

    async def consume() -> None:
        async for _ in function.map.aio(source.numbers_async(), order_outputs=order_outputs):
            pass

    async def main() -> None:
        tasks_before = asyncio.all_tasks()
        consumer = asyncio.create_task(consume())
        assert await asyncio.to_thread(gate.entered.acquire, timeout=SOON_S)
        consumer.cancel()
        await asyncio.wait({consumer})
        assert consumer.cancelled()
        assert source.closed
        assert function.stats.n_waiting == 0
        assert asyncio.all_tasks() <= tasks_before
        gate.permits.release(2)
        assert await function.aio(1000) == 1000

    asyncio.run(asyncio.wait_for(main(), SOON_S))


def test_unretrieved_errors_of_a_map_are_not_logged() -> None:
    reported: list[dict[str, Any]] = []

    @batched(max_batch_size=4, wait_ms=0)
    def fails(numbers: list[int]) -> list[int]:
        raise ValueError

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, what: reported.append(what))
        with pytest.raises(ValueError):
            async for _ in fails.map.aio(range(4)):
                pass
        gc.collect()

    asyncio.run(main())
    assert reported == []


def test_a_single_call_overtakes_an_earlier_map() -> None:
    gate = Gate()
    function = batched(max_batch_size=2, wait_ms=1e9)(gate)

    async def consume() -> None:
        async for _ in function.map.aio(itertools.count()):
            pass

    async def waiting(n_items: int) -> None:
        while function.stats.n_waiting != n_items:
            await asyncio.sleep(0)

    async def main() -> None:
        consumer = asyncio.create_task(consume())
        assert await asyncio.to_thread(gate.entered.acquire, timeout=SOON_S)
        await waiting(2)  # the first two run, and two more are all that may be in flight
        single = asyncio.create_task(function.aio(-1))
        await waiting(3)
        gate.permits.release(2)
        assert await single == -1
        assert gate.seen[:4] == [0, 1, 2, -1]
        consumer.cancel()
        await asyncio.wait({consumer})
        gate.permits.release(100)  # for what had been started

    asyncio.run(asyncio.wait_for(main(), SOON_S))


def test_maps_from_many_threads_get_their_own_outputs() -> None:
    function = batched(max_batch_size=8, wait_ms=0, max_queue_size=16)(squares)

    def run(start: int) -> bool:
        numbers = list(range(start, start + N))
        return list(function.map(numbers)) == squares(numbers)

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(run, range(0, 6000, 1000)))
