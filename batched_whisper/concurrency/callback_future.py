"""A future for callers, whose callbacks may take their time, or wait for more of the same.

A future calls back on the thread that ends it; if that is one for which everybody waits, a callback
that waits for something else of it waits for ever. Knows nothing of what the future is of.
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
    """Calls back on threads where others do not wait, in turn; else a future like any other.

    Who cancels it, or adds a callback when it is done, is called back at once, as usual.

    Args:
        calls: on those threads.
    """

    def __init__(self, calls: SerialExecutor) -> None:
        super().__init__()
        self._calls = calls

    def add_done_callback(self, fn: Callable[[Future[T]], object]) -> None:
        """Have it called when this is done, with this."""
        if self.done():
            super().add_done_callback(fn)
        else:
            super().add_done_callback(partial(self._hand_over, fn))

    def _hand_over(self, fn: Callable[[Future[T]], object], _: object) -> None:
        if self.cancelled():
            fn(self)
        else:
            self._calls.submit(partial(self._call, fn))

    def _call(self, fn: Callable[[Future[T]], object]) -> None:
        try:
            fn(self)
        except BaseException:  # as futures do: the result is there all the same
            log.exception("exception calling callback for %r", self)


def add_internal_callback(future: Future[Any], fn: Callable[[Future[Any]], object]) -> None:
    """Have something called by the thread that ends the future, of whatever kind it is."""
    Future.add_done_callback(future, fn)
