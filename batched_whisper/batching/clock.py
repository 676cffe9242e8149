"""Tells the time, and waits on a condition until a given time.

All waiting of the batching goes through a `Clock`, so that its laws can be tested on a
`ManualClock` in microseconds, without sleeping.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Protocol

LONGEST_WAIT_S = threading.TIMEOUT_MAX


class Clock(Protocol):
    """Tells the time and waits. Its zero is arbitrary: only differences have a meaning."""

    def now_s(self) -> float:
        """Return the time in seconds; it never decreases."""

    def wait(self, condition: threading.Condition, until_s: float | None) -> None:
        """Wait until the condition is notified or the time has come; the caller holds its lock.

        May return early, so callers must check again what they waited for.

        Args:
            condition: what the thread waits on.
            until_s: when to return at the latest; None waits for a notification only.
        """


class MonotonicClock:
    """The real time: `time.monotonic`."""

    def now_s(self) -> float:
        """Return the seconds since an arbitrary time."""
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
    """A clock for tests: time passes only by `advance`.

    A thread that waits on it sleeps until it is notified or `advance` reaches its time.
    """

    def __init__(self, now_s: float = 0.0) -> None:
        self._now_s = now_s
        self._sleepers: list[_Sleeper] = []
        self._changed = threading.Condition()

    def now_s(self) -> float:
        """Return the time that the test has set, in seconds."""
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
        """Let time pass, and wake all waiting threads so that they check it."""
        with self._changed:
            self._now_s += by_s
            sleepers = tuple(self._sleepers)
        for sleeper in sleepers:
            # Taken after our own lock is released: a sleeper takes the two in the other order.
            with sleeper.condition:
                sleeper.condition.notify_all()

    def await_sleeper(self, until_s: float | None, timeout_s: float = 60.0) -> None:
        """Block until a thread sleeps until exactly that time.

        Raises:
            TimeoutError: no thread did within ``timeout_s`` of real time.
        """

        def has_sleeper() -> bool:
            return any(sleeper.until_s == until_s for sleeper in self._sleepers)

        with self._changed:
            if not self._changed.wait_for(has_sleeper, timeout_s):
                asleep = [sleeper.until_s for sleeper in self._sleepers]
                raise TimeoutError(f"no thread sleeps until {until_s}; asleep until: {asleep}")
