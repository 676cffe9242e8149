"""The worker behind one batched function: takes calls from the queue, calls the function on lists.

It knows how single calls become lists and results go back to their callers, whatever the function
does: raise, exit, return too little. It does not know how calls are written (`decorator`) nor when
a model is loaded (`lifecycle`).
"""

from __future__ import annotations

import concurrent.futures
import copy
import inspect
import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from batched_whisper.batching.clock import Clock
from batched_whisper.batching.policy import FixedWait
from batched_whisper.batching.queue import Item, ItemQueue
from batched_whisper.errors import BatchingError, OptionError, WrongBatchLength
from batched_whisper.functions import event_loop_thread, lifecycle
from batched_whisper.functions.lifecycle import Lifecycle

R = TypeVar("R")

_around: ContextVar[object | None] = ContextVar("the batch that this is a part of", default=None)
"""A mark of it; the function's own thread has it, and what takes over its context: the tasks that
it starts, and `asyncio.to_thread`."""


@dataclass(frozen=True)
class BatchStats:
    """What a batched function has done until now."""

    n_batches: int = 0
    """Calls of the function, failed ones included."""
    n_items: int = 0
    """Items in these calls."""
    n_failed_batches: int = 0
    """Calls that raised, or returned something that is not one result for each item."""
    n_waiting: int = 0
    """Items in the queue now."""

    @property
    def mean_batch_size(self) -> float:
        """Items per call of the function; 0 before the first."""
        return self.n_items / self.n_batches if self.n_batches else 0.0


@dataclass(frozen=True, eq=False)
class Definition(Generic[R]):
    """A function that takes lists, and how its calls are batched.

    Raises:
        OptionError: a number that makes no sense.
    """

    function: Callable[..., Any]
    max_batch_size: int
    policy: FixedWait
    max_queue_size: int
    clock: Clock | None
    is_method: bool = False

    def __post_init__(self) -> None:
        if self.max_batch_size < 1:
            raise OptionError(f"max_batch_size={self.max_batch_size!r}: give 1 or more")
        if self.max_queue_size < 1:
            raise OptionError(f"max_queue_size={self.max_queue_size!r}: give 1 or more")

    @property
    def name(self) -> str:
        """How messages call it."""
        return getattr(self.function, "__qualname__", repr(self.function))


@dataclass(frozen=True)
class Shape:
    """Which arguments a call gives. Calls of one shape can share a batch."""

    n_positional: int
    keywords: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Call:
    """The single arguments of one call."""

    instance: object | None
    """What a method is called on; the call keeps it alive until it is answered."""
    positional: tuple[Any, ...]
    keywords: dict[str, Any]

    @property
    def shape(self) -> Shape:
        """What it has to have in common with the others of its batch."""
        return Shape(len(self.positional), tuple(sorted(self.keywords)))


class Batcher(Generic[R]):
    """The queue and the worker of one batched function, or of one instance's batched method.

    Between batches it holds no reference to the instance.
    """

    def __init__(self, definition: Definition[R], life: Lifecycle) -> None:
        self._definition = definition
        self._life = life
        self._signature = _signature(definition)
        self._queue: ItemQueue[Call, R] = ItemQueue(
            definition.max_queue_size, definition.clock, f"the queue of {definition.name}"
        )
        self._running: object | None = None  # the mark of the batch that is served now
        self._stats = BatchStats()
        self._stats_lock = threading.Lock()

    @property
    def life(self) -> Lifecycle:
        """What it is a part of."""
        return self._life

    @property
    def stats(self) -> BatchStats:
        """What it has done until now."""
        with self._stats_lock:
            return replace(self._stats, n_waiting=len(self._queue))

    # --- callers -------------------------------------------------------------------------------

    def call(
        self, instance: object | None, positional: tuple[Any, ...], keywords: dict[str, Any]
    ) -> Call:
        """Check the arguments of a call against the function's parameters.

        Raises:
            TypeError: they do not fit; the other calls are not affected.
        """
        if self._signature is None:
            return Call(instance, positional, keywords)
        try:
            bound = self._signature.bind(*positional, **keywords)
        except TypeError as error:
            raise TypeError(f"{self._definition.name}() {error}") from None
        return Call(instance, bound.args, bound.kwargs)

    def submit(self, call: Call, group: Hashable | None = None) -> Future[R]:
        """Queue a call; blocks while the queue is full.

        Raises:
            Closed: after `Lifecycle.close`.
            BatchingError: called by the batched function itself, which would wait forever.
        """
        if self._life.would_wait_for_itself(self) or self._is_within_its_batch():
            raise self._calls_itself()
        self._life.start(self)
        return self._queue.put(call, group=group)

    async def submit_async(self, call: Call, group: Hashable | None = None) -> Future[R]:
        """Queue a call; waits without holding a thread while the queue is full.

        What one function awaits of another is answered meanwhile, also on the life's own loop. A
        task that a batch started may call it when that batch is over; before, whether the batch
        waits for the task cannot be known, and is taken for granted.

        Raises:
            Closed: after `Lifecycle.close`.
            BatchingError: called by the batched function itself, which would wait forever.
        """
        if self._is_within_its_batch():
            raise self._calls_itself()
        self._life.start(self)
        return await self._queue.put_async(call, group=group)

    def _is_within_its_batch(self) -> bool:
        """Whether the batch that is served now would be waiting for the caller."""
        running = self._running
        return running is not None and _around.get() is running

    def _calls_itself(self) -> BatchingError:
        return BatchingError(
            f"{self._definition.name} calls itself inside of a batch and would wait forever; "
            "call the undecorated function there (its __wrapped__)"
        )

    # --- the worker ----------------------------------------------------------------------------

    def stop(self, drain: bool) -> None:
        """Let nobody in any more; see `lifecycle.Part`."""
        self._queue.close(drain)

    def work(self) -> None:
        """Serve batches until `stop`; see `lifecycle.Part`."""
        try:
            while self._serve_one_batch():
                pass
        finally:  # should this thread ever fail, its callers must not hang
            self._queue.close(drain=False)

    def _serve_one_batch(self) -> bool:
        """Its own function, so that no variable keeps the batch alive while the next is awaited."""
        batch = self._queue.take(self._definition.max_batch_size, self._definition.policy)
        by_shape: dict[Shape, list[Item[Call, R]]] = {}
        for item in batch:
            by_shape.setdefault(item.payload.shape, []).append(item)
        for items in by_shape.values():
            self._answer(items)
        return bool(batch) or not self._queue.drained

    def _answer(self, items: list[Item[Call, R]]) -> None:
        try:
            results = self._results([item.payload for item in items])
        except BaseException as error:
            self._count(len(items), failed=True)
            for item in items:
                item.future.set_exception(_for_one_caller(error, self._definition.name))
            return
        self._count(len(items), failed=False)
        for item, result in zip(items, results, strict=True):
            item.future.set_result(result)

    def _results(self, calls: list[Call]) -> Sequence[R]:
        first = calls[0]
        on: tuple[object, ...] = ()
        if self._definition.is_method:
            with self._marked():
                self._life.begin(first.instance)
            on = (first.instance,)
        positional = [list(column) for column in zip(*(c.positional for c in calls), strict=True)]
        keywords = {name: [c.keywords[name] for c in calls] for name in first.keywords}
        with self._marked():
            results = self._life.call(self._definition.function, *on, *positional, **keywords)
        return _one_for_each(results, len(calls), self._definition.name)

    @contextmanager
    def _marked(self) -> Iterator[None]:
        """Mark what is called, so that calls which it makes are known (`_around`)."""
        self._running = mark = object()
        token = _around.set(mark)
        try:
            yield
        finally:
            _around.reset(token)
            self._running = None

    def _count(self, n_items: int, failed: bool) -> None:
        with self._stats_lock:
            self._stats = replace(
                self._stats,
                n_batches=self._stats.n_batches + 1,
                n_items=self._stats.n_items + n_items,
                n_failed_batches=self._stats.n_failed_batches + failed,
            )


def _signature(definition: Definition[Any]) -> inspect.Signature | None:
    """What callers may pass, without ``self``; None for builtins that do not say."""
    try:
        signature = inspect.signature(definition.function)
    except ValueError:
        return None
    parameters = list(signature.parameters.values())
    return signature.replace(parameters=parameters[1:]) if definition.is_method else signature


def _one_for_each(results: Any, n_items: int, name: str) -> Sequence[Any]:
    """Check what a batch function returned.

    Raises:
        WrongBatchLength: it is not a sequence of so many results.
    """
    is_sequence = hasattr(results, "__len__") and hasattr(results, "__getitem__")
    if not is_sequence or isinstance(results, (str, bytes, bytearray, dict)):
        raise WrongBatchLength(
            f"{name} was given {n_items} inputs and returned a {type(results).__name__}; "
            "a batch function returns a list with one result for each input"
        )
    if len(results) != n_items:
        raise WrongBatchLength(
            f"{name} was given {n_items} inputs and returned {len(results)} results; "
            "a batch function returns one result for each input, in the same order"
        )
    return list(results)


# These mean something else to a caller than "the batch failed": the end of his program or of his
# loop, or that he was cancelled himself. asyncio cannot even carry StopIteration.
_MISLEADING = (StopIteration, StopAsyncIteration, concurrent.futures.CancelledError)


_OWN_FILES = (__file__, lifecycle.__file__, event_loop_thread.__file__)


def _for_one_caller(error: BaseException, name: str) -> BaseException:
    """An error to raise for one of a batch's callers, of the same type wherever that is safe."""
    # From the function on: our own frames hold the inputs of all callers.
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_frame.f_code.co_filename in _OWN_FILES:
        traceback = traceback.tb_next
    error = error.with_traceback(traceback)
    if isinstance(error, Exception) and not isinstance(error, _MISLEADING):
        return _copied(error)
    wrapped = BatchingError(
        f"{name} raised {type(error).__name__}; this batch failed, later ones are served"
    )
    wrapped.__cause__ = error
    return wrapped


def _copied(error: Exception) -> Exception:
    """A copy, since every raise adds to a traceback; the error itself if it cannot be copied."""
    try:
        twin = copy.copy(error)
        if type(twin) is not type(error) or str(twin) != str(error):
            return error
    except Exception:  # its constructor takes other arguments than it keeps
        return error
    twin.__cause__, twin.__context__ = error.__cause__, error.__context__
    twin.__suppress_context__ = error.__suppress_context__
    return twin.with_traceback(error.__traceback__)
