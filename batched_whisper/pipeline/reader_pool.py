"""The threads around the engine's: they read recordings, and run code of the user.

A recording that is far ahead of the engine would hold its thread for nothing, so recordings read
a little, give their thread back and are resumed; any number of them advance together on a few
threads. Knows jobs by their protocol alone.
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
"""What the names of the threads begin with."""

MAX_WORKERS = 4
"""Calls of each kind at a time: recordings that begin, recordings that are resumed, ``on_segment``
and callbacks of futures. Each kind has its own limit, since one may wait for another: recordings
that begin wait for the engine, and callbacks for recordings that they submitted themselves."""


class Job(Protocol):
    """A recording that is being read."""

    future: Future[Any]
    """Done when nobody waits for the recording any more."""

    def run(self) -> None:
        """Read on, until enough is read for now; to be called again by `ReaderPool.resume`.

        Never called by two threads at a time, and raises nothing.
        """


class ReaderPool:
    """The threads of one loaded model but the engine's; started as they are needed.

    Args:
        max_open: how many recordings may be open at a time; others wait.
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
        # Reentrant: a recording may be cancelled by the garbage collector, anywhere.
        self._changed = threading.Condition(threading.RLock())

    def start(self, job: Job) -> None:
        """Begin a recording. Where no thread can be started, the caller reads it.

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
        """Let a recording read on.

        Raises:
            Closed: all recordings are done, or no thread can be started.
        """
        try:
            self._resuming.submit(job.run)
        except RuntimeError:
            raise self._refusal() from None

    def process(self, call: Callable[[], object]) -> None:
        """Have a result processed, off the engine's thread; at once if all recordings are done."""
        try:
            self._results.submit(call)
        except RuntimeError:  # it was shut down
            call()

    def serial_executor(self) -> SerialExecutor:
        """For calls one after another that may block, such as a recording's ``on_segment``."""
        return SerialExecutor(self._segments)

    def callback_future(self) -> Future[Any]:
        """For a caller, whose callbacks may wait for what other threads here do."""
        return CallbackFuture(SerialExecutor(self._callbacks))

    def is_own_thread(self) -> bool:
        """Whether the caller is one of these threads, for which it must not wait then."""
        return self._pool.is_own_thread()

    def cancel_all(self) -> None:
        """Accept nothing more, and cancel all recordings; returns at once."""
        with self._changed:
            self._is_closed = True
            jobs = (*self._open, *self._waiting)
        for job in jobs:
            job.future.cancel()

    def finish_reading(self, timeout_s: float | None = None) -> None:
        """Accept nothing more, and return when all recordings are done, or after so long."""
        with self._changed:
            self._is_closed = True
            self._changed.wait_for(lambda: not self._open and not self._waiting, timeout_s)
        self._starting.shutdown(timeout_s)
        self._resuming.shutdown(timeout_s)
        self._results.shutdown(timeout_s)

    def finish_callbacks(self, timeout_s: float | None = None) -> None:
        """Return when all callbacks were called; the engine must be done by then."""
        self._segments.shutdown(timeout_s)
        if self._callbacks.shutdown(timeout_s):
            self._pool.shutdown(timeout_s)

    def _open_more(self) -> list[Job]:
        """Begin as many of those that wait as may be open; returns those without a thread."""
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
        "no thread can be started for this recording: the process is ending, or has as many as it "
        "may have; wait for all recordings before the main thread ends"
    )
