"""Makes calls one after another, on shared threads. Knows nothing of the calls."""

from __future__ import annotations

import threading
from collections import deque

from batched_whisper.concurrency.thread_pool import Call, LimitedExecutor


class SerialExecutor:
    """Makes calls in the order in which they were submitted, never two at a time.

    Args:
        executor: makes the calls. The caller of `submit` makes those that it refuses, because it
            was shut down or no thread can be started.
    """

    def __init__(self, executor: LimitedExecutor) -> None:
        self._executor = executor
        self._lock = threading.Lock()
        self._calls: deque[Call] = deque()
        self._is_busy = False

    def submit(self, call: Call) -> None:
        """Queue a call, which must raise nothing; return immediately."""
        with self._lock:
            self._calls.append(call)
            if self._is_busy:
                return
            self._is_busy = True
        try:
            self._executor.submit(self._make_calls)
        except RuntimeError:
            self._make_calls()

    def _make_calls(self) -> None:
        while True:
            with self._lock:
                if not self._calls:
                    self._is_busy = False
                    return
                call = self._calls.popleft()
            call()
