"""This package: an offline map, concurrent single calls, or one call after the other."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from batched_whisper.config.options import DecodingOptions, Settings
from batched_whisper.errors import BatchedWhisperError, OptionError
from batched_whisper.types import Samples
from batched_whisper.whisper import Whisper
from benchmarks.left_out import LeftOut
from benchmarks.systems.interface import Place


def make(place: Place) -> Ours:
    """``calls`` is "map", or how many callers there are; ``options`` are those of the package."""
    return Ours(place)


class Ours:
    """`benchmarks.systems.interface.System`."""

    packages = ("batched-whisper", "openvino")

    def __init__(self, place: Place) -> None:
        self._calls = place.settings["calls"]
        self._threads = place.threads
        self._model = place.models.model
        self._given = dict(place.settings.get("options", {}))
        self._options: dict[str, Any] = {}
        self._whisper: Whisper | None = None

    def load(self) -> None:
        try:
            settings, options = settings_and_options(self._given)
            self._options = {"language": "en", **options}
            settings = {"model": self._model, "threads": self._threads, **settings}
            self._whisper = Whisper(**settings).load()
        except BatchedWhisperError as error:
            raise LeftOut(str(error)) from error

    def transcribe_short(self, clips: Sequence[Samples]) -> list[str]:
        if self._calls == "map":
            return [t.text for t in self._loaded.transcribe.map(clips, **self._options)]
        if self._calls == 1:
            return [self._transcribe(clip) for clip in clips]
        with ThreadPoolExecutor(self._calls) as callers:
            return list(callers.map(self._transcribe, clips))

    def transcribe_long(self, path: Path) -> str:
        return self._transcribe(path)

    def close(self) -> None:
        if self._whisper is not None:
            self._whisper.close()

    def counters(self) -> Mapping[str, float]:
        """The loop's own figures (batched_whisper.batching.metrics.LoopStats)."""
        return counters_of(self._loaded)

    @property
    def _loaded(self) -> Whisper:
        assert self._whisper is not None, "load() comes first"
        return self._whisper

    def _transcribe(self, audio: Samples | Path) -> str:
        return self._loaded.transcribe(audio, **self._options).text


def counters_of(whisper: Whisper) -> dict[str, float]:
    """Those of its figures that only grow."""
    stats = dataclasses.asdict(whisper.stats)
    return {name: stats[name] for name in stats.keys() - _NOT_GROWING}


_NOT_GROWING = frozenset({"largest_batch", "queue_depth", "n_active"})


def settings_and_options(given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Options by name, parted into those of an engine and those of a call.

    Raises OptionError for one that this version does not have.
    """
    settings, options = _names(Settings), _names(DecodingOptions)
    for name in given:
        if name not in settings | options:
            raise OptionError(f"this version has no option {name!r}")
    return (
        {name: value for name, value in given.items() if name in settings},
        {name: value for name, value in given.items() if name in options},
    )


def _names(options: type[Settings] | type[DecodingOptions]) -> frozenset[str]:
    return frozenset(declared.name for declared in dataclasses.fields(options))
