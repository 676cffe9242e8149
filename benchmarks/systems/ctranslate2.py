"""CTranslate2 with static batches made by hand: the simplest way to batch, without a queue.

Clips go in batches in the order in which they come. The features are this package's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from batched_whisper.audio.features import log_mel
from batched_whisper.tokens.prompt import sot_sequence
from batched_whisper.tokens.tokenizer import Tokenizer
from batched_whisper.types import Samples
from benchmarks.left_out import LeftOut
from benchmarks.systems.interface import Place

N_MELS = 80


def make(place: Place) -> CTranslate2:
    """``batch_size`` clips go together."""
    return CTranslate2(place)


class CTranslate2:
    """`benchmarks.systems.interface.System`."""

    packages = ("ctranslate2",)

    def __init__(self, place: Place) -> None:
        self._threads = place.threads
        self._batch_size: int = place.settings["batch_size"]
        self._models = place.models
        self._package: Any = None
        self._model: Any = None

    def load(self) -> None:
        folder = self._models.ctranslate2()
        self._package = import_module("ctranslate2")
        self._model = self._package.models.Whisper(
            str(folder), device="cpu", compute_type="int8", intra_threads=self._threads
        )
        self._tokenizer = Tokenizer.from_folder(folder)
        self._prompt = list(
            sot_sequence(self._tokenizer, None if self._models.is_english_only else "en")
        )

    def transcribe_short(self, clips: Sequence[Samples]) -> list[str]:
        texts: list[str] = []
        for start in range(0, len(clips), self._batch_size):
            texts += self._batch(clips[start : start + self._batch_size])
        return texts

    def transcribe_long(self, path: Path) -> str:
        raise LeftOut("long recordings need windows, which CTranslate2 does not cut")

    def close(self) -> None:
        self._model = None

    def _batch(self, clips: Sequence[Samples]) -> list[str]:
        features = np.stack([log_mel(clip, N_MELS) for clip in clips])
        results = self._model.generate(
            self._package.StorageView.from_array(features),
            [self._prompt] * len(clips),
            beam_size=1,
            max_length=448,
        )
        return [self._tokenizer.decode(result.sequences_ids[0]).strip() for result in results]
