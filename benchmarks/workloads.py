"""What is transcribed: short clips and long recordings whose text is known.

Knows the speech collection's manifest and how calls are drawn from it. Knows nothing of systems or
of time. The same seed gives the same calls in the same order to everybody.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

SPEECH_VARIABLE = "BATCHED_WHISPER_SPEECH"
SHORT_COLLECTIONS = ("ljspeech", "librivox", "librispeech")
LONG_COLLECTION = "long"
N_CALLS = 200
"""Minimum number of short calls per round."""


class SpeechMissing(Exception):
    """There is no speech collection to measure with; says where it was looked for."""


@dataclass(frozen=True)
class Clip:
    """One recording whose text is known; ``audio`` is its path."""

    audio: str
    text: str
    collection: str
    duration_s: float


@dataclass(frozen=True)
class Workload:
    """Short calls and long recordings.

    ``order`` says which clip each call brings; every clip comes once before any comes twice.
    """

    clips: tuple[Clip, ...]
    order: tuple[int, ...]
    long: tuple[Clip, ...]
    seed: int

    @property
    def short_s(self) -> float:
        """Seconds of sound in all short calls."""
        return sum(self.clips[i].duration_s for i in self.order)

    @property
    def long_s(self) -> float:
        """Seconds of sound in all long recordings."""
        return sum(clip.duration_s for clip in self.long)

    def to_json(self) -> dict[str, Any]:
        """As JSON types, for another process."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Workload:
        """The inverse of `to_json`."""
        return cls(
            clips=tuple(Clip(**clip) for clip in document["clips"]),
            order=tuple(document["order"]),
            long=tuple(Clip(**clip) for clip in document["long"]),
            seed=document["seed"],
        )


def speech_folder(environ: Mapping[str, str] | None = None) -> Path:
    """The folder with manifest.jsonl: of the environment variable, or ../shared/speech.

    Raises SpeechMissing.
    """
    beside = Path(__file__).resolve().parents[2] / "shared" / "speech"
    folder = Path((environ or os.environ).get(SPEECH_VARIABLE) or beside)
    if not (folder / "manifest.jsonl").is_file():
        raise SpeechMissing(
            f"there is no manifest.jsonl in {folder}: set {SPEECH_VARIABLE} to a folder with one "
            "(fields audio, text, collection, duration_s; one JSON object per line)"
        )
    return folder


def read_clips(folder: Path, collections: Iterable[str]) -> tuple[Clip, ...]:
    """The manifest's recordings of some collections, in its order."""
    wanted = frozenset(collections)
    rows = map(json.loads, (folder / "manifest.jsonl").read_text("utf-8").splitlines())
    return tuple(
        Clip(str(folder / row["audio"]), row["text"], row["collection"], row["duration_s"])
        for row in rows
        if row["collection"] in wanted
    )


def draw_order(n_clips: int, n_calls: int, seed: int) -> tuple[int, ...]:
    """Which clip each call brings: shuffled passes over all clips, the last one cut short."""
    if n_clips < 1:
        raise ValueError("a workload needs at least one clip")
    generator = random.Random(seed)
    order: list[int] = []
    while len(order) < n_calls:
        order += generator.sample(range(n_clips), n_clips)
    return tuple(order[:n_calls])


def make_workload(
    clips: Sequence[Clip], long: Sequence[Clip], *, n_calls: int = N_CALLS, seed: int = 0
) -> Workload:
    """A workload of these recordings."""
    order = draw_order(len(clips), n_calls, seed)
    return Workload(tuple(clips), order, tuple(long), seed)


def standard_workload(
    folder: Path, *, n_calls: int = N_CALLS, n_long: int | None = None, seed: int = 0
) -> Workload:
    """The collection's short clips and its long recordings (the first ``n_long`` of them)."""
    long = read_clips(folder, [LONG_COLLECTION])
    return make_workload(
        read_clips(folder, SHORT_COLLECTIONS), long[:n_long], n_calls=n_calls, seed=seed
    )
