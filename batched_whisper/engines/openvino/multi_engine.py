"""Several engines on one CPU, which share the weights and divide the threads.

One decoder step is too little work for many processors; concurrent steps use more of them.
"""

from __future__ import annotations

from pathlib import Path

from batched_whisper.decoding.rules import TokenIds
from batched_whisper.engines.openvino.engine import OpenVinoEngine
from batched_whisper.engines.openvino.runtime import (
    Runtime,
    choose_precision,
    n_processors,
    shared_core,
)
from batched_whisper.models.checkpoint import Checkpoint

THREADS_PER_ENGINE = 8
"""The threads per engine if ``streams`` is not set. Not yet measured on machines with many
processors."""


def make_cpu_engines(
    checkpoint: Checkpoint,
    ids: TokenIds,
    *,
    max_slots: int,
    min_slots: int = 1,
    precision: str = "auto",
    threads: int | None = None,
    streams: int | None = None,
    cache_dir: Path | None = None,
) -> list[OpenVinoEngine]:
    """Make engines that share compiled graphs and together have ``max_slots`` slots.

    Each has at least ``min_slots``, even if the sum then exceeds ``max_slots``. Raises EngineError.
    """
    n = n_cpu_engines(threads or n_processors(), max_slots, streams)
    chosen = choose_precision(precision, shared_core())
    width = checkpoint.dimensions.n_text_state
    runtime = Runtime(chosen, threads, cache_dir, width=width, streams=n)
    each = max(-(-max_slots // n), min_slots)
    return [OpenVinoEngine(checkpoint, ids, max_slots=each, runtime=runtime) for _ in range(n)]


def n_cpu_engines(threads: int, max_slots: int, wanted: int | None) -> int:
    """Return ``wanted`` or one engine per 8 threads, so that each has a thread and a slot."""
    n = threads // THREADS_PER_ENGINE if wanted is None else wanted
    return max(1, min(n, threads, max_slots))
