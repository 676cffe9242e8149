"""The recipe for Modal on this machine: the methods of deploy/modal, called without Modal."""

from __future__ import annotations

import asyncio
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from batched_whisper.types import SAMPLING_RATE, Samples
from benchmarks.left_out import LeftOut
from benchmarks.machine import ROOT
from benchmarks.systems.interface import Place
from benchmarks.systems.ours import counters_of

APP = ROOT / "deploy" / "modal" / "batched_whisper.py"


def make(place: Place) -> Recipe:
    """``way``: one at a time (batches of one), batched (as Modal forms them) or continuous."""
    return Recipe(place)


class Recipe:
    """`benchmarks.systems.interface.System`."""

    packages = ("batched-whisper", "openvino", "modal")

    def __init__(self, place: Place) -> None:
        self._way = place.settings["way"]
        self._model = place.models.model
        self._app: Any = None

    def load(self) -> None:
        os.environ |= {"MODEL_NAME": self._model, "MODEL_GPU": ""}
        warnings.filterwarnings("ignore", message=".*executing locally.*")
        try:
            self._app = _module(APP)
        except ModuleNotFoundError as error:
            raise LeftOut(f"pip install {error.name}") from error
        self._app.load_whisper()

    def transcribe_short(self, clips: Sequence[Samples]) -> list[str]:
        samples = [{"array": clip, "sampling_rate": SAMPLING_RATE} for clip in clips]
        return [result["text"] for result in self._results(samples)]

    def transcribe_long(self, path: Path) -> str:
        return str(self._results([path])[0]["text"])

    def close(self) -> None:
        self._app.load_whisper().close()

    def counters(self) -> Mapping[str, float]:
        """The engine's own figures."""
        return counters_of(self._app.load_whisper())

    def _results(self, samples: Sequence[Any]) -> list[dict[str, Any]]:
        if self._way == "continuous":
            return list(asyncio.run(self._app.continuously(samples)))
        size = 1 if self._way == "one at a time" else self._app.MAX_BATCH_SIZE
        model = self._app.Model()
        return [
            result
            for first in range(0, len(samples), size)
            for result in model.transcribe.local(samples[first : first + size])
        ]


def _module(file: Path) -> ModuleType:
    spec = spec_from_file_location("recipe", file)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
