"""Laws of the pool: paused jobs hold no thread, a bounded number is open, all threads end."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any

import pytest
from scripted_speech import SOON_S

from batched_whisper.errors import Closed
from batched_whisper.pipeline.reader_pool import MAX_WORKERS, ReaderPool


class Job:
    """Runs a few times; then its future is done. Resumed from elsewhere, or by itself."""

    def __init__(self, workers: ReaderPool, n_runs: int, *, by_itself: bool) -> None:
        self.future: Future[Any] = Future()
        self.ran = threading.Semaphore(0)
        self._workers, self._n_left, self._by_itself = workers, n_runs, by_itself

    def run(self) -> None:
        self._n_left -= 1
        if self._n_left == 0:
            self.future.set_result(None)
        elif self._by_itself:
            self._workers.resume(self)
        self.ran.release()


def test_many_more_recordings_than_threads_are_open_at_a_time() -> None:
    workers = ReaderPool(max_open=50)
    jobs = [Job(workers, 2, by_itself=False) for _ in range(10 * MAX_WORKERS)]
    for job in jobs:
        workers.start(job)
    for job in jobs:  # each has begun, though none has ended
        assert job.ran.acquire(timeout=SOON_S)
    for job in jobs:
        workers.resume(job)
    workers.finish_reading()
    assert all(job.future.done() for job in jobs)


def test_no_more_are_open_than_may_be_and_who_is_done_lets_the_next_one_in() -> None:
    workers = ReaderPool(max_open=3)
    jobs = [Job(workers, 2, by_itself=False) for _ in range(5)]
    for job in jobs:
        workers.start(job)
    for job in jobs[:3]:
        assert job.ran.acquire(timeout=SOON_S)
    assert jobs[4].future.cancel()  # it never begins
    workers.resume(jobs[0])
    assert jobs[3].ran.acquire(timeout=SOON_S)
    for job in jobs[1:4]:
        workers.resume(job)
    workers.finish_reading()
    assert not jobs[4].ran.acquire(blocking=False)


def test_accepted_jobs_are_read_to_their_end_and_none_is_accepted_after() -> None:
    workers = ReaderPool(max_open=2)
    jobs = [Job(workers, 20, by_itself=True) for _ in range(7)]
    for job in jobs:
        workers.start(job)
    workers.finish_reading()
    assert all(job.future.done() for job in jobs)
    with pytest.raises(Closed):
        workers.start(Job(workers, 1, by_itself=True))


def test_who_are_its_own_threads_is_not_a_matter_of_their_names() -> None:
    workers = ReaderPool(max_open=1)
    told: SimpleQueue[bool] = SimpleQueue()
    workers.serial_executor().submit(lambda: told.put(workers.is_own_thread()))
    assert told.get(timeout=SOON_S)
    for own in threading.enumerate():
        if own.name.startswith("whisper-"):
            ask = threading.Thread(target=lambda: told.put(workers.is_own_thread()), name=own.name)
            ask.start()
            assert not told.get(timeout=SOON_S)


def test_cancel_all_cancels_open_and_waiting_jobs_and_starts_none() -> None:
    workers = ReaderPool(max_open=2)
    jobs = [Job(workers, 2, by_itself=False) for _ in range(5)]
    for job in jobs:
        workers.start(job)
    workers.cancel_all()
    workers.finish_reading()
    assert all(job.future.cancelled() for job in jobs)
    with pytest.raises(Closed):
        workers.start(Job(workers, 1, by_itself=True))


def test_where_no_thread_can_be_started_who_brings_a_recording_reads_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    workers = ReaderPool(max_open=1)
    short, long = Job(workers, 1, by_itself=False), Job(workers, 2, by_itself=False)
    behind = Job(workers, 1, by_itself=False)
    workers.start(short)
    assert short.future.done()
    workers.start(long)
    workers.start(behind)  # it waits for the other one
    with pytest.raises(Closed, match="no thread can be started"):
        workers.resume(long)
    long.future.cancel()
    with pytest.raises(Closed, match="no thread can be started"):
        behind.future.result(SOON_S)
    workers.finish_reading()
    workers.finish_callbacks()
