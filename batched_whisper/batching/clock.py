"""What time it is, and waiting for something to happen by a given time.

Whatever waits in this package waits through a `Clock`, so that its laws can be tested on a
`ManualClock` in microseconds, with no sleeping. It does not know who waits, or for what.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Protocol

LONGEST_WAIT_S = threading.TIMEOUT_MAX


class Clock(Protocol):
    """Gives the time and waits. Its zero is arbitrary: only differences mean something."""

    def now_s(self) -> float:
        """The time in seconds; it never goes back."""

    def wait(self, condition: threading.Condition, until_s: float | None) -> None:
        """Release the condition, whose lock the caller holds, until it is notified or it is late.

        May return early, so callers look again at what they waited for.

        Args:
            condition: what the thread waits on.
            until_s: when to return at the latest; None waits for a notification only.
        """


class MonotonicClock:
    """The real one: `time.monotonic`."""

    def now_s(self) -> float:
        """Seconds since some moment before this process began."""
        return time.monotonic()

    def wait(self, condition: threading.Condition, until_s: float | None) -> None:
        """Wait on the condition until it is notified or the time has come."""
        if until_s is None:
            condition.wait()
            return
        left_s = until_s - self.now_s()
        if left_s > 0:
            condition.wait(min(left_s, LONGEST_WAIT_S))


@dataclass(eq=False)
class _Sleeper:
    condition: threading.Condition
    until_s: float | None


class ManualClock:
    """A clock for tests: time passes only when the test says so.

    A thread that waits on it sleeps until it is notified or `advance` reaches its time.
    """

    def __init__(self, now_s: float = 0.0) -> None:
        self._now_s = now_s
        self._sleepers: list[_Sleeper] = []
        self._changed = threading.Condition()

    def now_s(self) -> float:
        """The time that the test has set, in seconds."""
        with self._changed:
            return self._now_s

    def wait(self, condition: threading.Condition, until_s: float | None) -> None:
        """Sleep until the condition is notified or the test advances to that time."""
        sleeper = _Sleeper(condition, until_s)
        with self._changed:
            if until_s is not None and until_s <= self._now_s:
                return
            self._sleepers.append(sleeper)
            self._changed.notify_all()
        try:
            condition.wait()
        finally:
            with self._changed:
                self._sleepers.remove(sleeper)

    def advance(self, by_s: float) -> None:
        """Let time pass, and wake everybody so that they look at it."""
        with self._changed:
            self._now_s += by_s
            sleepers = tuple(self._sleepers)
        for sleeper in sleepers:
            # Taken after our own lock is released: a sleeper holds them the other way round.
            with sleeper.condition:
                sleeper.condition.notify_all()

    def await_sleeper(self, until_s: float | None, timeout_s: float = 60.0) -> None:
        """Block, for real, until some thread sleeps until exactly that time.

        Raises:
            TimeoutError: nobody did within ``timeout_s``, which is real time.
        """

        def somebody_does() -> bool:
            return any(sleeper.until_s == until_s for sleeper in self._sleepers)

        with self._changed:
            if not self._changed.wait_for(somebody_does, timeout_s):
                asleep = [sleeper.until_s for sleeper in self._sleepers]
                raise TimeoutError(f"nobody sleeps until {until_s}; asleep until: {asleep}")
