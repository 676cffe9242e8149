"""Freed memory is returned to the system after a burst of windows, but not after every call."""

from __future__ import annotations

import pytest
from tiny_whisper import IDS, Heard, tiny_checkpoint

from batched_whisper.engines.openvino import engine as module
from batched_whisper.engines.openvino import malloc_trim
from batched_whisper.engines.openvino.engine import OpenVinoEngine


def test_release_trims_memory_after_a_burst_of_windows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given_back = list[int]()
    engine: OpenVinoEngine
    monkeypatch.setattr(malloc_trim, "trim", lambda: given_back.append(engine._n_encoded))
    monkeypatch.setattr(module, "WINDOWS_PER_TRIM", 3)
    engine = OpenVinoEngine(tiny_checkpoint(), IDS, max_slots=4, precision="float32", threads=1)
    for slot in range(4):
        engine.encode([Heard(slot, 20).row(slot)])
    engine.release([0, 1, 2])
    assert not given_back  # one is left
    engine.release([3])
    assert len(given_back) == 1
    engine.encode([Heard(0, 20).row(0)])
    engine.release([0])
    assert len(given_back) == 1  # a lone call is no burst
    engine.close()


def test_trim_can_be_called_at_any_time() -> None:
    malloc_trim.trim()
