"""The engines that this machine can run; the laws of the protocol are tested on each."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from tiny_whisper import IDS, tiny_checkpoint

from batched_whisper.engines.cuda.availability import has_gpu
from batched_whisper.engines.interface import Engine
from batched_whisper.errors import EngineError


@dataclass(frozen=True)
class Installed:
    """One engine in one precision; ``tolerance`` applies to logits and log-probabilities."""

    name: str
    make: Callable[[int, Path | None], Engine]
    tolerance: float


def _openvino(precision: str, tolerance: float) -> Installed:
    def make(max_slots: int, cache_dir: Path | None) -> Engine:
        if importlib.util.find_spec("openvino") is None:
            pytest.skip("OpenVINO is not installed")
        from batched_whisper.engines.openvino.engine import OpenVinoEngine

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


def _pytorch(
    precision: str,
    tolerance: float,
    device: str = "cpu",
    kv_cache_dtype: str = "auto",
    n_step_sms: int = 0,
) -> Installed:
    """The GPU engine; on a CPU its results can be tested everywhere."""

    def make(max_slots: int, cache_dir: Path | None) -> Engine:
        if importlib.util.find_spec("torch") is None:
            pytest.skip(
                "PyTorch is not installed, so the GPU engine is not tested: pip install torch"
            )
        from batched_whisper.engines.cuda.engine import CudaEngine

        return CudaEngine(
            tiny_checkpoint(),
            IDS,
            max_slots=max_slots,
            precision=precision,
            threads=1,
            cache_dir=cache_dir,
            device=device,
            kv_cache_dtype=kv_cache_dtype,
            n_step_sms=n_step_sms,
        )

    kept = "" if kv_cache_dtype == "auto" else f"-{kv_cache_dtype}"
    divided = f"-{n_step_sms}-for-steps" if n_step_sms else ""
    return Installed(f"pytorch-{device}-{precision}{kept}{divided}", make, tolerance)


KEEPING_GRAPHS = [_openvino("float32", 1e-3)]
"""Those that keep compiled graphs on disk."""

GPU_ENGINE = (
    [
        _pytorch("float16", 0.1, "cuda", "model"),
        _pytorch("float16", 0.5, "cuda"),
        _pytorch("bfloat16", 0.5, "cuda"),
        _pytorch("float16", 0.5, "cuda", n_step_sms=40),
    ]
    if has_gpu()
    else []
)
EXACT = [
    *KEEPING_GRAPHS,
    _pytorch("float32", 1e-3),
    *([_pytorch("float32", 1e-3, "cuda")] if has_gpu() else []),
]
EVERY = [
    *EXACT,
    _openvino("bfloat16", 0.5),
    _openvino("int8", 1.5),
    _pytorch("float32", 0.5, kv_cache_dtype="int8"),
    *GPU_ENGINE,
]
