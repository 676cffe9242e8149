"""Load patterns: the same recordings sent sequentially, concurrently or through ``map``.

Measures wall time and the engine's counters. The patterns alternate in every round; results are
medians over the rounds. Knows nothing of files, tables or the command line.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum
from statistics import median
from typing import TYPE_CHECKING, Any

from batched_whisper.config.options import DecodingOptions

if TYPE_CHECKING:
    from batched_whisper.whisper import Whisper

SEQUENTIAL_SHARE = 4
"""The sequential pattern makes 1/4 of the calls, because it is slower; rates are compared."""


class LoadPattern(str, Enum):
    """How calls are sent to the engine."""

    SEQUENTIAL = "sequential"
    CONCURRENT = "concurrent"
    MAP = "map"


@dataclass(frozen=True)
class BenchClip:
    """A readable recording and its duration."""

    audio: Any
    duration_s: float


@dataclass(frozen=True)
class Pass:
    """All calls of a round in one pattern; texts in the order of the calls."""

    pattern: LoadPattern
    audio_s: float
    wall_s: float
    n_batches: int
    n_rows: int
    texts: tuple[str, ...]

    @property
    def mean_batch_size(self) -> float:
        """Mean number of windows per decoder step."""
        return self.n_rows / self.n_batches if self.n_batches else 0.0


@dataclass(frozen=True)
class LoadSummary:
    """Medians over the rounds of one pattern."""

    pattern: LoadPattern
    n_calls: int
    wall_s: float
    calls_per_s: float
    times_real_time: float
    mean_batch_size: float
    speedup: float
    """Speed relative to the sequential pattern."""


def n_sequential_calls(n_calls: int, n_clips: int) -> int:
    """Calls of the sequential pattern: whole passes over the clips, about a quarter of all."""
    n_passes = -(-n_calls // (SEQUENTIAL_SHARE * n_clips))
    return min(n_calls, n_passes * n_clips)


def measure(
    whisper: Whisper,
    clips: Sequence[BenchClip],
    options: DecodingOptions,
    *,
    n_calls: int,
    n_rounds: int,
) -> Iterator[Pass]:
    """Yield each pass when it ends; none without clips. Call ``i`` sends clip ``i % n_clips``."""
    if not clips:
        return
    calls = [clips[i % len(clips)] for i in range(n_calls)]
    for _ in range(n_rounds):
        for pattern, send in _PATTERNS.items():
            sent = (
                calls[: n_sequential_calls(n_calls, len(clips))]
                if pattern is LoadPattern.SEQUENTIAL
                else calls
            )
            before, began_s = whisper.stats, time.perf_counter()
            texts = send(whisper, [clip.audio for clip in sent], options)
            wall_s, after = time.perf_counter() - began_s, whisper.stats
            yield Pass(
                pattern=pattern,
                audio_s=sum(clip.duration_s for clip in sent),
                wall_s=wall_s,
                n_batches=after.n_batches - before.n_batches,
                n_rows=after.n_rows - before.n_rows,
                texts=tuple(texts),
            )


def _sequential(whisper: Whisper, audios: Sequence[Any], options: DecodingOptions) -> list[str]:
    return [whisper.transcribe(audio, options=options).text for audio in audios]


def _concurrent(whisper: Whisper, audios: Sequence[Any], options: DecodingOptions) -> list[str]:
    """Send every call from its own thread."""
    callers = ThreadPoolExecutor(len(audios))
    try:
        calls = [callers.submit(whisper.transcribe, audio, options=options) for audio in audios]
        return [call.result().text for call in calls]
    finally:
        callers.shutdown(cancel_futures=True)


def _map(whisper: Whisper, audios: Sequence[Any], options: DecodingOptions) -> list[str]:
    return [transcript.text for transcript in whisper.transcribe.map(audios, options=options)]


_PATTERNS: dict[LoadPattern, Callable[[Whisper, Sequence[Any], DecodingOptions], list[str]]] = {
    LoadPattern.SEQUENTIAL: _sequential,
    LoadPattern.CONCURRENT: _concurrent,
    LoadPattern.MAP: _map,
}


def summarise(passes: Sequence[Pass]) -> list[LoadSummary]:
    """Summarise each pattern over all rounds."""
    by_pattern = {
        pattern: [each for each in passes if each.pattern is pattern] for pattern in LoadPattern
    }
    sequential = _speed(by_pattern[LoadPattern.SEQUENTIAL])
    return [
        LoadSummary(
            pattern=pattern,
            n_calls=len(each[0].texts),
            wall_s=median(one.wall_s for one in each),
            calls_per_s=median(len(one.texts) / one.wall_s for one in each),
            times_real_time=_speed(each),
            mean_batch_size=median(one.mean_batch_size for one in each),
            speedup=_speed(each) / sequential,
        )
        for pattern, each in by_pattern.items()
    ]


def _speed(passes: Sequence[Pass]) -> float:
    """Seconds of audio per second of wall time."""
    return median(each.audio_s / each.wall_s for each in passes)


def n_differing(passes: Sequence[Pass], n_clips: int) -> int:
    """Number of clips with different texts in different calls, over all patterns."""
    texts_of: dict[int, set[str]] = {}
    for each in passes:
        for i, text in enumerate(each.texts):
            texts_of.setdefault(i % n_clips, set()).add(text)
    return sum(len(texts) > 1 for texts in texts_of.values())
