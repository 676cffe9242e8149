"""A future for callers, whose callbacks may block, or wait for more of the same.

A future calls back on the thread that ends it. If others wait for that thread, a callback that
waits for something which only it can do waits for ever. Knows nothing of the future's result.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar

from batched_whisper.concurrency.serial_executor import SerialExecutor

log = logging.getLogger(__name__)

T = TypeVar("T")


class CallbackFuture(Future[T]):
    """Makes its callbacks in their order on threads for which nobody waits; else any future.

    Whoever cancels it, or adds a callback after it is done, is called back at once, as usual.

    Args:
        executor: makes the callbacks.
    """

    def __init__(self, executor: SerialExecutor) -> None:
        super().__init__()
        self._executor = executor

    def add_done_callback(self, fn: Callable[[Future[T]], object]) -> None:
        """Have it called with this future when this is done."""
        if self.done():
            super().add_done_callback(fn)
        else:
            super().add_done_callback(partial(self._hand_over, fn))

    def _hand_over(self, fn: Callable[[Future[T]], object], _: object) -> None:
        if self.cancelled():
            fn(self)
        else:
            self._executor.submit(partial(self._call, fn))

    def _call(self, fn: Callable[[Future[T]], object]) -> None:
        try:
            fn(self)
        except BaseException:  # as futures do: the result is there all the same
            log.exception("exception calling callback for %r", self)


def add_internal_callback(future: Future[Any], fn: Callable[[Future[Any]], object]) -> None:
    """Have ``fn`` called by the thread that ends the future, whatever kind of future it is."""
    Future.add_done_callback(future, fn)
