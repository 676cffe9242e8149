"""An engine on random weights of a given shape, and windows that go through the real loop.

The text of a window is what the engine chooses; when it ends is told by the mix.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from statistics import median
from typing import Any

import numpy as np
import torch

from batched_whisper.batching.decode_request import DecodedTokens, DecodeRequest
from batched_whisper.batching.loop import EngineLoop
from batched_whisper.batching.metrics import LoopStats
from batched_whisper.decoding.fallback import Attempt
from batched_whisper.decoding.rules import Rules, TokenIds
from batched_whisper.engines.cuda.engine import CudaEngine
from batched_whisper.models.checkpoint import Checkpoint
from batched_whisper.models.dimensions import SHAPES, Dimensions
from batched_whisper.types import SAMPLES_PER_POSITION, SAMPLING_RATE, Features, Samples
from benchmarks.gpu.mix import WindowSize, Workload

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

    ``device`` is PyTorch's name; ``noises`` are encoded where a part has no windows of its own;
    ``options`` are `CudaEngine`'s, of every engine.
    """

    checkpoint: Checkpoint
    device: str
    precision: str
    max_slots: int
    memory_fraction: float
    noises: tuple[Features, ...]
    workload: Workload
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def sizes(self) -> Dimensions:
        """The model's."""
        return self.checkpoint.dimensions

    @contextmanager
    def engine(self, **options: Any) -> Iterator[Any]:
        """A started engine, whose memory is free again afterwards; ``options`` are `CudaEngine`'s.

        ``one_stream`` is not among those: nothing is encoded during a step.
        """
        one_stream = options.pop("one_stream", False)
        given = {
            "max_slots": self.max_slots,
            "precision": self.precision,
            "device": self.device,
            "memory_fraction": self.memory_fraction,
            **self.options,
        }
        engine = CudaEngine(self.checkpoint, ids_of(self.sizes), **{**given, **options})
        if one_stream:
            engine._streams.encoding = engine._streams.steps
        try:
            self._require_kernels(engine)
            yield engine
        finally:
            engine.close()
            del engine
            gc.collect()
            if self.device != "cpu":
                torch.cuda.empty_cache()

    def _require_kernels(self, engine: Any) -> None:
        """Raises RuntimeError where a GPU would be measured without them, or without recordings."""
        why = "; ".join(engine.info.why)
        if self.device != "cpu" and ("slower" in why or "by Triton kernels" not in why):
            raise RuntimeError(f"not worth measuring: {why}")

    def features(self, i: int, context: int) -> Features:
        """Noise, in place of a spectrogram."""
        return self.noises[i % len(self.noises)][:, : 2 * context]

    def heard(self, i: int, size: WindowSize, context: int) -> Features:
        """A window's own features, or noise."""
        found = size.features(context)
        return self.features(i, context) if found is None else found

    def sound(self, i: int, size: WindowSize, context: int) -> Samples:
        """A window's own samples, or noise, for an engine that takes those."""
        found = getattr(size, "samples", None)
        if found is None:
            n_samples = min(round(size.duration_s * SAMPLING_RATE), context * SAMPLES_PER_POSITION)
            random = np.random.default_rng(i % N_NOISES)
            found = 0.1 * random.standard_normal(n_samples, dtype=np.float32)
        return found[: context * SAMPLES_PER_POSITION]

    def task(
        self, i: int, size: WindowSize, *, fitted: bool, as_samples: bool = False
    ) -> DecodeRequest:
        """A window that decodes exactly this number of tokens."""
        ids, context = ids_of(self.sizes), size.context(self.sizes.n_audio_ctx, fitted=fitted)
        prompt = tuple(range(ids.eot + 2, ids.eot + 2 + PROMPT))
        # Now, before the clock starts.
        heard = (self.sound if as_samples else self.heard)(i, size, context)
        return DecodeRequest(
            audio=heard,
            sot=ids.eot + 1,
            after_language=prompt,
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
    as_samples = engine.info.takes_samples
    tasks = [
        rig.task(i, size, fitted=fitted, as_samples=as_samples) for i, size in enumerate(windows)
    ]
    began_s = time.perf_counter()
    futures = [loop.submit(task) for task in tasks]
    decoded = tuple(future.result() for future in futures)
    wall_s = time.perf_counter() - began_s
    stats = loop.stats
    loop.close()
    return Run(wall_s, stats, decoded)
