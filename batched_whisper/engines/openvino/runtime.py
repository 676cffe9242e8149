"""OpenVINO's CPU runtime: precision, threads and compiled graphs on disk."""

from __future__ import annotations

import hashlib
import os
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from batched_whisper._openvino import ov
from batched_whisper.errors import EngineError


@cache
def _sources() -> str:
    """Hash this engine's sources: graphs built by other sources are not used."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


_TYPES = {"float32": ov.Type.f32, "bfloat16": ov.Type.bf16}


@cache
def shared_core() -> ov.Core:
    """Return the process's one core, which is never released.

    When the last core is released, OpenVINO unloads its CPU plugin but leaves a signal handler of
    the plugin behind, and the next Ctrl-C crashes the process (seen with 2026.4.1).
    """
    return ov.Core()


@dataclass(frozen=True)
class OpenVinoPrecision:
    """The precision of the graphs and of the caches, and why it was chosen."""

    precision: str
    why: str
    floats: str
    """The floating-point type of the caches and of everything that is not int8."""

    @property
    def cache_type(self) -> ov.Type:
        """The type of the cached keys and values."""
        return _TYPES[self.floats]

    @property
    def int8(self) -> bool:
        """Whether the linear layers compute in int8."""
        return self.precision == "int8"


def choose_precision(precision: str, core: ov.Core) -> OpenVinoPrecision:
    """Return the requested precision, or bfloat16 if the processor has it. Raises EngineError."""
    has_bfloat16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    best = "bfloat16" if has_bfloat16 else "float32"
    if precision == "auto":
        has = "computes in it" if has_bfloat16 else "has no bfloat16 arithmetic"
        return OpenVinoPrecision(best, f"{best}, because the processor {has}", best)
    if precision == "int8":
        return OpenVinoPrecision(
            "int8", f"int8 linear layers, as asked for; the rest in {best}", best
        )
    if precision not in _TYPES:
        raise EngineError(
            f"the CPU engine has no precision {precision!r}: use float32, bfloat16, int8 or auto"
        )
    if precision == "bfloat16" and not has_bfloat16:
        raise EngineError("this processor has no bfloat16 arithmetic: use float32 or auto")
    return OpenVinoPrecision(precision, f"{precision}, as asked for", precision)


def n_processors() -> int:
    """Return the number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Runtime:
    """Compiles graphs with one precision and thread count, and stores them on disk.

    Args:
        precision: the precision.
        threads: the number of threads; None uses all processors.
        cache_dir: the folder for compiled graphs; None stores none.
        width: the model's width: int8 activations have one scale per group of this many.
        streams: the number of engines that run concurrently, each on its share of the threads.
    """

    def __init__(
        self,
        precision: OpenVinoPrecision,
        threads: int | None,
        cache_dir: Path | None,
        *,
        width: int,
        streams: int = 1,
    ) -> None:
        self.core = shared_core()
        self.precision = precision
        self._cache_dir = cache_dir
        self._options = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": str(streams),
            "INFERENCE_PRECISION_HINT": precision.cache_type,
        }
        if precision.int8:
            self._options["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = str(width)
        if threads is not None:
            self._options["INFERENCE_NUM_THREADS"] = threads
        self.threads = threads or n_processors()
        self.why = (f"{streams} workers share the threads",) if streams > 1 else ()
        self._compiled: dict[str, ov.CompiledModel] = {}
        self._lock = threading.Lock()

    def compile(self, key: str, build: Callable[[], ov.Model]) -> ov.CompiledModel:
        """Return the graph of that key: already compiled, from disk, or built.

        The key must identify the graph's weights and shape.
        """
        with self._lock:
            if key not in self._compiled:
                self._compiled[key] = self._compile(key, build)
            return self._compiled[key]

    def _compile(self, key: str, build: Callable[[], ov.Model]) -> ov.CompiledModel:
        path = self._path(key)
        if path is not None and path.is_file():
            try:
                imported = self.core.import_model(_map_file(path), "CPU", self._options)
                _mark_used(path)
                return imported
            except RuntimeError:  # from another build of the runtime, or truncated: build it again
                path.unlink(missing_ok=True)
        compiled = self.core.compile_model(build(), "CPU", self._options)
        if path is not None:
            _store(path, compiled)
        return compiled

    def _path(self, key: str) -> Path | None:
        if self._cache_dir is None:
            return None
        device = self.core.get_property("CPU", "FULL_DEVICE_NAME")
        parts = (key, _sources(), ov.__version__, device, self.precision.precision)
        name = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
        return self._cache_dir / f"{name}.graph"


def _map_file(path: Path) -> Any:
    """Memory-map the file as a tensor if the runtime can, else read it."""
    mapped = getattr(ov, "tensor_from_file", None)
    return path.read_bytes() if mapped is None else mapped(str(path))


_DAY_S = 24 * 3600
_MAX_AGE_S = 30 * _DAY_S


def _mark_used(path: Path) -> None:
    """Set the file's time, to the day, to that of its last use."""
    with suppress(OSError):
        if time.time() - path.stat().st_mtime > _DAY_S:
            path.touch()


def _delete_old(folder: Path) -> None:
    """Delete graphs unused for a month: those of older versions or other models."""
    for path in folder.glob("*.graph"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > _MAX_AGE_S:
                path.unlink()


def _store(path: Path, compiled: ov.CompiledModel) -> None:
    """Write a graph atomically; on a full or read-only disk, continue without it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _delete_old(path.parent)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            try:
                file.write(compiled.export_model().getvalue())
                file.close()
                Path(file.name).replace(path)
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise
    except OSError:
        return
