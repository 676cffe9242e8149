"""Threads that make calls until their owner shuts them down. Knows nothing of what is called.

Unlike those of `concurrent.futures` they go on when the main thread has ended, for the program's
other threads that have not; so the interpreter's end does not shut them down either.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue

log = logging.getLogger(__name__)

Call = Callable[[], object]


class ThreadPool:
    """Makes the calls that it is given, first come, first served.

    All threads are started at once, since none can be when the interpreter is ending.

    Args:
        n_threads: how many calls are made at a time.
        name: what the threads' names begin with.
    """

    def __init__(self, n_threads: int, name: str) -> None:
        self._calls: SimpleQueue[Call | None] = SimpleQueue()
        # Reentrant: the garbage collector may bring a call, anywhere.
        self._lock = threading.RLock()
        self._is_shut_down = False
        self._threads = tuple(
            threading.Thread(target=self._work, name=f"{name}_{i}", daemon=True)
            for i in range(n_threads)
        )
        for thread in self._threads:
            thread.start()

    def submit(self, call: Call, /) -> None:
        """Have something called. Raises RuntimeError after `shutdown`."""
        with self._lock:
            if self._is_shut_down:
                raise RuntimeError("these threads were shut down")
            self._calls.put(call)

    def is_own_thread(self) -> bool:
        """Whether the caller is one of these threads."""
        return threading.current_thread() in self._threads

    def shutdown(self) -> None:
        """Return when all that was given is done; not for these threads themselves."""
        with self._lock:
            if not self._is_shut_down:
                self._is_shut_down = True
                for _ in self._threads:
                    self._calls.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            try:
                call()
            except BaseException:  # the thread is everybody's, and goes on
                log.exception("a call failed that should have kept its error to itself")
            del call  # nor does it hold what it has done
