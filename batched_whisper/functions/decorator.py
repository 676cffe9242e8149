"""``@batched``: write a function of lists, call it with single items, from anywhere, at once.

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

This is the public face. It knows how calls are written; `batcher` makes batches of them,
`bounded_map` goes through many inputs, `lifecycle` begins and ends it all.
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
    """A function of single items whose calls are answered in batches; made by `batched`.

    As a method it is another one for each instance, with a queue and a worker of its own.
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
            Exception: what the function raised for the batch, a copy for each of its callers. What
                is no `Exception`, such as SystemExit, comes as the cause of a `BatchingError`.
            WrongBatchLength: the function did not return one result for each input.
            Closed: after `close`.
            TypeError: arguments that do not fit the function.
        """
        batcher = self._checked_batcher()
        future = batcher.submit(batcher.call(self._instance, arguments, keywords))
        try:
            return future.result()
        except BaseException:  # Ctrl-C while waiting; where the batch failed this does nothing
            future.cancel()
            raise

    async def aio(self, *arguments: Any, **keywords: Any) -> R:
        """Call it with single items and await the result; raises what a plain call raises.

        A task that is cancelled takes its item out of the queue; once its batch runs, the batch
        runs on for the others.
        """
        batcher = self._checked_batcher()
        call = batcher.call(self._instance, arguments, keywords)
        return await asyncio.wrap_future(await batcher.submit_async(call))

    @property
    def map(self) -> Mapper[R]:
        """Go through many inputs: see `Mapper`. A run is one group in the queue: it takes turns
        with the other callers and does not shut them out."""
        return self._mapper(spread=False)

    @property
    def starmap(self) -> Mapper[R]:
        """The same for an iterable of tuples of arguments."""
        return self._mapper(spread=True)

    @property
    def stats(self) -> BatchStats:
        """What it has done until now; another snapshot each time."""
        return self._checked_batcher().stats

    def close(self) -> None:
        """Answer what was accepted, then end the worker. May be repeated.

        A method closes its whole instance: all its batched methods, and then its exit methods are
        run.

        Raises:
            BaseException: what an exit method raised.
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
    """Starts the calls of one run of a map, all in one group."""

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
    """What `batched` returns; it keeps the type of a result."""

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
    """Turn a function of lists into one of single items, whose calls are answered in batches.

    The function or method takes one or more lists, all of the batch's length, and returns a list
    of that length; it may be asynchronous. It is called by one worker thread, one batch after the
    other; coroutines run on an event loop of their own. A result that is an exception instance is
    a result as any other. Calls that give different arguments (one an optional argument, the other
    not) are batched apart.

    Args:
        max_batch_size: the most items that are given to the function at once.
        wait_ms: how long the first item waits for company while the function is idle.
        max_queue_size: items that may wait; more make their callers wait for a place.
        clock: what waiting goes by; for tests.

    Raises:
        OptionError: a number out of its range.
    """

    def decorate(function: Callable[..., Any]) -> BatchedFunction[Any]:
        definition = Definition[Any](
            function, max_batch_size, FixedWait(wait_ms), max_queue_size, clock
        )
        batcher = Batcher[Any](definition, Lifecycle(definition.name))
        return BatchedFunction(definition, lambda: batcher)

    return decorate
