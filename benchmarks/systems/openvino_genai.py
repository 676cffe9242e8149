"""OpenVINO GenAI's own Whisper pipeline, one call after the other: it has no batches."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from batched_whisper.audio.decode import decode
from batched_whisper.types import Samples
from benchmarks.systems.interface import Place


def make(place: Place) -> OpenVinoGenAI:
    """``weights`` is fp16 or int8; it computes in what OpenVINO chooses for the processor."""
    return OpenVinoGenAI(place)


class OpenVinoGenAI:
    """`benchmarks.systems.interface.System`."""

    packages = ("openvino-genai", "openvino")

    def __init__(self, place: Place) -> None:
        self._weights: str = place.settings["weights"]
        self._threads = place.threads
        self._models = place.models
        self._language = (
            {} if place.models.is_english_only else {"language": "<|en|>", "task": "transcribe"}
        )
        self._pipeline: Any = None

    def load(self) -> None:
        folder = self._models.openvino(self._weights)
        package: Any = import_module("openvino_genai")
        self._pipeline = package.WhisperPipeline(
            str(folder), "CPU", INFERENCE_NUM_THREADS=self._threads
        )

    def transcribe_short(self, clips: Sequence[Samples]) -> list[str]:
        return [self._text(clip, return_timestamps=False) for clip in clips]

    def transcribe_long(self, path: Path) -> str:
        return self._text(decode(path).samples, return_timestamps=True)

    def close(self) -> None:
        self._pipeline = None

    def _text(self, samples: Samples, *, return_timestamps: bool) -> str:
        result = self._pipeline.generate(
            samples, return_timestamps=return_timestamps, **self._language
        )
        return str(result.texts[0]).strip()
