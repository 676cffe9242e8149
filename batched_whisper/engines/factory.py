"""Which engine runs on which device. Engines are imported only when they are chosen."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from batched_whisper.config import Settings
from batched_whisper.decoding.rules import TokenIds
from batched_whisper.engines.cuda.presence import demand_gpu, has_gpu
from batched_whisper.engines.interface import Engine
from batched_whisper.errors import EngineError
from batched_whisper.models.checkpoint import Checkpoint

ENGINES = {
    "cpu": "batched_whisper.engines.openvino.streams:make_streams",
    "cuda": "batched_whisper.engines.cuda.engine:CudaEngine",
}
"""The import string of what makes each device's engine or engines."""

MOST_SLOTS = {"cpu": 64, "cuda": 256}
"""What ``max_batch_size=auto`` means on each device; a GPU takes fewer where memory is short.

With more rows a GPU's rate hardly rises: reading keys and values, which no two rows share, is by
then most of a step.
"""


def choose_device(device: str) -> str:
    """The device that a setting means: of ``auto`` the GPU, where PyTorch is there and sees one.

    Raises:
        EngineError: no engine runs on it, or there is no GPU.
        MissingExtra: PyTorch is not installed.
    """
    if device == "auto":
        return "cuda" if has_gpu() else "cpu"
    if device not in ENGINES:
        raise EngineError(f"there is no engine for device {device!r}: use cpu, cuda or auto")
    if device == "cuda":
        demand_gpu()
    return device


def make_engines(
    checkpoint: Checkpoint, ids: TokenIds, settings: Settings, cache_dir: Path | None
) -> list[Engine]:
    """Build the engine that the settings ask for, or several alike that share its device.

    Raises EngineError, MissingExtra.
    """
    device = choose_device(settings.device)
    module, name = ENGINES[device].split(":")
    own: dict[str, Any] = {}
    if device == "cuda":
        own["memory_fraction"] = settings.gpu_memory_fraction
    else:
        own["streams"] = settings.streams
    made = getattr(import_module(module), name)(
        checkpoint,
        ids,
        max_slots=_most(settings, device),
        precision=settings.precision,
        threads=settings.threads,
        cache_dir=cache_dir,
        **own,
    )
    return made if isinstance(made, list) else [made]


def most_windows(settings: Settings) -> int:
    """How many windows may be decoded together, as far as that is known before an engine starts."""
    on_gpu = settings.device == "cuda" or (settings.device == "auto" and has_gpu())
    return _most(settings, "cuda" if on_gpu else "cpu")


def _most(settings: Settings, device: str) -> int:
    wanted = settings.max_batch_size
    return MOST_SLOTS[device] if isinstance(wanted, str) else wanted
