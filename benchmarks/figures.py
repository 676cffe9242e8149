"""From turns to figures: medians, rates, error rates and ratios. Pure; knows no clock.

A *turn* is one system transcribing one workload once. A *round* is a turn of every system. Rates
are of the median turn, so one disturbed turn does not count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from batched_whisper.evaluation import ErrorCounts, count_errors
from benchmarks.systems.catalog import Configuration, Work
from benchmarks.workloads import Clip, Workload

WINDOW_S = 30.0
"""Long recordings are counted in windows of this length, whatever a system cuts them into."""

BUSY = 0.05
"""Other programs' share of the processors above which a figure is marked."""


@dataclass(frozen=True)
class Turn:
    """One system, one workload, once.

    ``cpu_s`` is its process's, over all threads; ``foreign_cpu_s`` is what everything else on the
    machine used meanwhile, None where the system does not say.
    """

    n: int
    texts: tuple[str, ...]
    wall_s: float
    cpu_s: float
    foreign_cpu_s: float | None = None
    peak_memory_bytes: int = 0
    n_threads: int | None = None
    counters: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Figures:
    """What one system's turns on one workload come to."""

    n: int
    audio_s: float
    walls_s: tuple[float, ...]
    cpu_s: float  # median
    per_s: float  # clips or recordings
    times_real_time: float
    windows_per_s: float
    spread: float  # of the wall times, (longest - shortest) / median
    foreign_share: float | None  # the worst turn's
    error_rate: float | None
    errors: ErrorCounts
    error_rates: Mapping[str, float | None]  # by collection
    n_varying: int  # texts that were not the same in every turn
    counters: Mapping[str, float]  # of the median turn


@dataclass(frozen=True)
class SystemResult:
    """One configuration, measured."""

    configuration: Configuration
    versions: Mapping[str, str]
    load_s: float
    peak_memory_bytes: int
    n_threads: int | None
    figures: Mapping[Work, Figures]


def said(workload: Workload, work: Work, n: int) -> tuple[Clip, ...]:
    """The recordings of the first ``n`` calls."""
    if work is Work.LONG:
        return workload.long[:n]
    return tuple(workload.clips[i] for i in workload.order[:n])


def summarise(workload: Workload, work: Work, turns: Sequence[Turn], n_processors: int) -> Figures:
    """The figures of one system's turns, which all brought the same calls."""
    clips = said(workload, work, turns[0].n)
    middle = sorted(turns, key=lambda turn: turn.wall_s)[(len(turns) - 1) // 2]
    audio_s = sum(clip.duration_s for clip in clips)
    walls_s = tuple(turn.wall_s for turn in turns)
    wall_s = median(walls_s)
    windows = len(clips) if work is Work.SHORT else audio_s / WINDOW_S
    by_collection = count_all_errors(clips, turns[0].texts)
    errors = sum(by_collection.values(), ErrorCounts())
    return Figures(
        n=len(clips),
        audio_s=audio_s,
        walls_s=walls_s,
        cpu_s=median(turn.cpu_s for turn in turns),
        per_s=len(clips) / wall_s,
        times_real_time=audio_s / wall_s,
        windows_per_s=windows / wall_s,
        spread=(max(walls_s) - min(walls_s)) / wall_s,
        foreign_share=_foreign_share(turns, n_processors),
        error_rate=errors.rate,
        errors=errors,
        error_rates={name: each.rate for name, each in by_collection.items()},
        n_varying=_n_varying(turns),
        counters=middle.counters,
    )


def count_all_errors(clips: Sequence[Clip], texts: Sequence[str]) -> dict[str, ErrorCounts]:
    """Word errors by collection; a clip that is brought again counts once, the first time."""
    counted: dict[str, ErrorCounts] = {}
    seen: set[str] = set()
    for clip, text in zip(clips, texts, strict=True):
        if clip.audio in seen:
            continue
        seen.add(clip.audio)
        errors = count_errors(clip.text, text, "en")
        counted[clip.collection] = counted.get(clip.collection, ErrorCounts()) + errors
    return counted


def fitting_calls(n_calls: int, n_clips: int, call_s: float, limit_s: float) -> int:
    """How many calls a system that needs ``call_s`` for one gets, to stay near ``limit_s``.

    Whole passes over all clips, at least one, so that the rates stay comparable; all of the calls
    where they fit.
    """
    if n_calls * call_s <= limit_s or n_calls <= n_clips:
        return n_calls
    passes = int(limit_s / (n_clips * call_s))
    return min(n_calls, max(1, passes) * n_clips)


def fitting_recordings(workload: Workload, real_time_factor: float, limit_s: float) -> int:
    """How many long recordings a slow system gets: as many as fit, at least the first."""
    total_s = 0.0
    for n, clip in enumerate(workload.long):
        total_s += clip.duration_s * real_time_factor
        if n and total_s > limit_s:
            return n
    return len(workload.long)


@dataclass(frozen=True)
class Ratios:
    """How many times faster than others in the same run; None where there is no such other."""

    faster_whisper: float | None
    best_peer: float | None


def ratios(results: Sequence[SystemResult], work: Work) -> dict[str, Ratios]:
    """Every system's speed over faster-whisper's best and over the best peer's, by name."""
    able = [each for each in results if work in each.figures]
    peers = [each for each in able if not each.configuration.is_ours]
    theirs = [each for each in peers if each.configuration.system == "faster_whisper"]
    best_theirs, best = _fastest(theirs, work), _fastest(peers, work)
    return {
        each.configuration.name: Ratios(
            _over(each.figures[work], best_theirs), _over(each.figures[work], best)
        )
        for each in able
    }


def _over(figures: Figures, best: float | None) -> float | None:
    return None if best is None else figures.times_real_time / best


def _fastest(results: Sequence[SystemResult], work: Work) -> float | None:
    return max((each.figures[work].times_real_time for each in results), default=None)


def _foreign_share(turns: Sequence[Turn], n_processors: int) -> float | None:
    shares = [
        turn.foreign_cpu_s / (turn.wall_s * n_processors)
        for turn in turns
        if turn.foreign_cpu_s is not None
    ]
    return max(shares, default=None)


def _n_varying(turns: Sequence[Turn]) -> int:
    return sum(len(set(texts)) > 1 for texts in zip(*(turn.texts for turn in turns), strict=True))
