"""Decides whether an engine is broken, and makes the errors of failed windows.

A broken engine leaves the queue to the others: it would otherwise take every waiting window first,
and fail it. A window without a result gets an error of this package, because it was cancelled or
failed. Knows the rounds of a loop and their outcome, and no engine.
"""

from __future__ import annotations

import threading

from batched_whisper.errors import BatchedWhisperError, EngineError

MAX_FAILED_ROUNDS = 3
"""The number of failed rounds, without an answered window in between, of a broken engine."""


class LoopRoster:
    """The loops that serve one queue. The last one stays, so that every window is answered."""

    def __init__(self, n_loops: int) -> None:
        self._lock = threading.Lock()
        self._n_loops = n_loops

    def leave(self) -> bool:
        """Remove one loop, if others are left. Return whether it was removed."""
        with self._lock:
            if self._n_loops == 1:
                return False
            self._n_loops -= 1
            return True


class EngineHealth:
    """The failures of one loop's engine. Used by the loop's thread only."""

    def __init__(self) -> None:
        self.last_error: BaseException | None = None
        self._n_rounds = 0
        self._failed = False
        self._has_stepped = False  # since a round that failed

    def failed(self, error: BaseException) -> BaseException:
        """Record a failure to encode or to step. Return the error for the affected windows.

        A broken engine that is still in service is the last one, so its error is not specific to
        a window.
        """
        self.last_error = error
        self._failed = True
        is_broken = self._n_rounds >= MAX_FAILED_ROUNDS and not self._has_stepped
        return of_all(error) if is_broken else error

    def stepped(self) -> None:
        """Record a successful step: a failure to encode in this round may be the window's own."""
        self._failed = False
        self._has_stepped = True

    def answered(self) -> None:
        """Record an answered window."""
        self._n_rounds = 0

    def broken_after_round(self) -> bool:
        """Count the round that ends here. Return whether the engine is broken."""
        self._n_rounds += self._failed
        self._has_stepped &= not self._failed
        self._failed = False
        return self._n_rounds >= MAX_FAILED_ROUNDS


def dropped() -> BatchedWhisperError:
    """Return the error of a window whose future was cancelled while it was decoded."""
    return EngineError("dropped, because its caller no longer waits for it")


def failure(error: BaseException) -> BatchedWhisperError:
    """Return an error of this package unchanged; wrap any other in an `EngineError`."""
    if isinstance(error, BatchedWhisperError):
        return error
    wrapped = EngineError(f"the engine failed on this window: {error!r}")
    wrapped.__cause__ = error
    return wrapped


def of_all(error: BaseException) -> BatchedWhisperError:
    """Return the same for the last engine, in which every other window fails too."""
    wrapped = failure(error)
    if isinstance(wrapped, EngineError):
        wrapped.none_left = True
    return wrapped
