"""Ends objects that have threads when their process ends, and marks them in a forked process.

At the end of the process, after its last non-daemon thread, all of them are cancelled and their
threads are joined: a thread in native code would crash the process once the interpreter is gone.
In a forked process none of their threads exists, so no code may wait for them. Knows nothing of
the work of the threads.
"""

from __future__ import annotations

import atexit
import os
import time
import weakref
from typing import Protocol

EXIT_PATIENCE_S = 30.0
"""How long the end of the process waits for calls that cannot be interrupted, such as an engine's
step or the user's callback: seconds, for each of the two groups of `track`."""


class Forkable(Protocol):
    """An object that must know when its process is a fork of another."""

    def after_fork(self) -> None:
        """Reset in the forked process: the threads are gone, and a lock may be held forever."""


class ThreadOwner(Forkable, Protocol):
    """An object that has threads."""

    def cancel_all(self) -> None:
        """Cancel all accepted work and start to end; return immediately."""

    def finish(self, timeout_s: float) -> None:
        """Return when the threads have ended, or after ``timeout_s``. Raise nothing.

        It cannot start a thread: the interpreter refuses it by then.
        """


_owners: dict[ThreadOwner, bool] = {}
"""The tracked objects in order; True for those that end before the others."""
_watched: weakref.WeakSet[Forkable] = weakref.WeakSet()


def track(owner: ThreadOwner, *, ends_first: bool = False) -> None:
    """Keep an object alive, and end it at the end of the process, until `untrack`.

    Args:
        owner: the object that has threads.
        ends_first: whether it runs the user's code, which may use any of the others.
    """
    _owners[owner] = ends_first


def untrack(owner: ThreadOwner) -> None:
    """Forget an object whose threads have ended."""
    _owners.pop(owner, None)


def watch_forks(obj: Forkable) -> None:
    """Call ``after_fork`` in a forked process, while other code keeps the object alive."""
    _watched.add(obj)


def leak(obj: object) -> None:
    """Never destroy an object: one with native threads cannot be destroyed in a forked process.

    A reference in a list would not do, because the interpreter empties all lists at its end.
    """
    import ctypes

    ctypes.pythonapi.Py_IncRef(ctypes.py_object(obj))


def _after_fork() -> None:
    for obj in (*_owners, *_watched):
        obj.after_fork()
    _owners.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@atexit.register
def _end_all() -> None:
    owners = tuple(_owners.items())
    _end([owner for owner, ends_first in owners if ends_first])
    _end([owner for owner, ends_first in owners if not ends_first])


def _end(owners: list[ThreadOwner]) -> None:
    for owner in owners:
        owner.cancel_all()
    deadline = time.monotonic() + EXIT_PATIENCE_S
    for owner in owners:
        owner.finish(max(0.0, deadline - time.monotonic()))
