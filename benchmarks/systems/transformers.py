"""The recipe that people know: a transformers pipeline in bfloat16, with a batch size."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from batched_whisper.audio.decode import decode
from batched_whisper.types import SAMPLING_RATE, Samples
from benchmarks.systems.interface import Place


def make(place: Place) -> Transformers:
    """``batch_size`` as the pipeline understands it."""
    return Transformers(place)


class Transformers:
    """`benchmarks.systems.interface.System`."""

    packages = ("transformers", "torch")

    def __init__(self, place: Place) -> None:
        self._threads = place.threads
        self._batch_size: int = place.settings["batch_size"]
        self._models = place.models
        self._generate: dict[str, Any] = {"num_beams": 1}
        if not place.models.is_english_only:
            self._generate |= {"language": "en", "task": "transcribe"}
        self._pipeline: Any = None

    def load(self) -> None:
        folder = str(self._models.huggingface())
        torch: Any = import_module("torch")
        package: Any = import_module("transformers")
        torch.set_num_threads(self._threads)
        self._pipeline = package.pipeline(
            "automatic-speech-recognition",
            model=folder,
            tokenizer=folder,
            feature_extractor=folder,
            dtype=torch.bfloat16,
            device="cpu",
            batch_size=self._batch_size,
        )

    def transcribe_short(self, clips: Sequence[Samples]) -> list[str]:
        results = self._pipeline((_sound(clip) for clip in clips), generate_kwargs=self._generate)
        return [result["text"].strip() for result in results]

    def transcribe_long(self, path: Path) -> str:
        sound = _sound(decode(path).samples)
        result = self._pipeline(sound, chunk_length_s=30, generate_kwargs=self._generate)
        return str(result["text"]).strip()

    def close(self) -> None:
        self._pipeline = None


def _sound(samples: Samples) -> dict[str, Any]:
    return {"raw": samples, "sampling_rate": SAMPLING_RATE}
