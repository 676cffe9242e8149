"""The threads around the engine's: they read recordings, and tell callers what was found.

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

MAX_WORKERS = 4
"""Threads of each kind: those that begin to read recordings and compute features ahead of the
engine, those that read on, those that tell segments, and those that call callers back."""


class Job(Protocol):
    """A recording that is being read."""

    future: Future[Any]
    """Done when nobody waits for the recording any more."""

    def run(self) -> None:
        """Read on, until enough is read for now; to be called again by `ReaderPool.resume`.

        Never called by two threads at a time, and raises nothing.
        """


class ReaderPool:
    """The threads of one loaded model.

    Args:
        max_open: how many recordings may be open at a time; others wait.
    """

    def __init__(self, max_open: int) -> None:
        n_threads = min(MAX_WORKERS, 2 * (os.cpu_count() or 1))
        self._readers = ThreadPool(n_threads, "whisper-audio")
        self._resumers = ThreadPool(n_threads, "whisper-resumed")
        self._results = ThreadPool(1, "whisper-results")
        self._tellers = ThreadPool(MAX_WORKERS, "whisper-segments")
        self._callers = ThreadPool(MAX_WORKERS, "whisper-callbacks")
        self._max_open = max_open
        self._is_closed = False
        self._open: set[Job] = set()
        self._waiting: deque[Job] = deque()
        # Reentrant: a recording may be given up by the garbage collector, anywhere.
        self._changed = threading.Condition(threading.RLock())

    def start(self, job: Job) -> None:
        """Begin a recording. Raises Closed after `finish_reading` or `cancel_all`."""
        with self._changed:
            if self._is_closed:
                raise _closed()
            self._waiting.append(job)
        self._open_more()

    def resume(self, job: Job) -> None:
        """Let a recording read on. Raises Closed when all recordings are done."""
        _submit(self._resumers, job)

    def process(self, call: Callable[[], object]) -> None:
        """Have a result processed, off the engine's thread; at once if all recordings are done."""
        try:
            self._results.submit(call)
        except RuntimeError:  # it was shut down
            call()

    def serial_executor(self) -> SerialExecutor:
        """Calls one after another, whose callees may take their time."""
        return SerialExecutor(self._tellers)

    def future(self) -> Future[Any]:
        """For a caller, whose callbacks may wait for what other threads here do."""
        return CallbackFuture(SerialExecutor(self._callers))

    def is_own_thread(self) -> bool:
        """Whether the caller is one of these threads, for which it must not wait then."""
        pools = (
            self._readers,
            self._resumers,
            self._results,
            self._tellers,
            self._callers,
        )
        return any(pool.is_own_thread() for pool in pools)

    def cancel_all(self) -> None:
        """Let nobody begin any more, and cancel all recordings; returns at once."""
        with self._changed:
            self._is_closed = True
            jobs = (*self._open, *self._waiting)
        for job in jobs:
            job.future.cancel()

    def finish_reading(self) -> None:
        """Let nobody begin any more, and return when all recordings are done."""
        with self._changed:
            self._is_closed = True
            while self._open or self._waiting:
                self._changed.wait()
        self._readers.shutdown()
        self._resumers.shutdown()
        self._results.shutdown()

    def finish_telling(self) -> None:
        """Return when everything is told; the engine must be done by then."""
        self._tellers.shutdown()
        self._callers.shutdown()

    def _open_more(self) -> None:
        """Begin as many of those who wait as may be open."""
        opened: list[Job] = []
        with self._changed:
            while self._waiting and len(self._open) < self._max_open:
                job = self._waiting.popleft()
                if not job.future.done():
                    self._open.add(job)
                    opened.append(job)
            self._changed.notify_all()
        for job in opened:
            add_internal_callback(job.future, partial(self._when_done, job))
            _submit(self._readers, job)

    def _when_done(self, job: Job, _: Future[Any]) -> None:
        with self._changed:
            self._open.discard(job)
        self._open_more()


def _submit(pool: ThreadPool, job: Job) -> None:
    try:
        pool.submit(job.run)
    except RuntimeError:  # it was shut down
        raise _closed() from None


def _closed() -> Closed:
    return Closed("this Whisper was closed; make a new one to go on")
