"""Ends a loaded model: when it is closed or garbage-collected, or its process ends or forks.

A thread of its own closes the model, so that a callback on one of the model's threads may call
`close`, and all accepted recordings are still answered. At the end of the process, accepted
recordings are cancelled. Knows the threads of a model, not the model.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from batched_whisper.batching.engine_group import EngineGroup
from batched_whisper.concurrency import process_end
from batched_whisper.pipeline.reader_pool import ReaderPool


class Shutdown:
    """Closes one loaded model, on a thread that is started then.

    Args:
        workers: the threads that read recordings and run the user's code.
        loops: the threads that decode.
    """

    def __init__(self, workers: ReaderPool, loops: EngineGroup) -> None:
        self._workers = workers
        self._loops = loops
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None
        self._is_forked = False
        process_end.track(self)

    def begin(self) -> bool:
        """Start to close the model, and return immediately.

        A finaliser may call this in a thread that holds any lock. No other code has this object by
        then, so its own lock is free.

        Returns:
            Whether closing has started; False if no thread can be started, as at the end of the
            interpreter, which then closes the model.
        """
        with self._lock:
            if self._thread is None:
                thread = threading.Thread(target=self._work, name="whisper-closing", daemon=True)
                try:
                    thread.start()
                except RuntimeError:
                    return False
                self._thread = thread
            return True

    def close(self) -> None:
        """Answer all accepted recordings, then end the threads. May be repeated.

        Returns when that is done, except on one of the model's own threads, as in a callback, where
        it returns immediately.
        """
        if self._is_forked:
            return
        has_begun, is_own_thread = self.begin(), self._is_own_thread()
        if is_own_thread:
            return
        if has_begun and self._thread is not None:
            self._thread.join()
        else:
            self._work()

    def cancel_all(self) -> None:
        """Cancel all accepted recordings; return immediately."""
        self._workers.cancel_all()
        self._loops.queue.close(drain=False)

    def finish(self, timeout_s: float) -> None:
        """Return when the model is closed, or after ``timeout_s``; start no thread."""
        if self._thread is None:
            self._work(timeout_s)
        else:
            self._thread.join(timeout_s)

    def after_fork(self) -> None:
        """Mark the model as unusable in a forked process, and keep it from being destroyed."""
        self._is_forked = True
        process_end.leak(self)

    def _is_own_thread(self) -> bool:
        is_this = threading.current_thread() is self._thread
        return is_this or self._workers.is_own_thread() or self._loops.is_own_thread()

    def _work(self, timeout_s: float | None = None) -> None:
        left = _time_left(timeout_s)
        try:
            self._workers.finish_reading(left())
            self._loops.close(timeout_s=left())
            self._workers.finish_callbacks(left())
        finally:
            process_end.untrack(self)


def _time_left(timeout_s: float | None) -> Callable[[], float | None]:
    """Return a function that returns the remaining seconds; None for no limit."""
    if timeout_s is None:
        return lambda: None
    deadline = time.monotonic() + timeout_s
    return lambda: max(0.0, deadline - time.monotonic())
