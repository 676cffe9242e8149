"""A pool of threads that several executors share, each with its own limit of calls at a time.

A thread is started when there is a call and no thread is idle, so a pool has as many threads as
calls were made at a time, and none before the first call. Unlike `concurrent.futures`, its threads
go on after the end of the main thread, for the program's other threads that have not ended. Knows
nothing of what is called.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue

log = logging.getLogger(__name__)

Call = Callable[[], object]


class ThreadPool:
    """Threads for the calls of its executors. All of them are daemons.

    Args:
        name: what the threads' names begin with.
    """

    def __init__(self, name: str) -> None:
        # Reentrant: the garbage collector may bring a call, in any thread and at any time.
        self._changed = threading.Condition(threading.RLock())
        self._name = name
        self._waiting: SimpleQueue[Call | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._n_busy = 0
        self._is_shut_down = False

    def executor(self, max_calls: int) -> LimitedExecutor:
        """An executor that makes so many calls at a time at most."""
        return LimitedExecutor(self, self._changed, max_calls)

    def is_own_thread(self) -> bool:
        """Whether the caller is one of these threads."""
        return threading.current_thread() in self._threads

    def shutdown(self, timeout_s: float | None = None) -> None:
        """End the threads, when all executors are shut down; each is waited for so long at most."""
        with self._changed:
            if not self._is_shut_down:
                self._is_shut_down = True
                for _ in self._threads:
                    self._waiting.put(None)
        for thread in self._threads:
            thread.join(timeout_s)

    def run(self, work: Call) -> None:
        """Have an idle thread do some work, or else a new one. `end_work` must follow it.

        Raises:
            RuntimeError: no thread is idle and none can be started, or they were shut down.
        """
        with self._changed:
            if self._is_shut_down:
                raise RuntimeError("these threads were shut down")
            self._n_busy += 1
            if self._n_busy <= len(self._threads):
                self._waiting.put(work)
                return
            thread = threading.Thread(
                target=self._work, args=(work,), name=self._next_name(), daemon=True
            )
            self._threads.append(thread)
        # Not under the lock: who starts a thread takes a lock of `threading`, and who holds that
        # one may collect garbage, which may want ours.
        try:
            thread.start()
        except RuntimeError:
            with self._changed:
                self._threads.remove(thread)
                self._n_busy -= 1
            raise

    def end_work(self) -> None:
        """Count a thread as idle, as the last thing that it does before it is."""
        with self._changed:
            self._n_busy -= 1
            self._changed.notify_all()

    def _next_name(self) -> str:
        return f"{self._name}_{len(self._threads)}"

    def _work(self, work: Call | None) -> None:
        while work is not None:
            work()
            del work  # an idle thread keeps nothing alive
            work = self._waiting.get()


class LimitedExecutor:
    """Makes the calls that it is given, first come, first served, on the threads of a pool.

    A call within the limit never waits for a thread: it has one at once, or is refused.

    Args:
        pool: whose threads make them.
        changed: the pool's lock.
        max_calls: how many calls are made at a time.
    """

    def __init__(self, pool: ThreadPool, changed: threading.Condition, max_calls: int) -> None:
        self._pool = pool
        self._changed = changed
        self._max_calls = max_calls
        self._calls: deque[Call] = deque()
        self._n_running = 0
        self._is_shut_down = False

    def submit(self, call: Call, /) -> None:
        """Have something called.

        Raises:
            RuntimeError: after `shutdown`, or where no thread can be started for it, as when the
                interpreter is ending. It is not called then.
        """
        with self._changed:
            if self._is_shut_down:
                raise RuntimeError("this executor was shut down")
            self._calls.append(call)
            if self._n_running == self._max_calls:
                return
            self._n_running += 1
        try:
            self._pool.run(self._make_calls)
        except RuntimeError:
            if self._take_back(call):
                raise

    def shutdown(self, timeout_s: float | None = None) -> bool:
        """Take no more calls, and return when those that were given are done.

        Returns:
            Whether they are; not after ``timeout_s``.
        """
        with self._changed:
            self._is_shut_down = True
            return self._changed.wait_for(lambda: not self._n_running, timeout_s)

    def _make_calls(self) -> None:
        while (call := self._next()) is not None:
            _make(call)
            del call  # a finished call must not be kept alive by the thread

    def _next(self) -> Call | None:
        with self._changed:
            if self._calls:
                return self._calls.popleft()
            self._n_running -= 1
            self._pool.end_work()
            return None

    def _take_back(self, call: Call) -> bool:
        """Undo `submit` if no thread can be started.

        Calls that were submitted meanwhile, and counted on that thread, are made here.

        Returns:
            Whether the call was still waiting; another thread may have made it.
        """
        with self._changed:
            self._n_running -= 1
            was_waiting = call in self._calls
            if was_waiting:
                self._calls.remove(call)
            left = [] if self._n_running else list(self._calls)
            for _ in left:
                self._calls.popleft()
            self._changed.notify_all()
        for other in left:
            _make(other)
        return was_waiting


def _make(call: Call) -> None:
    try:
        call()
    except BaseException:  # the thread is everybody's, and goes on
        log.exception("a call failed that should have kept its error to itself")
