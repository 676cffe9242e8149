"""The threads that read recordings and run the user's code.

A recording that waits for the engine needs no thread, so a job reads a few windows, returns its
thread and is resumed later. Any number of recordings share a few threads. Knows jobs by their
protocol only.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any, Protocol

from batched_whisper.concurrency.callback_future import CallbackFuture, add_internal_callback
from batched_whisper.concurrency.serial_executor import SerialExecutor
from batched_whisper.concurrency.thread_pool import ThreadPool
from batched_whisper.errors import Closed

POOL_NAME = "whisper-worker"
"""The prefix of the threads' names."""

MAX_WORKERS = 4
"""The most concurrent calls of each kind: new recordings, resumed recordings, ``on_segment``, and
callbacks of futures. Each kind has its own limit, because one may wait for another: new recordings
wait for the engine, and callbacks may wait for recordings that they submitted."""


class Job(Protocol):
    """A recording that is being read."""

    future: Future[Any]
    """Done when the recording is transcribed, failed or cancelled."""

    def run(self) -> None:
        """Read until enough windows are with the engine; `ReaderPool.resume` calls it again.

        Never called by two threads at a time. Raises nothing.
        """


class ReaderPool:
    """The threads of one loaded model, except the engine's; started when they are needed.

    Args:
        max_open: the most recordings that are open at a time; others wait.
    """

    def __init__(self, max_open: int) -> None:
        n_reading = min(MAX_WORKERS, 2 * (os.cpu_count() or 1))
        self._pool = ThreadPool(POOL_NAME)
        self._starting = self._pool.executor(n_reading)
        self._resuming = self._pool.executor(n_reading)
        self._results = self._pool.executor(1)
        self._segments = self._pool.executor(MAX_WORKERS)
        self._callbacks = self._pool.executor(MAX_WORKERS)
        self._max_open = max_open
        self._is_closed = False
        self._open: set[Job] = set()
        self._waiting: deque[Job] = deque()
        # Reentrant: the garbage collector may cancel a recording at any time.
        self._changed = threading.Condition(threading.RLock())

    def start(self, job: Job) -> None:
        """Start a recording. If no thread can be started, the caller's thread reads it.

        Raises:
            Closed: after `finish_reading` or `cancel_all`.
        """
        with self._changed:
            if self._is_closed:
                raise _closed()
            self._waiting.append(job)
        for refused in self._open_more():
            refused.run()

    def resume(self, job: Job) -> None:
        """Continue to read a recording.

        Raises:
            Closed: all recordings are done, or no thread can be started.
        """
        try:
            self._resuming.submit(job.run)
        except RuntimeError:
            raise self._refusal() from None

    def process(self, call: Callable[[], object]) -> None:
        """Process a result on another thread than the engine's, or here after `finish_reading`."""
        try:
            self._results.submit(call)
        except RuntimeError:  # it was shut down
            call()

    def serial_executor(self) -> SerialExecutor:
        """Return an executor for successive calls that may block, such as ``on_segment``."""
        return SerialExecutor(self._segments)

    def callback_future(self) -> Future[Any]:
        """Return a future for a caller; its callbacks may block, or wait for other recordings."""
        return CallbackFuture(SerialExecutor(self._callbacks))

    def is_own_thread(self) -> bool:
        """Return whether the caller runs on one of these threads, so that it must not join them."""
        return self._pool.is_own_thread()

    def cancel_all(self) -> None:
        """Accept no more recordings, and cancel all; return immediately."""
        with self._changed:
            self._is_closed = True
            jobs = (*self._open, *self._waiting)
        for job in jobs:
            job.future.cancel()

    def finish_reading(self, timeout_s: float | None = None) -> None:
        """Accept no more recordings, and return when all are done, or after ``timeout_s``."""
        with self._changed:
            self._is_closed = True
            self._changed.wait_for(lambda: not self._open and not self._waiting, timeout_s)
        self._starting.shutdown(timeout_s)
        self._resuming.shutdown(timeout_s)
        self._results.shutdown(timeout_s)

    def finish_callbacks(self, timeout_s: float | None = None) -> None:
        """Return when all callbacks have returned. The engine must be closed before."""
        self._segments.shutdown(timeout_s)
        if self._callbacks.shutdown(timeout_s):
            self._pool.shutdown(timeout_s)

    def _open_more(self) -> list[Job]:
        """Start waiting recordings up to the limit. Return those for which no thread can start."""
        opened: list[Job] = []
        with self._changed:
            while self._waiting and len(self._open) < self._max_open:
                job = self._waiting.popleft()
                if not job.future.done():
                    self._open.add(job)
                    opened.append(job)
            self._changed.notify_all()
        refused: list[Job] = []
        for job in opened:
            add_internal_callback(job.future, partial(self._when_done, job))
            try:
                self._starting.submit(job.run)
            except RuntimeError:
                refused.append(job)
        return refused

    def _when_done(self, job: Job, _: Future[Any]) -> None:
        with self._changed:
            self._open.discard(job)
        # This may be the engine's thread, which must not read: it would wait for itself.
        for refused in self._open_more():
            if refused.future.set_running_or_notify_cancel():
                refused.future.set_exception(self._refusal())

    def _refusal(self) -> Closed:
        return _closed() if self._is_closed else _no_thread()


def _closed() -> Closed:
    return Closed("this Whisper was closed; make a new one to go on")


def _no_thread() -> Closed:
    return Closed(
        "no thread can be started for this recording: the process is ending, or is at its limit of "
        "threads; wait for all recordings before the main thread ends"
    )
