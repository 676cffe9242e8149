"""An engine on random weights of a given shape, and windows that go through the real loop.

The text of a window is what the engine chooses; when it ends is told by the mix.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from statistics import median
from typing import Any

import numpy as np
import torch

from batched_whisper.batching.loop import EngineLoop
from batched_whisper.batching.meters import LoopStats
from batched_whisper.batching.sequence import DecodedTokens, WindowTask
from batched_whisper.decoding.quality import Attempt
from batched_whisper.decoding.rules import Rules, TokenIds
from batched_whisper.engines.cuda.engine import CudaEngine
from batched_whisper.engines.cuda.tables import slot_bytes
from batched_whisper.models.checkpoint import Checkpoint
from batched_whisper.models.dimensions import SHAPES, Dimensions
from batched_whisper.types import Features
from benchmarks.gpu.mix import WindowSize

QUICK = Dimensions(16, 60, 64, 2, 2, 2000, 448, 64, 2, 2)
"""A shape for trying the program itself on a processor."""
PROMPT = 3
"""Tokens after the start: language, task, no timestamps."""
N_NOISES = 8


def shape_of(name: str) -> Dimensions:
    """The sizes of a short name."""
    return QUICK if name == "quick" else SHAPES[name]


def ids_of(sizes: Dimensions) -> TokenIds:
    """The special tokens of large-v3, counted from the end of its vocabulary."""
    begin = sizes.n_vocab - 1501
    return TokenIds(begin - 108, begin, sizes.n_vocab, no_speech=begin - 2)


@dataclass(frozen=True)
class Rig:
    """What all parts of a run share.

    ``device`` is PyTorch's name; ``fitted`` and not-fitted windows come from the same noise.
    """

    checkpoint: Checkpoint
    device: str
    precision: str
    max_slots: int
    memory_fraction: float
    noises: tuple[Features, ...]

    @property
    def sizes(self) -> Dimensions:
        """The model's."""
        return self.checkpoint.dimensions

    @contextmanager
    def engine(self, max_slots: int | None = None, precision: str | None = None) -> Iterator[Any]:
        """A started engine, whose memory is free again afterwards."""
        engine = CudaEngine(
            self.checkpoint,
            ids_of(self.sizes),
            max_slots=max_slots or self.max_slots,
            precision=precision or self.precision,
            device=self.device,
            memory_fraction=self.memory_fraction,
        )
        try:
            yield engine
        finally:
            engine.close()
            del engine
            gc.collect()
            if self.device != "cpu":
                torch.cuda.empty_cache()

    def features(self, i: int, context: int) -> Features:
        """Noise, in place of a spectrogram."""
        return self.noises[i % len(self.noises)][:, : 2 * context]

    def task(self, i: int, size: WindowSize, *, fitted: bool) -> WindowTask:
        """A window that says just so many tokens."""
        ids, context = ids_of(self.sizes), size.context(self.sizes.n_audio_ctx, fitted=fitted)
        prompt = tuple(range(ids.eot + 2, ids.eot + 2 + PROMPT))
        return WindowTask(
            features=lambda positions: self.features(i, positions),
            sot=ids.eot + 1,
            after_sot=lambda language: prompt,
            rules=rules_of(ids),
            max_tokens=size.n_tokens,
            first=Attempt(context),
        )

    def sync(self) -> None:
        """Wait for the device."""
        if self.device != "cpu":
            torch.cuda.synchronize()

    def seconds(self, work: Callable[[], object], n: int = 5) -> float:
        """Median time of some runs, after one that does not count."""
        work()
        self.sync()
        found = []
        for _ in range(n):
            began_s = time.perf_counter()
            work()
            self.sync()
            found.append(time.perf_counter() - began_s)
        return median(found)


def make_noises(sizes: Dimensions, seed: int = 0) -> tuple[Features, ...]:
    """Some windows of noise in the range of a spectrogram."""
    random = np.random.default_rng(seed)
    shape = (sizes.n_mels, 2 * sizes.n_audio_ctx)
    return tuple(
        (0.4 * random.standard_normal(shape, dtype=np.float32)).clip(-1, 1) for _ in range(N_NOISES)
    )


@cache
def rules_of(ids: TokenIds) -> Rules:
    """Text without end; one object for all windows, as a model has it."""
    return Rules(
        ids,
        suppress=frozenset(range(ids.eot, ids.timestamp_begin)),
        suppress_begin=frozenset(),
        timestamps=False,
    )


class _Kept:
    """An engine that its loop does not close."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def close(self) -> None:
        """Stay open."""


@dataclass(frozen=True)
class Run:
    """Windows that went through the loop."""

    wall_s: float
    stats: LoopStats
    decoded: tuple[DecodedTokens, ...]


def run_windows(
    rig: Rig, engine: Any, windows: Sequence[WindowSize], *, fitted: bool, batch: int | None = None
) -> Run:
    """All of them, as fast as they go; the engine stays open."""
    loop = EngineLoop(_Kept(engine), max_batch_size=batch or engine.info.max_slots)
    began_s = time.perf_counter()
    futures = [loop.submit(rig.task(i, size, fitted=fitted)) for i, size in enumerate(windows)]
    decoded = tuple(future.result() for future in futures)
    wall_s = time.perf_counter() - began_s
    stats = loop.stats
    loop.close()
    return Run(wall_s, stats, decoded)


def bytes_of_a_slot(rig: Rig) -> int:
    """What one slot takes in the rig's precision."""
    from batched_whisper.engines.cuda.arithmetic import DTYPES

    precision = "float32" if rig.precision == "auto" and rig.device == "cpu" else rig.precision
    return slot_bytes(rig.sizes, DTYPES["float16" if precision == "auto" else precision])
