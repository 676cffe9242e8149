"""How a loaded model ends: closed by anybody, dropped, or ended or forked with its process.

Whoever closes it, a thread of its own does the work, so that even a callback may close it that
runs on one of the model's threads, and what was accepted is answered all the same. At the end of
the process nobody waits any more, so what was accepted is cancelled. Knows the threads of a model,
not the model.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from batched_whisper.batching.engine_group import EngineGroup
from batched_whisper.concurrency import process_end
from batched_whisper.pipeline.reader_pool import ReaderPool


class Shutdown:
    """The end of one loaded model; its thread is started when it begins.

    Args:
        workers: the threads that read recordings and run code of the user.
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
        """Have it closed; returns at once.

        A finaliser may call it, which runs in a thread that holds any lock: nobody else has this
        object by then, so that the lock is free.

        Returns:
            Whether it was begun; not where no thread can be started, as when the interpreter is
            ending, which then closes it.
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
        """Answer what was accepted, then stop. May be repeated, and always returns when it is done.

        From one of the model's own threads, such as in a callback, it does not wait.
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
        """Cancel what was accepted; returns at once."""
        self._workers.cancel_all()
        self._loops.queue.close(drain=False)

    def finish(self, timeout_s: float) -> None:
        """Return when it is closed, or after so long; starts no thread."""
        if self._thread is None:
            self._work(timeout_s)
        else:
            self._thread.join(timeout_s)

    def after_fork(self) -> None:
        """In a forked process: nothing of it may be touched any more, nor destroyed."""
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
    """Gives how much is left of so many seconds; None for no limit."""
    if timeout_s is None:
        return lambda: None
    deadline = time.monotonic() + timeout_s
    return lambda: max(0.0, deadline - time.monotonic())
