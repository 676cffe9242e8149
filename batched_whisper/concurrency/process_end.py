"""What happens to objects that have threads when their process ends, or is forked.

At the end of the process, after its last thread that is no daemon, all of them are told to give
up, and waited for: a thread that is inside of native code when the interpreter is gone would crash
the process. In a forked process none of their threads exists, so nothing may wait for them. Knows
nothing of what the threads do.
"""

from __future__ import annotations

import atexit
import os
import time
import weakref
from typing import Protocol

EXIT_PATIENCE_S = 30.0
"""How long the end of the process waits for what cannot be interrupted, such as an engine's step
or a callback of the user: seconds, for each of the two groups of `track`."""


class Forkable(Protocol):
    """Something that must know when its process is a fork of another."""

    def after_fork(self) -> None:
        """In the forked process: the threads are gone, and a lock may be held for ever."""


class ThreadOwner(Forkable, Protocol):
    """Something that has threads."""

    def cancel_all(self) -> None:
        """Give up what was accepted and begin to end; returns at once."""

    def finish(self, timeout_s: float) -> None:
        """Return when the threads have ended, or after so long. Raises nothing.

        It can start no thread: the interpreter refuses it by then.
        """


_owners: dict[ThreadOwner, bool] = {}
"""In the order in which they were tracked; True for those that end before the others."""
_watched: weakref.WeakSet[Forkable] = weakref.WeakSet()


def track(owner: ThreadOwner, *, ends_first: bool = False) -> None:
    """Keep something alive, and tell it of the end of the process, until `untrack`.

    Args:
        owner: has threads.
        ends_first: whether it runs code of the user, which may use any of the others.
    """
    _owners[owner] = ends_first


def untrack(owner: ThreadOwner) -> None:
    """It has no threads any more."""
    _owners.pop(owner, None)


def watch_forks(obj: Forkable) -> None:
    """Tell something of a fork for as long as somebody else keeps it alive."""
    _watched.add(obj)


def leak(obj: object) -> None:
    """Never destroy it, as what has native threads cannot be in a forked process.

    Not at the interpreter's end either, which empties every list that this could be put into.
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
