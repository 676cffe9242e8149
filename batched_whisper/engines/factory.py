"""Which engine runs on which device. Engines are imported only when they are chosen."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from batched_whisper.config import Settings
from batched_whisper.decoding.rules import TokenIds
from batched_whisper.engines.interface import Engine
from batched_whisper.errors import EngineError
from batched_whisper.models.checkpoint import Checkpoint

ENGINES = {"cpu": "batched_whisper.engines.openvino.engine:OpenVinoEngine"}
"""The import string of each device's engine."""


def choose_device(device: str) -> str:
    """The device that a setting means. Raises EngineError where no engine runs on it."""
    chosen = "cpu" if device == "auto" else device
    if chosen not in ENGINES:
        raise EngineError(f"no engine for device {device!r} is installed: use device=cpu, or auto")
    return chosen


def make_engine(
    checkpoint: Checkpoint, ids: TokenIds, settings: Settings, cache_dir: Path | None
) -> Engine:
    """Build the engine that the settings ask for. Raises EngineError."""
    module, name = ENGINES[choose_device(settings.device)].split(":")
    engine: Engine = getattr(import_module(module), name)(
        checkpoint,
        ids,
        max_slots=settings.max_batch_size,
        precision=settings.precision,
        threads=settings.threads,
        cache_dir=cache_dir,
    )
    return engine
