"""Selects and builds the engines for a device, importing only the selected engine's module."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from batched_whisper.config.device import DeviceKind, Devices, read_device
from batched_whisper.config.options import MAX_BEAM_SIZE, Settings
from batched_whisper.decoding.rules import TokenIds
from batched_whisper.engines.cuda.availability import count_gpus, require_gpu, why_unusable
from batched_whisper.engines.interface import Engine
from batched_whisper.errors import EngineError
from batched_whisper.models.checkpoint import Checkpoint

CPU_ENGINE = "batched_whisper.engines.openvino.multi_engine:make_cpu_engines"
"""Import string of the function that builds the CPU engines."""
GPU_ENGINE = "batched_whisper.engines.cuda.engine:CudaEngine"
"""Import string of the engine of one GPU."""

MAX_SLOTS_CPU = 64
"""The value of ``max_batch_size=auto`` on a CPU, for all its engines together."""
MAX_SLOTS_GPU = 320
"""The value of ``max_batch_size=auto`` per GPU; lower where memory is short.

More rows hardly raise a GPU's rate: a step is then mostly reading keys and values, which no two
rows share. A tenth of the slots hold windows that are encoded for the next step.
"""


def choose_devices(device: str) -> Devices:
    """Return the devices that a setting selects; ``auto`` is a GPU if PyTorch can use one.

    Raises:
        OptionError: the setting is not valid.
        EngineError: the requested GPU does not exist.
        MissingExtra: PyTorch is not installed.
    """
    option = read_device(device)
    if option.kind is DeviceKind.CPU:
        return Devices()
    if option.kind is not DeviceKind.AUTO:
        require_gpu(device)
    chosen = option.resolve(count_gpus())
    if option.kind is DeviceKind.AUTO and chosen.on_gpu and (why := why_unusable(chosen.gpus[0])):
        return Devices(why=(why,))
    return chosen


def make_engines(
    checkpoint: Checkpoint, ids: TokenIds, settings: Settings, cache_dir: Path | None
) -> list[Engine]:
    """Build the engines that the settings select: one per GPU, or those that share the CPU.

    All of them use the one checkpoint in memory.

    Raises:
        EngineError: an engine cannot start; those already started are closed.
        OptionError, MissingExtra: see `choose_devices`.
    """
    devices = choose_devices(settings.device)
    make = partial(
        _import_object(GPU_ENGINE if devices.on_gpu else CPU_ENGINE),
        checkpoint,
        ids,
        max_slots=_max_slots(settings, devices.on_gpu),
        precision=settings.precision,
        threads=settings.threads,
        cache_dir=cache_dir,
    )
    if not devices.on_gpu:
        # With max_batch_size=auto, every engine has slots for the largest beam size.
        min_slots = MAX_BEAM_SIZE if settings.max_batch_size == "auto" else 1
        return list(make(streams=settings.num_workers, min_slots=min_slots))
    make = partial(
        make,
        memory_fraction=settings.gpu_memory_utilization,
        kv_cache_dtype=settings.kv_cache_dtype,
        from_samples=settings.log_mel != "host",
    )
    return _start_on_each(devices.gpus, make)


def max_concurrent_windows(settings: Settings) -> int:
    """Return how many windows may be decoded at once, as far as known before an engine starts."""
    n_gpus = read_device(settings.device).n_gpus(count_gpus)
    return _max_slots(settings, n_gpus > 0) * max(1, n_gpus)


def _max_slots(settings: Settings, on_gpu: bool) -> int:
    """Slots per GPU, or of all CPU engines together."""
    wanted = settings.max_batch_size
    auto = MAX_SLOTS_GPU if on_gpu else MAX_SLOTS_CPU
    return auto if isinstance(wanted, str) else wanted


def _import_object(where: str) -> Callable[..., Any]:
    module, name = where.split(":")
    imported: Callable[..., Any] = getattr(import_module(module), name)
    return imported


def _start_on_each(gpus: Sequence[int], make: Callable[..., Engine]) -> list[Engine]:
    """Start one engine per GPU, in turn: a process can capture only one CUDA graph at a time."""
    started: list[Engine] = []
    for gpu in gpus:
        try:
            started.append(make(device=f"cuda:{gpu}"))
        except BaseException as error:
            for engine in started:
                with suppress(Exception):  # report the first error
                    engine.close()
            if isinstance(error, EngineError) and len(gpus) > 1:
                raise EngineError(f"GPU {gpu} cannot be started: {error}") from error
            raise
    return started
