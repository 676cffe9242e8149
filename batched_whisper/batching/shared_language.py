"""The language that the windows of one recording share."""

from __future__ import annotations

import threading
from typing import Protocol

from batched_whisper.batching.decode_request import DetectedLanguage


class Detector(Protocol):
    """A window that detects the language."""

    @property
    def is_over(self) -> bool:
        """Whether it is done or cancelled."""


class SharedLanguage:
    """The language of a recording whose windows all have the same one.

    The first window to be decoded detects it; the others wait for it. The windows may be in
    several loops.
    """

    def __init__(self) -> None:
        self.detected: DetectedLanguage | None = None
        self._detector: Detector | None = None
        self._changed = threading.Condition()

    def may_detect(self, window: Detector) -> bool:
        """Return whether this window detects it: the first to ask, or the next if that is over."""
        with self._changed:
            detector = self._detector
            if detector is None or detector.is_over:
                self._detector = detector = window
            return detector is window

    def found(self, language: DetectedLanguage | None) -> None:
        """Set the detected language; None to have it detected again."""
        with self._changed:
            self.detected = language
            self._changed.notify_all()

    def wait(self, at_most_s: float) -> None:
        """Sleep until it is detected, for at most this time: the detecting window may fail."""
        with self._changed:
            if self.detected is None:
                self._changed.wait(at_most_s)
