"""whisper.cpp through pywhispercpp: greedy, its own fallbacks on.

The wheel on PyPI is built for AVX2, whatever the processor has; the result's note says so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from batched_whisper.audio.decode import decode
from batched_whisper.types import POSITIONS_PER_SECOND, SAMPLING_RATE, Samples
from benchmarks.systems.interface import Place

FULL_CONTEXT = 1500
MARGIN = 128
"""Positions added to a clip's own, by the formula of whisper.cpp's issue 1855."""


def make(place: Place) -> WhisperCpp:
    """``weights`` is f16 or q8_0; ``audio_ctx`` fits the encoder's context to each clip."""
    return WhisperCpp(place)


def fitted_context(n_samples: int) -> int:
    """The audio_ctx for a clip."""
    own = math.ceil(n_samples / SAMPLING_RATE * POSITIONS_PER_SECOND)
    return min(FULL_CONTEXT, own + MARGIN)


class WhisperCpp:
    """`benchmarks.systems.interface.System`."""

    packages = ("pywhispercpp",)

    def __init__(self, place: Place) -> None:
        self._weights: str = place.settings["weights"]
        self._fits: bool = place.settings.get("audio_ctx", False)
        self._threads = place.threads
        self._models = place.models
        self._model: Any = None

    def load(self) -> None:
        path = self._models.ggml(self._weights)
        package: Any = import_module("pywhispercpp.model")
        self._model = package.Model(
            str(path),
            redirect_whispercpp_logs_to=None,
            n_threads=self._threads,
            language="en",
            print_progress=False,
            print_realtime=False,
            no_context=True,
        )

    def transcribe_short(self, clips: Sequence[Samples]) -> list[str]:
        return [self._short(clip) for clip in clips]

    def transcribe_long(self, path: Path) -> str:
        return self._text(decode(path).samples)

    def close(self) -> None:
        self._model = None

    def _short(self, clip: Samples) -> str:
        context = fitted_context(len(clip)) if self._fits else 0
        return self._text(clip, no_timestamps=True, single_segment=True, audio_ctx=context)

    def _text(self, samples: Samples, **params: Any) -> str:
        segments = self._model.transcribe(samples, **params)
        return " ".join(segment.text.strip() for segment in segments)
