"""The engines that this machine has; the laws of the protocol hold for each of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from tiny_whisper import IDS, tiny_checkpoint

from batched_whisper.engines.interface import Engine
from batched_whisper.engines.openvino.engine import OpenVinoEngine
from batched_whisper.errors import EngineError


@dataclass(frozen=True)
class Installed:
    """One engine in one precision; ``tolerance`` is of logits and natural log-probabilities."""

    name: str
    make: Callable[[int, Path | None], Engine]
    tolerance: float


def _openvino(precision: str, tolerance: float) -> Installed:
    def make(max_slots: int, cache_dir: Path | None) -> Engine:
        try:
            return OpenVinoEngine(
                tiny_checkpoint(),
                IDS,
                max_slots=max_slots,
                precision=precision,
                threads=1,
                cache_dir=cache_dir,
            )
        except EngineError as error:
            if "no bfloat16 arithmetic" in str(error):
                pytest.skip(str(error))
            raise

    return Installed(f"openvino-{precision}", make, tolerance)


EXACT = [_openvino("float32", 1e-3)]
EVERY = [*EXACT, _openvino("bfloat16", 0.5), _openvino("int8", 1.5)]
