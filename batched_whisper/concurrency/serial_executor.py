"""Calls one after another, on threads that many share. Knows nothing of what is called."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Protocol


class Pool(Protocol):
    """Threads that make calls."""

    def submit(self, call: Callable[[], object], /) -> object:
        """Have something called. Raises RuntimeError if it was shut down."""


class SerialExecutor:
    """Makes calls in the order in which they were asked for, never two at a time.

    Args:
        pool: whose threads make them; one that is shut down leaves them to who asks.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._lock = threading.Lock()
        self._calls: deque[Callable[[], object]] = deque()
        self._is_busy = False

    def submit(self, call: Callable[[], object]) -> None:
        """Have something called, which raises nothing; returns at once."""
        with self._lock:
            self._calls.append(call)
            if self._is_busy:
                return
            self._is_busy = True
        try:
            self._pool.submit(self._work)
        except RuntimeError:  # it was shut down
            self._work()

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._calls:
                    self._is_busy = False
                    return
                call = self._calls.popleft()
            call()
