"""The worker of one batched function: takes calls from the queue and calls the function on lists.

Combines the arguments of single calls into lists and returns each result to its caller, also if the
function raises, exits or returns the wrong number of results. `decorator` defines the calls,
`lifecycle` when a model is loaded.
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

_current_batch: ContextVar[object | None] = ContextVar("the current batch", default=None)
"""A marker of the current batch. Set in the thread of the function and in every copy of its
context: tasks that it starts, and `asyncio.to_thread`."""


@dataclass(frozen=True)
class BatchStats:
    """The counters of a batched function."""

    n_batches: int = 0
    """Number of batches, failed ones included."""
    n_items: int = 0
    """Number of items in these batches."""
    n_failed_batches: int = 0
    """Number of batches that raised, or did not return one result per item."""
    n_waiting: int = 0
    """Number of items in the queue now."""

    @property
    def mean_batch_size(self) -> float:
        """Items per batch; 0 before the first batch."""
        return self.n_items / self.n_batches if self.n_batches else 0.0


@dataclass(frozen=True, eq=False)
class Definition(Generic[R]):
    """A function that takes lists, and the options of its batches.

    Raises:
        OptionError: a number is out of range.
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
        """The name in messages."""
        return getattr(self.function, "__qualname__", repr(self.function))


@dataclass(frozen=True)
class Shape:
    """The arguments that a call passes; calls with the same signature can share a batch."""

    n_positional: int
    keywords: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Call:
    """The arguments of one call."""

    instance: object | None
    """The instance of a method; the call keeps it alive until it has a result."""
    positional: tuple[Any, ...]
    keywords: dict[str, Any]

    @property
    def shape(self) -> Shape:
        """What the calls of a batch have in common."""
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
        self._running: object | None = None  # the marker of the running batch
        self._stats = BatchStats()
        self._stats_lock = threading.Lock()

    @property
    def life(self) -> Lifecycle:
        """The lifecycle that it belongs to."""
        return self._life

    @property
    def stats(self) -> BatchStats:
        """A snapshot of the counters."""
        with self._stats_lock:
            return replace(self._stats, n_waiting=len(self._queue))

    # --- callers -------------------------------------------------------------------------------

    def call(
        self, instance: object | None, positional: tuple[Any, ...], keywords: dict[str, Any]
    ) -> Call:
        """Check the arguments of a call against the parameters of the function.

        Raises:
            TypeError: they do not match; other calls are not affected.
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
            BatchingError: called by the batched function itself: a deadlock.
        """
        if self._life.would_wait_for_itself(self) or self._is_within_its_batch():
            raise self._calls_itself()
        self._life.start(self)
        return self._queue.put(call, group=group)

    async def submit_async(self, call: Call, group: Hashable | None = None) -> Future[R]:
        """Queue a call; waits without blocking a thread while the queue is full.

        Functions may await each other, also on the event loop of the lifecycle. A task that a batch
        started may call the function after that batch; before, the batch might be waiting for the
        task, so the call is rejected.

        Raises:
            Closed: after `Lifecycle.close`.
            BatchingError: called by the batched function itself: a deadlock.
        """
        if self._is_within_its_batch():
            raise self._calls_itself()
        self._life.start(self)
        return await self._queue.put_async(call, group=group)

    def _is_within_its_batch(self) -> bool:
        """Whether the caller belongs to the running batch, which may be waiting for it."""
        running = self._running
        return running is not None and _current_batch.get() is running

    def _calls_itself(self) -> BatchingError:
        return BatchingError(
            f"{self._definition.name} calls itself within a batch, which is a deadlock; "
            "call the undecorated function instead (its __wrapped__)"
        )

    # --- the worker ----------------------------------------------------------------------------

    def stop(self, drain: bool) -> None:
        """Accept no more calls; see `lifecycle.Part`."""
        self._queue.close(drain)

    def work(self) -> None:
        """Process batches until `stop`; see `lifecycle.Part`."""
        try:
            while self._process_one_batch():
                pass
        finally:  # if this thread fails, its callers must not hang
            self._queue.close(drain=False)

    def _process_one_batch(self) -> bool:
        """A function of its own, so that no variable keeps the batch alive while waiting."""
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
        """Set the marker of the current batch, to detect calls from within it."""
        self._running = marker = object()
        token = _current_batch.set(marker)
        try:
            yield
        finally:
            _current_batch.reset(token)
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
    """Return the signature without ``self``; None for builtins without a signature."""
    try:
        signature = inspect.signature(definition.function)
    except ValueError:
        return None
    parameters = list(signature.parameters.values())
    return signature.replace(parameters=parameters[1:]) if definition.is_method else signature


def _one_for_each(results: Any, n_items: int, name: str) -> Sequence[Any]:
    """Check the return value of a batch function.

    Raises:
        WrongBatchLength: it is not a sequence of ``n_items`` results.
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


# Raised in a caller, these would not mean "the batch failed": they end a loop, or mean that the
# caller was cancelled. asyncio cannot even transfer StopIteration.
_MISLEADING = (StopIteration, StopAsyncIteration, concurrent.futures.CancelledError)


_OWN_FILES = (__file__, lifecycle.__file__, event_loop_thread.__file__)


def _for_one_caller(error: BaseException, name: str) -> BaseException:
    """Return the exception for one caller of a batch, of the same type if that is safe."""
    # Without the frames of this package, which hold the inputs of all callers.
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_frame.f_code.co_filename in _OWN_FILES:
        traceback = traceback.tb_next
    error = error.with_traceback(traceback)
    if isinstance(error, Exception) and not isinstance(error, _MISLEADING):
        return _copied(error)
    wrapped = BatchingError(
        f"{name} raised {type(error).__name__}; this batch failed, later ones are processed"
    )
    wrapped.__cause__ = error
    return wrapped


def _copied(error: Exception) -> Exception:
    """Copy an exception, because each raise extends its traceback; itself if that fails."""
    try:
        copied = copy.copy(error)
        if type(copied) is not type(error) or str(copied) != str(error):
            return error
    except Exception:  # its constructor needs other arguments
        return error
    copied.__cause__, copied.__context__ = error.__cause__, error.__context__
    copied.__suppress_context__ = error.__suppress_context__
    return copied.with_traceback(error.__traceback__)
