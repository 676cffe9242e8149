"""The language that the windows of one recording share; knows nothing of what is decoded."""

from __future__ import annotations

import threading
from typing import Protocol

from batched_whisper.batching.decode_request import DetectedLanguage


class Detector(Protocol):
    """A window that detects the language."""

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come of it."""


class SharedLanguage:
    """The language of a recording whose windows all have the same one.

    The first window to be decoded detects it, the others wait for it. The windows may be in
    several loops.
    """

    def __init__(self) -> None:
        self.detected: DetectedLanguage | None = None
        self._detector: Detector | None = None
        self._changed = threading.Condition()

    def may_detect(self, window: Detector) -> bool:
        """Whether this window detects it: the first to ask, or the next if that one is over."""
        with self._changed:
            detector = self._detector
            if detector is None or detector.is_over:
                self._detector = detector = window
            return detector is window

    def found(self, language: DetectedLanguage | None) -> None:
        """Set what was detected; None to have it detected anew."""
        with self._changed:
            self.detected = language
            self._changed.notify_all()

    def wait(self, at_most_s: float) -> None:
        """Sleep until it is detected; not for long, since the window that detects may fail."""
        with self._changed:
            if self.detected is None:
                self._changed.wait(at_most_s)
