"""Fixtures of the tests of threads."""

from __future__ import annotations

import threading

import pytest


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate the end of the interpreter, or the limit of threads: none can be started."""

    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
