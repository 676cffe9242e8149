"""Several engines on one CPU: the weights once, each engine on its share of the threads.

One step of a decoder is too little work for many processors; two steps at the same time are more.
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
"""Where nobody says how many streams there shall be. Not measured on such machines so far."""


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
    """Engines that share compiled graphs and have the slots of ``max_slots`` among them.

    Each has ``min_slots`` at least, although they then have more together. Raises EngineError.
    """
    n = n_cpu_engines(threads or n_processors(), max_slots, streams)
    chosen = choose_precision(precision, shared_core())
    width = checkpoint.dimensions.n_text_state
    runtime = Runtime(chosen, threads, cache_dir, width=width, streams=n)
    each = max(-(-max_slots // n), min_slots)
    return [OpenVinoEngine(checkpoint, ids, max_slots=each, runtime=runtime) for _ in range(n)]


def n_cpu_engines(threads: int, max_slots: int, wanted: int | None) -> int:
    """As requested for, else one for every 8 threads; each has a thread and a slot at least."""
    n = threads // THREADS_PER_ENGINE if wanted is None else wanted
    return max(1, min(n, threads, max_slots))
