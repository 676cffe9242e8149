"""A future whose callbacks may block, or wait for other futures of this kind.

An ordinary future calls back on the thread that completes it. A callback that waits for work of
that same thread would wait forever. Knows nothing of the future's result.
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
    """A future that makes its callbacks in order on other threads than the one that completes it.

    A callback of a cancelled future, or one added to a future that is done, is called immediately,
    as usual.

    Args:
        executor: makes the callbacks.
    """

    def __init__(self, executor: SerialExecutor) -> None:
        super().__init__()
        self._executor = executor

    def add_done_callback(self, fn: Callable[[Future[T]], object]) -> None:
        """Call ``fn`` with this future when it is done."""
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
        except BaseException:  # logged, as by ordinary futures; the result is not affected
            log.exception("exception calling callback for %r", self)


def add_internal_callback(future: Future[Any], fn: Callable[[Future[Any]], object]) -> None:
    """Call ``fn`` on the thread that completes the future, whatever kind of future it is."""
    Future.add_done_callback(future, fn)
