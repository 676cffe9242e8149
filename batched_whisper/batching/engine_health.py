"""Which engines still serve a queue, and why a window has no answer.

An engine that only fails leaves the queue to the others: it would otherwise be the first to take
every waiting window, and fail it. A window without an answer gets an error of ours: it was
cancelled, or something failed on it. Knows a loop's rounds and their outcome, and no engine.
"""

from __future__ import annotations

import threading

from batched_whisper.errors import BatchedWhisperError, EngineError

MAX_FAILED_ROUNDS = 3
"""After so many failed rounds without an answer between them an engine counts as broken."""


class LoopRoster:
    """The loops that serve one queue; the last one never leaves, because somebody has to answer."""

    def __init__(self, n_loops: int) -> None:
        self._lock = threading.Lock()
        self._n_loops = n_loops

    def leave(self) -> bool:
        """Take one loop out of service, if others are left; whether that was done."""
        with self._lock:
            if self._n_loops == 1:
                return False
            self._n_loops -= 1
            return True


class EngineHealth:
    """Whether an engine can still do anything; one loop's, and touched by its thread alone."""

    def __init__(self) -> None:
        self.last_error: BaseException | None = None
        self._n_rounds = 0
        self._failed = False
        self._has_stepped = False  # since a round that failed

    def failed(self, error: BaseException) -> BaseException:
        """The engine could not encode a window, or not step; the error as its windows get it.

        Who is broken and yet was not let go is the last one, and what fails is no window's own.
        """
        self.last_error = error
        self._failed = True
        is_broken = self._n_rounds >= MAX_FAILED_ROUNDS and not self._has_stepped
        return of_all(error) if is_broken else error

    def stepped(self) -> None:
        """It did step after all: what it could not encode in this round may be that window's."""
        self._failed = False
        self._has_stepped = True

    def answered(self) -> None:
        """A window went through it from beginning to end."""
        self._n_rounds = 0

    def broken_after_round(self) -> bool:
        """Count the round that ends here, and tell whether the engine is broken."""
        self._n_rounds += self._failed
        self._has_stepped &= not self._failed
        self._failed = False
        return self._n_rounds >= MAX_FAILED_ROUNDS


def dropped() -> BatchedWhisperError:
    """Why a window has no answer whose future was cancelled while it was decoded."""
    return EngineError("dropped, because its caller no longer waits for it")


def failure(error: BaseException) -> BatchedWhisperError:
    """Errors of ours as they are; others are the cause of one of ours."""
    if isinstance(error, BatchedWhisperError):
        return error
    wrapped = EngineError(f"the engine failed on this window: {error!r}")
    wrapped.__cause__ = error
    return wrapped


def of_all(error: BaseException) -> BatchedWhisperError:
    """The same, of the last engine that there is, where every other window fails in it as well."""
    told = failure(error)
    if isinstance(told, EngineError):
        told.none_left = True
    return told
