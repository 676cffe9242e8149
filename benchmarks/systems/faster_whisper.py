"""faster-whisper: int8, greedy, its own fallbacks on, as its users run it on a CPU.

No timestamps are asked for on short clips, as of everybody; on long recordings its sequential
mode needs them to find its way.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any

from batched_whisper.types import Samples
from benchmarks.systems.interface import Place


def make(place: Place) -> FasterWhisper:
    """``workers`` share the threads; ``batch_size`` takes its batched pipeline on long files."""
    return FasterWhisper(place)


class FasterWhisper:
    """`benchmarks.systems.interface.System`."""

    packages = ("faster-whisper", "ctranslate2", "onnxruntime")

    def __init__(self, place: Place) -> None:
        wanted = place.settings["workers"]
        self._workers: int = place.threads if wanted == "threads" else wanted
        self._threads_each = max(1, place.threads // self._workers)
        self._batch_size: int | None = place.settings.get("batch_size")
        self._models = place.models
        self._model: Any = None
        self._pipeline: Any = None

    def load(self) -> None:
        package: Any = import_module("faster_whisper")
        self._model = package.WhisperModel(
            str(self._models.ctranslate2()),
            device="cpu",
            compute_type="int8",
            cpu_threads=self._threads_each,
            num_workers=self._workers,
        )
        if self._batch_size is not None:
            self._pipeline = package.BatchedInferencePipeline(self._model)

    def transcribe_short(self, clips: Sequence[Samples]) -> list[str]:
        if self._workers == 1:
            return [self._short(clip) for clip in clips]
        with ThreadPoolExecutor(self._workers) as callers:
            return list(callers.map(self._short, clips))

    def transcribe_long(self, path: Path) -> str:
        common: dict[str, Any] = {"beam_size": 1, "language": "en"}
        if self._pipeline is not None:
            segments, _ = self._pipeline.transcribe(
                str(path), batch_size=self._batch_size, **common
            )
        else:
            segments, _ = self._model.transcribe(
                str(path), condition_on_previous_text=False, **common
            )
        return " ".join(segment.text.strip() for segment in segments)

    def close(self) -> None:
        self._model = self._pipeline = None

    def _short(self, clip: Samples) -> str:
        segments, _ = self._model.transcribe(
            clip,
            beam_size=1,
            language="en",
            condition_on_previous_text=False,
            without_timestamps=True,
        )
        return " ".join(segment.text.strip() for segment in segments)
