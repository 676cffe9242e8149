"""The threads around the engine's: they read recordings, and tell callers what was found.

A recording that is far ahead of the engine would hold its thread for nothing, so recordings read
a little, give their thread back and are resumed; any number of them advance together on a few
threads. Knows jobs by their protocol alone.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Protocol

from batched_whisper.errors import Closed
from batched_whisper.in_turn import InTurn

MAX_WORKERS = 4
"""Threads of each kind: those that begin to read recordings and compute features ahead of the
engine, those that read on, and those that tell segments."""

_PREFIX = "whisper-"


class Job(Protocol):
    """A recording that is being read."""

    future: Future[Any]
    """Done when nobody waits for the recording any more."""

    def run(self) -> None:
        """Read on, until enough is read for now; to be called again by `Workers.resume`.

        Never called by two threads at a time, and raises nothing.
        """


class Workers:
    """The threads of one loaded model.

    Args:
        max_open: how many recordings may be open at a time; others wait.
    """

    def __init__(self, max_open: int) -> None:
        n_threads = min(MAX_WORKERS, 2 * (os.cpu_count() or 1))
        self._readers = ThreadPoolExecutor(n_threads, _PREFIX + "audio")
        self._resumers = ThreadPoolExecutor(n_threads, _PREFIX + "resumed")
        self._tellers = ThreadPoolExecutor(MAX_WORKERS, _PREFIX + "segments")
        self._max_open = max_open
        self._is_closed = False
        self._n_open = 0
        self._waiting: deque[Job] = deque()
        # Reentrant: a recording may be given up by the garbage collector, anywhere.
        self._changed = threading.Condition(threading.RLock())

    def start(self, job: Job) -> None:
        """Begin a recording. Raises Closed after `finish_reading`."""
        with self._changed:
            if self._is_closed:
                raise _closed()
            self._waiting.append(job)
        self._open()

    def resume(self, job: Job) -> None:
        """Let a recording read on. Raises Closed where `finish_reading` did not wait for it."""
        _submit(self._resumers, job)

    def in_turn(self) -> InTurn:
        """Calls one after another, whose callees may take their time."""
        return InTurn(self._tellers)

    def finish_reading(self) -> None:
        """Let nobody begin any more, and return when all recordings are read.

        From one of these threads themselves, such as a callback, it does not wait.
        """
        is_own = threading.current_thread().name.startswith(_PREFIX)
        with self._changed:
            self._is_closed = True
            while not is_own and (self._n_open or self._waiting):
                self._changed.wait()
        self._readers.shutdown(wait=not is_own)
        self._resumers.shutdown(wait=not is_own)

    def finish_telling(self) -> None:
        """The same for what is told; the engine must be done by then."""
        self._tellers.shutdown(wait=not threading.current_thread().name.startswith(_PREFIX))

    def _open(self) -> None:
        """Begin as many of those who wait as may be open."""
        opened: list[Job] = []
        with self._changed, suppress(IndexError):
            while self._n_open < self._max_open:
                job = self._waiting.popleft()
                if not job.future.done():
                    self._n_open += 1
                    opened.append(job)
        for job in opened:
            job.future.add_done_callback(self._when_done)
            _submit(self._readers, job)

    def _when_done(self, _: Future[Any]) -> None:
        with self._changed:
            self._n_open -= 1
        self._open()
        with self._changed:
            self._changed.notify_all()


def _submit(pool: ThreadPoolExecutor, job: Job) -> None:
    try:
        pool.submit(job.run)
    except RuntimeError:  # it was shut down
        raise _closed() from None


def _closed() -> Closed:
    return Closed("this Whisper was closed; make a new one to go on")
