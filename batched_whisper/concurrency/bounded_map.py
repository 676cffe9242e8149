"""``map``: calls a batched function with many inputs, lazily, in order or as calls complete.

It keeps a bounded number of calls in flight, whatever the length of the input, and cancels all of
them when its consumer stops. It does not know how a call is batched, only how it is submitted.

The laws of all generators here:

- Nothing happens before the first output is requested. Inputs are read only while fewer than the
  limit of calls are in flight.
- An error of the inputs themselves is raised after the outputs of the inputs before it.
- A generator given as input is closed together with the map.
"""

from __future__ import annotations

import asyncio
import inspect
import queue
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Coroutine,
    Generator,
    Iterable,
    Iterator,
)
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Generic, Literal, Protocol, TypeVar, overload

R = TypeVar("R")
Arguments = tuple[Any, ...]
Inputs = Iterable[Any] | AsyncIterable[Any]


class Submit(Protocol[R]):
    """Starts the calls of one run of a map, which is one group in the queue."""

    def __call__(self, arguments: Arguments) -> Future[R]:
        """Start a call; block while the queue is full."""

    def aio(self, arguments: Arguments) -> Coroutine[Any, Any, Future[R]]:
        """Start a call; suspend the task while the queue is full."""


@dataclass(frozen=True)
class Mapper(Generic[R]):
    """``map`` or ``starmap`` of a batched function; ``.aio`` is the asynchronous form.

    Args:
        new_run: returns the object that starts the calls of one run.
        n_in_flight: the most calls of a run that were started and whose output is not yielded yet.
        spread: whether each input is a tuple of the arguments of a call, as for ``starmap``.
    """

    new_run: Callable[[], Submit[R]]
    n_in_flight: int
    spread: bool = False

    @overload
    def __call__(
        self,
        *iterables: Iterable[Any],
        order_outputs: bool = ...,
        return_exceptions: Literal[False] = ...,
    ) -> Generator[R, None, None]: ...
    @overload
    def __call__(
        self,
        *iterables: Iterable[Any],
        order_outputs: bool = ...,
        return_exceptions: bool,
    ) -> Generator[R | Exception, None, None]: ...
    def __call__(
        self,
        *iterables: Iterable[Any],
        order_outputs: bool = True,
        return_exceptions: bool = False,
    ) -> Generator[R | Exception, None, None]:
        """Call with each input and yield the outputs; several iterables as in builtin ``map``.

        No output is yielded while the next input is awaited, so use ``aio`` for slow inputs.

        Args:
            iterables: the inputs; they may be endless.
            order_outputs: true for the order of the inputs, false for completion order.
            return_exceptions: yield the error of an input as its output, instead of raising it and
                cancelling the others.
        """
        _check_inputs(iterables, self.spread)
        rows = map(tuple, iterables[0]) if self.spread else zip(*iterables)  # noqa: B905
        flight: _Flight[R] = _InOrder() if order_outputs else _AsCompleted()
        return _outputs(
            self.new_run(), rows, iterables, flight, self.n_in_flight, return_exceptions
        )

    @overload
    def aio(
        self,
        *iterables: Inputs,
        order_outputs: bool = ...,
        return_exceptions: Literal[False] = ...,
    ) -> AsyncGenerator[R, None]: ...
    @overload
    def aio(
        self,
        *iterables: Inputs,
        order_outputs: bool = ...,
        return_exceptions: bool,
    ) -> AsyncGenerator[R | Exception, None]: ...
    def aio(
        self,
        *iterables: Inputs,
        order_outputs: bool = True,
        return_exceptions: bool = False,
    ) -> AsyncGenerator[R | Exception, None]:
        """Do the same for ``async for``; inputs may be asynchronous too, and slow.

        An ordinary iterable is read on the event loop, so it should not block.
        """
        _check_inputs(iterables, self.spread)
        run = _AsyncRun(self.new_run(), self.n_in_flight, order_outputs)
        return run.outputs(_rows(iterables, self.spread), return_exceptions)


def _check_inputs(iterables: tuple[Inputs, ...], spread: bool) -> None:
    if not iterables:
        raise TypeError("map() needs at least one iterable of inputs")
    if spread and len(iterables) > 1:
        raise TypeError("starmap() takes one iterable, of tuples of arguments")


# --- synchronous ----------------------------------------------------------------------------------


class _Flight(Protocol[R]):
    """The calls in flight, and the order of their outputs."""

    def __len__(self) -> int: ...

    def add(self, future: Future[R]) -> None: ...

    def is_ready(self) -> bool: ...

    def next(self) -> Future[R]:
        """Remove and return the future of the next output; block until it is done."""

    def cancel(self) -> None: ...


class _InOrder(Generic[R]):
    def __init__(self) -> None:
        self._futures: deque[Future[R]] = deque()

    def __len__(self) -> int:
        return len(self._futures)

    def add(self, future: Future[R]) -> None:
        self._futures.append(future)

    def is_ready(self) -> bool:
        return bool(self._futures) and self._futures[0].done()

    def next(self) -> Future[R]:
        self._futures[0].exception()
        return self._futures.popleft()

    def cancel(self) -> None:
        for future in self._futures:
            future.cancel()


class _AsCompleted(Generic[R]):
    def __init__(self) -> None:
        self._futures: set[Future[R]] = set()
        self._completed: queue.SimpleQueue[Future[R]] = queue.SimpleQueue()

    def __len__(self) -> int:
        return len(self._futures)

    def add(self, future: Future[R]) -> None:
        self._futures.add(future)
        future.add_done_callback(self._completed.put)

    def is_ready(self) -> bool:
        return not self._completed.empty()

    def next(self) -> Future[R]:
        future = self._completed.get()
        self._futures.remove(future)
        return future

    def cancel(self) -> None:
        for future in self._futures:
            future.cancel()


def _outputs(
    submit: Submit[R],
    rows: Iterator[Arguments],
    inputs: tuple[Inputs, ...],
    flight: _Flight[R],
    n_in_flight: int,
    return_exceptions: bool,
) -> Generator[R | Exception, None, None]:
    reading, input_error = True, None
    try:
        while reading or len(flight):
            if reading and len(flight) < n_in_flight:
                try:
                    flight.add(submit(next(rows)))
                except StopIteration:
                    reading = False
                except Exception as error:
                    reading, input_error = False, error
            else:
                output = _output(flight.next(), return_exceptions)
                yield output
            # Two outputs per input read, so that pending outputs decrease while the queue is kept
            # filled.
            for _ in range(2):
                if flight.is_ready():
                    output = _output(flight.next(), return_exceptions)
                    yield output
        if input_error is not None:
            raise input_error
    finally:
        flight.cancel()
        for source in inputs:
            if inspect.isgenerator(source):
                source.close()


def _output(future: Future[R], return_exceptions: bool) -> R | Exception:
    try:
        return future.result()
    except Exception as error:
        if return_exceptions:
            return error
        raise


# --- asynchronous ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _End:
    """The end of the inputs: their number, and the error that ended them."""

    n_inputs: int
    error: BaseException | None


class _AsyncRun(Generic[R]):
    """One run: a task that reads inputs and starts calls, and a generator that yields outputs."""

    def __init__(self, submit: Submit[R], n_in_flight: int, in_order: bool) -> None:
        self._submit = submit
        self._in_order = in_order
        self._n_in_flight = n_in_flight
        self._flying: dict[asyncio.Future[R], Future[R]] = {}
        self._left = False  # by the consumer

    async def outputs(
        self, rows: AsyncGenerator[Arguments, None], return_exceptions: bool
    ) -> AsyncGenerator[R | Exception, None]:
        # Made here, not in __init__: in Python 3.10 they bind to the loop that is running.
        self._places = asyncio.Semaphore(self._n_in_flight)
        self._given: asyncio.Queue[asyncio.Future[R] | _End] = asyncio.Queue()
        reader = asyncio.create_task(self._read(rows))
        end: _End | None = None
        n_outputs = 0
        try:
            while end is None or n_outputs < end.n_inputs:
                given = await self._given.get()
                if isinstance(given, _End):
                    end = given
                    continue
                output = await _output_aio(given, return_exceptions)
                n_outputs += 1
                self._places.release()
                yield output
            if end.error is not None:
                raise end.error
        finally:
            self._left = True
            self._cancel()
            reader.cancel()
            await asyncio.wait({reader})
            self._cancel()  # calls started meanwhile, if an input ignores cancellation

    async def _read(self, rows: AsyncGenerator[Arguments, None]) -> None:
        n_inputs = 0
        error: BaseException | None = None
        try:
            while not self._left:
                await self._places.acquire()
                started = await self._submit.aio(await rows.__anext__())
                future = asyncio.wrap_future(started)
                n_inputs += 1
                self._flying[future] = started
                future.add_done_callback(self._landed)
                if self._in_order:
                    self._given.put_nowait(future)
        except StopAsyncIteration:
            pass
        except BaseException as raised:  # raised again by `outputs`
            error = raised
        try:
            await rows.aclose()
        except BaseException as raised:
            error = error or raised
        self._given.put_nowait(_End(n_inputs, error))

    def _landed(self, future: asyncio.Future[R]) -> None:
        del self._flying[future]
        if not future.cancelled():
            future.exception()  # mark it as retrieved, even if the consumer stops before it
        if not self._in_order:
            self._given.put_nowait(future)

    def _cancel(self) -> None:
        for future, started in tuple(self._flying.items()):
            started.cancel()  # immediately; asyncio alone would do it one iteration later
            future.cancel()


async def _output_aio(future: asyncio.Future[R], return_exceptions: bool) -> R | Exception:
    try:
        return await future
    except Exception as error:
        if return_exceptions:
            return error
        raise


async def _each(iterable: Inputs) -> AsyncGenerator[Any, None]:
    if isinstance(iterable, AsyncIterable):
        async for each in iterable:
            yield each
    else:
        for each in iterable:
            yield each


async def _rows(iterables: tuple[Inputs, ...], spread: bool) -> AsyncGenerator[Arguments, None]:
    """Yield the arguments of each call, up to the shortest iterable; then close generators."""
    sources: list[AsyncIterator[Any]] = [_each(iterable) for iterable in iterables]
    try:
        while True:
            try:
                row = [await source.__anext__() for source in sources]
            except StopAsyncIteration:
                return
            yield tuple(row[0]) if spread else tuple(row)
    finally:
        for iterable in iterables:
            if inspect.isasyncgen(iterable):
                await iterable.aclose()
            elif inspect.isgenerator(iterable):
                iterable.close()
