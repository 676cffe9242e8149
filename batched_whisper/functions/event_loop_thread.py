"""An event loop in its own thread, for asynchronous functions that are called from threads.

Runs any awaitable on one loop, from the first call to `EventLoopThread.stop`, so that sessions and
connections which belong to a loop stay usable from one call to the next.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Outcome:
    """The outcome of an awaitable. An exception is stored as a value, because a SystemExit that
    leaves a task would stop the loop before the caller gets it."""

    value: Any = None
    error: BaseException | None = None


async def _outcome_of(awaitable: Awaitable[Any]) -> _Outcome:
    try:
        return _Outcome(value=await awaitable)
    except BaseException as error:
        return _Outcome(error=error)


class EventLoopThread:
    """An event loop in a daemon thread, which starts at the first call.

    Args:
        name: of the thread, for debuggers.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stopping = False

    def run(self, awaitable: Awaitable[Any]) -> Any:
        """Await on the loop and return the result; call from any other thread.

        Raises:
            BaseException: raised by the awaitable, unchanged.
        """
        loop = self._started()
        if loop is None:
            outcome = asyncio.run(_outcome_of(awaitable))
        else:
            outcome = asyncio.run_coroutine_threadsafe(_outcome_of(awaitable), loop).result()
        if outcome.error is not None:
            raise outcome.error
        return outcome.value

    def is_current(self) -> bool:
        """Whether the caller is in the thread of the loop."""
        return threading.current_thread() is self._thread

    def stop(self) -> None:
        """Cancel all tasks of the loop and stop it; nothing can be run afterwards."""
        with self._lock:
            self._stopping = True
            loop, thread = self._loop, self._thread
        if loop is None or thread is None or loop.is_closed():
            return
        loop.call_soon_threadsafe(loop.stop)
        if not self.is_current():
            thread.join()

    def _started(self) -> asyncio.AbstractEventLoop | None:
        """Return the running loop; None if no thread can be started, as at interpreter exit."""
        with self._lock:
            if self._loop is None:
                loop = asyncio.new_event_loop()
                thread = threading.Thread(
                    target=self._serve, args=(loop,), name=self._name, daemon=True
                )
                try:
                    thread.start()
                except RuntimeError:
                    loop.close()
                    return None
                self._loop, self._thread = loop, thread
            return self._loop

    def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        while not self._stopping:
            try:
                loop.run_forever()
            except BaseException:  # a background task called sys.exit: the others continue
                log.exception("a task on the event loop %s tried to stop it", self._name)
        try:
            _finish(loop)
        finally:
            asyncio.set_event_loop(None)
            loop.close()


def _finish(loop: asyncio.AbstractEventLoop) -> None:
    """End remaining tasks and asynchronous generators, like `asyncio.run`."""
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.wait(tasks))
    loop.run_until_complete(loop.shutdown_asyncgens())
    with contextlib.suppress(RuntimeError):  # needs a thread, and the interpreter may be exiting
        loop.run_until_complete(loop.shutdown_default_executor())
