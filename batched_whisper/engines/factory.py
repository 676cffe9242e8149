"""Which engine runs on which device. Engines are imported only when they are chosen."""

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
"""The import string of what makes the engines that share a processor."""
GPU_ENGINE = "batched_whisper.engines.cuda.engine:CudaEngine"
"""The import string of what makes the engine of one GPU."""

MAX_SLOTS_CPU = 64
"""What ``max_batch_size=auto`` means on a processor, for all its engines together."""
MAX_SLOTS_GPU = 320
"""What it means on each GPU; fewer where memory is short.

With more rows a GPU's rate hardly rises: reading keys and values, which no two rows share, is by
then most of a step. A tenth of the slots hold windows that are encoded for the next step.
"""


def choose_devices(device: str) -> Devices:
    """The devices that a setting means: of ``auto`` a GPU, where PyTorch is there and can use one.

    Raises:
        OptionError: it cannot be read.
        EngineError: a GPU that is asked for is not there.
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
    """Build the engines that the settings ask for: one on each GPU, or those that share a CPU.

    All are made of the one checkpoint in memory.

    Raises:
        EngineError: one cannot start; those that had are closed again.
        OptionError, MissingExtra: as `choose_devices`.
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
        # Where nobody said how many windows go together, any beam that is allowed has its place.
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
    """How many windows may be decoded together, as far as that is known before an engine starts."""
    n_gpus = read_device(settings.device).n_gpus(count_gpus)
    return _max_slots(settings, n_gpus > 0) * max(1, n_gpus)


def _max_slots(settings: Settings, on_gpu: bool) -> int:
    """Of each GPU's engine, or of the processor's together."""
    wanted = settings.max_batch_size
    auto = MAX_SLOTS_GPU if on_gpu else MAX_SLOTS_CPU
    return auto if isinstance(wanted, str) else wanted


def _import_object(where: str) -> Callable[..., Any]:
    module, name = where.split(":")
    made: Callable[..., Any] = getattr(import_module(module), name)
    return made


def _start_on_each(gpus: Sequence[int], make: Callable[..., Engine]) -> list[Engine]:
    """An engine on each GPU, one after another: only one may record CUDA graphs at a time."""
    started: list[Engine] = []
    for gpu in gpus:
        try:
            started.append(make(device=f"cuda:{gpu}"))
        except BaseException as error:
            for engine in started:
                with suppress(Exception):  # the first error is the one to tell
                    engine.close()
            if isinstance(error, EngineError) and len(gpus) > 1:
                raise EngineError(f"GPU {gpu} cannot be started: {error}") from error
            raise
    return started
