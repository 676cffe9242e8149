"""The lifecycle of a batched function or of a model instance.

`enter` and `exit` mark methods of a class with ``@batched`` methods. They run once per instance:
enter methods before the first batch, exit methods after the last one. This module manages threads,
event loop and hooks, and knows nothing of batches.

The rules:

- Enter methods run in a worker thread, base classes first. If one raises, the callers of that
  batch get the error and the next batch retries, from the method that failed.
- Exit methods run after the last batch, in reverse order, if all enter methods succeeded. All of
  them run even if one raises; `Lifecycle.close` raises the first error.
- A lifecycle ends with ``close()`` of any of its batched methods, with `running`, or at interpreter
  exit, which finishes the running batch and fails the calls in the queue.
- An instance that was entered and has exit methods is kept alive until then, because they need it.
  Any other instance is garbage collected as usual, and its threads end with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import logging
import queue
import threading
import weakref
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar, cast

from batched_whisper.concurrency import process_end
from batched_whisper.errors import BatchingError, Closed, OptionError
from batched_whisper.functions.event_loop_thread import EventLoopThread

log = logging.getLogger(__name__)

Hook = TypeVar("Hook", bound=Callable[..., Any])
Instance = TypeVar("Instance")

_ENTER_MARK = "__batched_whisper_enter__"
_EXIT_MARK = "__batched_whisper_exit__"


def enter() -> Callable[[Hook], Hook]:
    """Mark a method, synchronous or not, that runs once before the instance's first batch."""
    return functools.partial(_mark, _ENTER_MARK)


def exit() -> Callable[[Hook], Hook]:
    """Mark a method, synchronous or not, that runs once after the instance's last batch."""
    return functools.partial(_mark, _EXIT_MARK)


def _mark(mark: str, method: Hook) -> Hook:
    setattr(method, mark, True)
    return method


def _marked(cls: type, mark: str) -> tuple[Callable[..., Any], ...]:
    """Return the marked methods: base classes first, then in the order of definition."""
    names = dict.fromkeys(name for base in reversed(cls.__mro__) for name in vars(base))
    methods = (getattr(cls, name, None) for name in names)
    return tuple(method for method in methods if callable(method) and hasattr(method, mark))


class Part(Protocol):
    """A worker of a lifecycle: one batched function."""

    def work(self) -> None:
        """Process batches until `stop`, in its own thread."""

    def stop(self, drain: bool) -> None:
        """Accept no more calls; `work` returns after all accepted calls."""


P = TypeVar("P", bound=Part)


class Lifecycle:
    """Manages the workers of one instance or function, from the first batch to `close`.

    Args:
        name: the name in messages and of threads.
        enter: called once with the instance, before the first batch.
        exit: called once with the instance, after the last batch.
    """

    def __init__(
        self,
        name: str,
        enter: tuple[Callable[..., Any], ...] = (),
        exit: tuple[Callable[..., Any], ...] = (),
    ) -> None:
        self._name = name
        self._enter = enter
        self._exit = exit
        self._lock = threading.Lock()
        self._entering = threading.Lock()
        self._n_entered = 0
        self._kept: tuple[object, ...] = ()  # the instance, once its exit methods are due
        self._parts: dict[Hashable, Part] = {}
        self._threads: dict[Part, threading.Thread] = {}
        self._n_running = 0
        self._closing = False
        self._ended = threading.Event()
        self._exit_error: BaseException | None = None
        self._loop = EventLoopThread(f"{name} event loop")

    def part(self, key: Hashable, make: Callable[[Lifecycle], P]) -> P:
        """Return the part of this key; creates it at the first call."""
        with self._lock:
            if key not in self._parts:
                self._parts[key] = make(self)
            return cast(P, self._parts[key])

    def start(self, part: Part) -> None:
        """Start the thread of a part, unless it runs already.

        Raises:
            Closed: this lifecycle has ended.
            BatchingError: no thread can be started.
        """
        with self._lock:
            if self._closing:
                raise Closed(
                    f"{self._name} was closed, or was used before this process was forked; "
                    "create a new one"
                )
            if part in self._threads:
                return
            thread = threading.Thread(
                target=self._run, args=(part,), name=f"{self._name} worker", daemon=True
            )
            try:
                thread.start()
            except RuntimeError as error:
                raise BatchingError(
                    f"no thread can be started for {self._name}: the process is ending, or has as "
                    "many as it may have"
                ) from error
            self._threads[part] = thread
            self._n_running += 1
        process_end.track(self, ends_first=True)

    def cancel_all(self) -> None:
        """At the end of the process: fail what waits, and end; returns at once."""
        self.close(drain=False, wait=False)

    def finish(self, timeout_s: float) -> None:
        """Return when all is done, or after so long; errors of exit methods were logged."""
        with contextlib.suppress(BaseException):
            self.close(timeout_s=timeout_s)

    def after_fork(self) -> None:
        """In a forked process: the threads are gone, so nothing can be answered."""
        self._lock = threading.Lock()
        self._closing = True
        self._threads = {}
        self._n_running = 0
        self._ended = threading.Event()
        self._ended.set()

    def would_wait_for_itself(self, part: Part) -> bool:
        """Whether a call of ``part`` from this thread would be a deadlock."""
        return self._loop.is_current() or threading.current_thread() is self._threads.get(part)

    def begin(self, instance: object) -> None:
        """Run the enter methods that have not succeeded yet; raises their errors."""
        with self._entering:
            while self._n_entered < len(self._enter):
                self.call(self._enter[self._n_entered], instance)
                self._n_entered += 1
            if self._exit:
                self._kept = (instance,)

    def call(self, function: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
        """Call a function in this thread; awaits its awaitable result on the event loop."""
        result = function(*arguments, **keywords)
        return self._loop.run(result) if inspect.isawaitable(result) else result

    def close(self, drain: bool = True, wait: bool = True, timeout_s: float | None = None) -> None:
        """Finish all accepted calls, then run the exit methods. May be called again.

        Called from its own workers it does not wait, because that would be a deadlock.

        Args:
            drain: whether to process queued calls; otherwise they fail with `Closed`.
            wait: whether to wait until everything has ended.
            timeout_s: maximum waiting time, in seconds.

        Raises:
            BaseException: raised by an exit method, for the first caller that waits.
        """
        with self._lock:
            is_first, self._closing = not self._closing, True
            nothing_runs = self._n_running == 0
            parts = tuple(self._threads)
        for part in parts:
            part.stop(drain)
        if is_first and nothing_runs:
            self._end()
        if wait and not self._is_own_thread():
            self._ended.wait(timeout_s)
            with self._lock:
                error, self._exit_error = self._exit_error, None
            if error is not None:
                raise error

    def _is_own_thread(self) -> bool:
        return self._loop.is_current() or threading.current_thread() in self._threads.values()

    def _run(self, part: Part) -> None:
        try:
            part.work()
        finally:
            with self._lock:
                self._n_running -= 1
                is_last = self._closing and self._n_running == 0
            if is_last:
                self._end()

    def _end(self) -> None:
        """Run the exit methods: in the last worker, or in `close` if no worker was started."""
        kept, self._kept = self._kept, ()
        for method in reversed(self._exit) if kept else ():
            try:
                self.call(method, *kept)
            except BaseException as error:  # the other exit methods still run
                log.error("%s failed at the end of %s: %r", method.__name__, self._name, error)
                self._exit_error = self._exit_error or error
        try:
            self._loop.stop()
        finally:
            process_end.untrack(self)
            self._ended.set()


# --- the lives of instances -----------------------------------------------------------------------


@dataclass(frozen=True)
class _Entry:
    instance: weakref.ref[Any]
    life: Lifecycle


@dataclass(frozen=True)
class _Orphan:
    """A lifecycle whose instance was garbage collected; ``key`` is its former ``id``."""

    key: int
    life: Lifecycle


class _Lives:
    """The lives of all instances.

    An instance's finaliser may run in a thread that holds any lock, so it only puts the life into
    a queue, which is safe, and a thread of its own closes it.
    """

    def __init__(self) -> None:
        self._entries: dict[int, _Entry] = {}  # by the `id` of the instance
        self.after_fork()
        process_end.watch_forks(self)

    def after_fork(self) -> None:
        """In a forked process: any lock may be held forever, and the closing thread is gone."""
        self._lock = threading.Lock()
        self._orphans: queue.SimpleQueue[_Orphan] = queue.SimpleQueue()
        self._closes_orphans = False

    def of(self, instance: object) -> Lifecycle:
        """See `lifecycle_of`."""
        with self._lock:
            entry = self._entries.get(id(instance))
            if entry is None or entry.instance() is not instance:
                entry = self._entries[id(instance)] = self._new_entry(instance)
            return entry.life

    def _new_entry(self, instance: object) -> _Entry:
        cls = type(instance)
        life = Lifecycle(
            cls.__qualname__, enter=_marked(cls, _ENTER_MARK), exit=_marked(cls, _EXIT_MARK)
        )
        try:
            reference = weakref.ref(instance)
            orphan = _Orphan(id(instance), life)
            weakref.finalize(instance, self._add_orphan, orphan).atexit = False
        except TypeError as error:
            raise OptionError(
                f"{cls.__qualname__} has @batched methods and __slots__: "
                "add '__weakref__' to its slots, so that its workers can end with it"
            ) from error
        self._start_closing_orphans()
        return _Entry(reference, life)

    def _add_orphan(self, orphan: _Orphan) -> None:
        self._orphans.put(orphan)

    def _start_closing_orphans(self) -> None:
        if self._closes_orphans:
            return
        thread = threading.Thread(
            target=self._close_orphans,
            args=(self._orphans,),
            name="batched_whisper orphans",
            daemon=True,
        )
        with contextlib.suppress(RuntimeError):  # at the interpreter's end, which closes them all
            thread.start()
            self._closes_orphans = True

    def _close_orphans(self, orphans: queue.SimpleQueue[_Orphan]) -> None:
        while True:
            orphan = orphans.get()
            with self._lock:
                entry = self._entries.get(orphan.key)
                if entry is not None and entry.life is orphan.life:  # else the id was given again
                    del self._entries[orphan.key]
            orphan.life.close(wait=False)
            del orphan, entry


_lives = _Lives()


def lifecycle_of(instance: object) -> Lifecycle:
    """Return the lifecycle of an instance; it begins with its first batch.

    Raises:
        OptionError: the class has ``__slots__`` without ``__weakref__``.
    """
    return _lives.of(instance)


@dataclass(frozen=True)
class running(Generic[Instance]):  # noqa: N801  used as a verb: with running(model)
    """A context manager, synchronous or not, that closes an instance at its end.

    ``with running(Model()) as model:`` finishes all accepted calls, then runs the exit methods.
    """

    instance: Instance

    def __enter__(self) -> Instance:
        return self.instance

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        lifecycle_of(self.instance).close()

    async def __aenter__(self) -> Instance:
        return self.instance

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await asyncio.to_thread(lifecycle_of(self.instance).close)
