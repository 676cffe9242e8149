"""A pool of threads that several executors share, each with its own limit of concurrent calls.

A thread is started when there is a call and no thread is idle, so a pool has as many threads as
there were concurrent calls, and none before the first call. Unlike those of `concurrent.futures`,
its threads continue after the end of the main thread, for the other threads of the program. Knows
nothing of the calls.
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
        name: the prefix of the threads' names.
    """

    def __init__(self, name: str) -> None:
        # Reentrant: the garbage collector may submit a call, in any thread and at any time.
        self._changed = threading.Condition(threading.RLock())
        self._name = name
        self._waiting: SimpleQueue[Call | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._n_busy = 0
        self._is_shut_down = False

    def executor(self, max_calls: int) -> LimitedExecutor:
        """Return an executor that makes at most ``max_calls`` calls at a time."""
        return LimitedExecutor(self, self._changed, max_calls)

    def is_own_thread(self) -> bool:
        """Return whether the caller runs on one of these threads."""
        return threading.current_thread() in self._threads

    def shutdown(self, timeout_s: float | None = None) -> None:
        """End the threads after all executors were shut down; join each for ``timeout_s``."""
        with self._changed:
            if not self._is_shut_down:
                self._is_shut_down = True
                for _ in self._threads:
                    self._waiting.put(None)
        for thread in self._threads:
            thread.join(timeout_s)

    def run(self, work: Call) -> None:
        """Run work on an idle thread, or else on a new one. The work must call `end_work` last.

        Raises:
            RuntimeError: no thread is idle and none can be started, or the pool was shut down.
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
        # Not under the lock: starting a thread takes a lock of `threading`. Its holder may collect
        # garbage, and a finaliser may take ours.
        try:
            thread.start()
        except RuntimeError:
            with self._changed:
                self._threads.remove(thread)
                self._n_busy -= 1
            raise

    def end_work(self) -> None:
        """Count a thread as idle; called last by its work."""
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
    """Makes calls on the threads of a pool, first come, first served.

    A call within the limit never waits for a thread: it gets one immediately, or is refused.

    Args:
        pool: the pool of threads.
        changed: the pool's lock.
        max_calls: the most concurrent calls.
    """

    def __init__(self, pool: ThreadPool, changed: threading.Condition, max_calls: int) -> None:
        self._pool = pool
        self._changed = changed
        self._max_calls = max_calls
        self._calls: deque[Call] = deque()
        self._n_running = 0
        self._is_shut_down = False

    def submit(self, call: Call, /) -> None:
        """Queue a call.

        Raises:
            RuntimeError: the executor was shut down, or no thread can be started, as at the end of
                the interpreter. The call is not made then.
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
        """Accept no more calls, and return when the accepted ones are done.

        Returns:
            Whether they are done; False after ``timeout_s``.
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
    except BaseException:  # the thread is shared, so it continues
        log.exception("a call on a shared thread raised an error, which it should have handled")
