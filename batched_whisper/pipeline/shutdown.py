"""How a loaded model ends: closed by anybody, dropped, left by a process, or left behind by one.

Whoever closes it, a thread of its own does the work, so that even a callback may close it that
runs on one of the model's threads, and what was accepted is answered all the same. At the end of
the process nobody waits any more, so what was accepted is given up. In a process that was forked
no thread is left that could do anything. Knows the threads of a model, not the model.
"""

from __future__ import annotations

import atexit
import os
import threading
from queue import SimpleQueue

from batched_whisper.batching.engine_group import EngineGroup
from batched_whisper.pipeline.reader_pool import ReaderPool

EXIT_PATIENCE_S = 30.0
"""How long the end of the process waits for what nobody can interrupt, such as an engine's step."""


class Shutdown:
    """The end of one loaded model; its thread is there from the beginning.

    Args:
        workers: the threads that read recordings and tell callers.
        loops: the threads that decode.
    """

    def __init__(self, workers: ReaderPool, loops: EngineGroup) -> None:
        self._workers = workers
        self._loops = loops
        self._asked: SimpleQueue[None] = SimpleQueue()
        self._is_left_behind = False
        self._thread = threading.Thread(target=self._work, name="whisper-closing", daemon=True)
        _alive.add(self)
        self._thread.start()

    def ask(self) -> None:
        """Have it closed; returns at once.

        A finaliser may call it, which runs in a thread that holds any lock.
        """
        self._asked.put(None)

    def close(self) -> None:
        """Answer what was accepted, then stop. May be repeated, and always returns when it is done.

        From one of the model's own threads, such as in a callback, it does not wait.
        """
        if self._is_left_behind:
            return
        self.ask()
        if not self._is_own_thread():
            self._thread.join()

    def cancel_all(self) -> None:
        """Cancel what was accepted, and have it closed; returns at once."""
        self._workers.cancel_all()
        self._loops.queue.close(drain=False)
        self.ask()

    def wait(self, timeout_s: float) -> None:
        """Return when it is closed, or when that takes too long."""
        self._thread.join(timeout_s)

    def leave_behind(self) -> None:
        """In a process that was forked: nothing of it may be touched any more."""
        self._is_left_behind = True

    def _is_own_thread(self) -> bool:
        is_this = threading.current_thread() is self._thread
        return is_this or self._workers.is_own_thread() or self._loops.is_own_thread()

    def _work(self) -> None:
        self._asked.get()
        try:
            self._workers.finish_reading()
            self._loops.close()
            self._workers.finish_telling()
        finally:
            _alive.discard(self)


_alive: set[Shutdown] = set()
"""Of the models that have threads."""


def keep_for_ever(what: object) -> None:
    """In a process that was forked: a graph without its threads cannot even be taken down.

    Not by the interpreter's end either, which empties every list that this could be put into.
    """
    import ctypes

    ctypes.pythonapi.Py_IncRef(ctypes.py_object(what))


def _leave_all_behind() -> None:
    for closing in _alive:
        closing.leave_behind()
        keep_for_ever(closing)
    _alive.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_all_behind)


@atexit.register
def _give_up_all() -> None:
    """When all threads have ended that the process waits for.

    A thread that is inside of an engine when the interpreter is gone would bring the process down.
    """
    closings = tuple(_alive)
    for closing in closings:
        closing.cancel_all()
    for closing in closings:
        closing.wait(EXIT_PATIENCE_S)
