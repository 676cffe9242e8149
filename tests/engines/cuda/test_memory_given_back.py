"""The GPU engine's memory is released as soon as it is unused, without the garbage collector.

The collector may run late, and until then the next engine, or the next attempt with fewer slots,
could not allocate that memory.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from tiny_whisper import ANYTHING, IDS, Heard, tiny_checkpoint  # noqa: E402

from batched_whisper.engines.cuda import engine as module  # noqa: E402
from batched_whisper.engines.cuda.engine import CudaEngine  # noqa: E402
from batched_whisper.engines.cuda.kv_cache import KVCache, allocate_kv_cache  # noqa: E402
from batched_whisper.engines.cuda.runners.encoder_runner import EncoderRunner  # noqa: E402
from batched_whisper.engines.interface import StepRow  # noqa: E402


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[weakref.ref[Any]]:
    """Return references to all caches ever allocated."""
    found = list[weakref.ref[Any]]()

    def take(*given: Any) -> KVCache:
        cache = allocate_kv_cache(*given)
        found.append(weakref.ref(cache.cross_kv))
        return cache

    monkeypatch.setattr(module, "allocate_kv_cache", take)
    return found


def alive(taken: list[weakref.ref[Any]]) -> list[int]:
    """Return the numbers of slots of the caches that still exist."""
    return [len(cross[0, 0]) - 1 for cross in (each() for each in taken) if cross is not None]


def test_close_releases_all_memory(taken: list[weakref.ref[Any]]) -> None:
    engine = CudaEngine(tiny_checkpoint(), IDS, max_slots=2, device="cpu")
    engine.encode([Heard(0, 20).row(0)])
    engine.step([StepRow(0, (5,), 0, ANYTHING)])
    weights = weakref.ref(engine._decoder._tokens)
    assert (alive(taken), weights() is None) == ([2], False)
    engine.close()
    assert (alive(taken), weights() is None) == ([], True)


def test_allocate_slots_releases_a_failed_attempt(
    taken: list[weakref.ref[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recording is the last part of an attempt, and needs the most memory at once."""
    at_each_try = list[list[int]]()

    def run_out(self: EncoderRunner, places: Any) -> None:
        at_each_try.append(alive(taken))
        if len(at_each_try) < 3:
            raise torch.OutOfMemoryError("CUDA out of memory")

    init = EncoderRunner.__init__

    def recording(self: EncoderRunner, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        self.record([])

    monkeypatch.setattr(EncoderRunner, "record", run_out)
    monkeypatch.setattr(EncoderRunner, "__init__", recording)
    engine = CudaEngine(tiny_checkpoint(), IDS, max_slots=12, device="cpu")
    assert at_each_try == [[12], [6], [3]]
    assert engine.info.max_slots == 3
