"""``@batched``: turns a function of lists into a function of single items.

::

    class Model:
        @enter()
        def load(self): ...
        @batched(max_batch_size=64, wait_ms=1000)
        def transcribe(self, recordings): return [...]

    transcript = model.transcribe(recording)             # from any thread
    transcript = await model.transcribe.aio(recording)   # from any event loop
    for transcript in model.transcribe.map(recordings): ...
    async for transcript in model.transcribe.map.aio(recordings): ...

The public interface. `batcher` combines the calls into batches, `bounded_map` iterates over many
inputs, `lifecycle` runs the enter and exit methods.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from types import MethodType
from typing import Any, Generic, Protocol, TypeVar, overload

from batched_whisper.batching.clock import Clock
from batched_whisper.batching.policy import FixedWait
from batched_whisper.concurrency.bounded_map import Arguments, Mapper
from batched_whisper.functions.batcher import Batcher, BatchStats, Call, Definition
from batched_whisper.functions.lifecycle import Lifecycle, enter, exit, lifecycle_of, running

__all__ = ["BatchStats", "BatchedFunction", "batched", "enter", "exit", "running"]

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class BatchedFunction(Generic[R]):
    """A function of single items whose calls are batched; created by `batched`.

    As a method, each instance has its own batched function, with its own queue and worker.
    """

    __name__: str
    __wrapped__: Callable[..., Any]

    def __init__(
        self,
        definition: Definition[R],
        batcher: Callable[[], Batcher[R]],
        instance: object | None = None,
    ) -> None:
        self._definition = definition
        self._batcher = batcher
        self._instance = instance
        self._owner: type | None = None
        functools.update_wrapper(self, definition.function)
        if instance is not None:
            self.__wrapped__ = MethodType(definition.function, instance)

    def __set_name__(self, owner: type, name: str) -> None:
        self._owner = owner

    def __get__(self, instance: object | None, owner: type | None = None) -> BatchedFunction[R]:
        if instance is None:
            return self

        def batcher() -> Batcher[R]:
            method = replace(self._definition, is_method=True)
            return lifecycle_of(instance).part(self, lambda life: Batcher[R](method, life))

        return BatchedFunction(self._definition, batcher, instance)

    def __call__(self, *arguments: Any, **keywords: Any) -> R:
        """Call it with single items and wait for the result; blocks the thread.

        Raises:
            Exception: raised by the function for the batch; each caller gets a copy. Other
                exceptions, such as SystemExit, are the cause of a `BatchingError`.
            WrongBatchLength: the function did not return one result per input.
            Closed: after `close`.
            TypeError: the arguments do not match the function.
        """
        batcher = self._checked_batcher()
        future = batcher.submit(batcher.call(self._instance, arguments, keywords))
        try:
            return future.result()
        except BaseException:  # Ctrl-C while waiting; no effect if the batch failed
            future.cancel()
            raise

    async def aio(self, *arguments: Any, **keywords: Any) -> R:
        """Call it with single items and await the result; raises the same errors as a plain call.

        Cancelling the task removes its item from the queue; a running batch continues for the
        others.
        """
        batcher = self._checked_batcher()
        call = batcher.call(self._instance, arguments, keywords)
        return await asyncio.wrap_future(await batcher.submit_async(call))

    @property
    def map(self) -> Mapper[R]:
        """Map it over many inputs: see `Mapper`. All calls of a map are one group in the queue,
        which alternates with other callers and does not block them."""
        return self._mapper(spread=False)

    @property
    def starmap(self) -> Mapper[R]:
        """Map it over an iterable of tuples of arguments."""
        return self._mapper(spread=True)

    @property
    def stats(self) -> BatchStats:
        """A snapshot of its counters."""
        return self._checked_batcher().stats

    def close(self) -> None:
        """Finish all accepted calls, then stop the worker. May be called again.

        A method closes its whole instance: all its batched methods, then the exit methods run.

        Raises:
            BaseException: raised by an exit method.
        """
        self._checked_batcher().life.close()

    async def aclose(self) -> None:
        """`close` without blocking the event loop."""
        await asyncio.to_thread(self.close)

    def _checked_batcher(self) -> Batcher[R]:
        if self._owner is not None and self._instance is None:
            name = self._definition.name
            raise TypeError(f"{name} is a method: call it on an instance of its class")
        return self._batcher()

    def _mapper(self, spread: bool) -> Mapper[R]:
        batcher = self._checked_batcher()
        return Mapper(
            new_run=lambda: _Run(batcher, self._instance),
            n_in_flight=2 * self._definition.max_batch_size,
            spread=spread,
        )


@dataclass(frozen=True, eq=False)
class _Run(Generic[R]):
    """Submits the calls of one map, all in one group."""

    batcher: Batcher[R]
    instance: object | None
    group: Hashable = field(default_factory=object)

    def __call__(self, arguments: Arguments) -> Future[R]:
        return self.batcher.submit(self._call(arguments), self.group)

    async def aio(self, arguments: Arguments) -> Future[R]:
        return await self.batcher.submit_async(self._call(arguments), self.group)

    def _call(self, arguments: Arguments) -> Call:
        return self.batcher.call(self.instance, arguments, {})


class _Decorate(Protocol):
    """The return type of `batched`, which preserves the type of results."""

    @overload
    def __call__(
        self, function: Callable[..., Awaitable[Sequence[R]]], /
    ) -> BatchedFunction[R]: ...
    @overload
    def __call__(self, function: Callable[..., Sequence[R]], /) -> BatchedFunction[R]: ...


def batched(
    *,
    max_batch_size: int = 64,
    wait_ms: float = 1000.0,
    max_queue_size: int = 4096,
    clock: Clock | None = None,
) -> _Decorate:
    """Turn a function of lists into a function of single items, whose calls are batched.

    The function or method takes one or more lists, all of the length of the batch, and returns a
    list of that length; it may be asynchronous. One worker thread calls it, one batch after the
    other; coroutines run on an event loop of their own. A result that is an exception instance is
    returned like any other. Calls with different optional arguments are batched separately.

    Args:
        max_batch_size: maximum number of items per batch.
        wait_ms: longest time, in milliseconds, that an idle function waits for more items.
        max_queue_size: maximum number of items in the queue; while it is full, callers wait.
        clock: the clock for waiting; for tests.

    Raises:
        OptionError: a number is out of range.
    """

    def decorate(function: Callable[..., Any]) -> BatchedFunction[Any]:
        definition = Definition[Any](
            function, max_batch_size, FixedWait(wait_ms), max_queue_size, clock
        )
        batcher = Batcher[Any](definition, Lifecycle(definition.name))
        return BatchedFunction(definition, lambda: batcher)

    return decorate
