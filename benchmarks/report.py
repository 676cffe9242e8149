"""A comparison as a table and as JSON. Knows nothing of how it was measured."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from batched_whisper.formats import write_atomically
from benchmarks.figures import BUSY, Figures, SystemResult, ratios
from benchmarks.systems.catalog import Configuration, Work
from benchmarks.workloads import Workload


@dataclass(frozen=True)
class NotMeasured:
    """A configuration that is not in the results, and why."""

    configuration: Configuration
    reason: str


@dataclass(frozen=True)
class Comparison:
    """All of one run."""

    results: Sequence[SystemResult]
    left_out: Sequence[NotMeasured]
    workload: Workload
    certificate: Mapping[str, Any]
    options: Mapping[str, Any]


_HEADINGS = {
    Work.SHORT: ("clips/s", "x real time", "spread", "WER", "CPU s/min", "vs f-w", "vs best"),
    Work.LONG: ("windows/s", "x real time", "spread", "WER", "CPU s/min", "vs f-w", "vs best"),
}
_TITLES = {Work.SHORT: "Short clips", Work.LONG: "Long recordings"}


def table(comparison: Comparison, work: Work) -> Table:
    """The systems on one workload, fastest first."""
    able = [each for each in comparison.results if work in each.figures]
    able.sort(key=lambda each: each.figures[work].times_real_time, reverse=True)
    shown = Table(box=SIMPLE_HEAD, title=_TITLES[work], title_justify="left")
    shown.add_column("system")
    for heading in (*_HEADINGS[work], "peak MB"):
        shown.add_column(heading, justify="right", no_wrap=True)
    over = ratios(comparison.results, work)
    disturbed = any(_is_disturbed(each.figures[work]) for each in able)
    for each in able:
        name, figures = each.configuration.name, each.figures[work]
        rate = figures.per_s if work is Work.SHORT else figures.windows_per_s
        shown.add_row(
            name + _marks(figures, work, comparison.workload),
            f"{rate:.2f}",
            f"{figures.times_real_time:.1f}",
            f"{figures.spread:.0%}",
            "-" if figures.error_rate is None else f"{figures.error_rate:.1%}",
            f"{figures.cpu_s / figures.audio_s * 60:.2f}",
            _ratio(over[name].faster_whisper, disturbed),
            _ratio(over[name].best_peer, disturbed),
            f"{each.peak_memory_bytes / 1e6:,.0f}",
        )
    return shown


def notes(comparison: Comparison) -> list[str]:
    """What to know about the tables."""
    busiest = max(
        (f.foreign_share or 0 for r in comparison.results for f in r.figures.values()), default=0
    )
    lines = [
        "spread: (longest - shortest) / median turn. CPU s/min: processor seconds for a minute of "
        "sound. vs f-w: speed over faster-whisper's fastest configuration here; vs best: over the "
        "fastest peer's."
    ]
    if busiest > BUSY:
        lines.append(
            f"! Other programs used up to {busiest:.0%} of the processors during a turn "
            "(marked !): these figures and every ratio (marked ?) are not final."
        )
    if any(
        _is_shortened(f, w, comparison.workload)
        for r in comparison.results
        for w, f in r.figures.items()
    ):
        lines.append("* Slow systems were given fewer calls; the rates are for what they did.")
    lines += [f"left out: {each.configuration.name}: {each.reason}" for each in comparison.left_out]
    return lines


def _ratio(value: float | None, disturbed: bool) -> str:
    """Marked where any figure was disturbed: a ratio is only as good as the worse of its two."""
    return "-" if value is None else f"{value:.2f}" + ("?" if disturbed else "")


def _is_disturbed(figures: Figures) -> bool:
    return (figures.foreign_share or 0) > BUSY


def _marks(figures: Figures, work: Work, workload: Workload) -> str:
    return (" !" if _is_disturbed(figures) else "") + (
        " *" if _is_shortened(figures, work, workload) else ""
    )


def _is_shortened(figures: Figures, work: Work, workload: Workload) -> bool:
    return figures.n < len(workload.order if work is Work.SHORT else workload.long)


def document(comparison: Comparison) -> dict[str, Any]:
    """Everything that was measured, as JSON types."""
    workload = comparison.workload
    over = {work: ratios(comparison.results, work) for work in Work}
    return {
        **comparison.certificate,
        "options": dict(comparison.options),
        "seed": workload.seed,
        "n_calls": len(workload.order),
        "short_audio_s": workload.short_s,
        "n_clips": len(workload.clips),
        "long_audio_s": workload.long_s,
        "systems": [
            {
                **_configuration(each.configuration),
                "versions": dict(each.versions),
                "load_s": each.load_s,
                "peak_memory_bytes": each.peak_memory_bytes,
                "n_threads": each.n_threads,
                **{
                    work.value: {
                        **dataclasses.asdict(figures),
                        "over_faster_whisper": over[work][each.configuration.name].faster_whisper,
                        "over_best_peer": over[work][each.configuration.name].best_peer,
                    }
                    for work, figures in each.figures.items()
                },
            }
            for each in comparison.results
        ],
        "left_out": [
            {**_configuration(each.configuration), "reason": each.reason}
            for each in comparison.left_out
        ],
    }


def _configuration(configuration: Configuration) -> dict[str, Any]:
    return {
        "name": configuration.name,
        "system": configuration.system,
        "settings": dict(configuration.settings),
        "environment": dict(configuration.environment),
    }


def write(path: Path, content: Mapping[str, Any]) -> None:
    """A result file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(content, ensure_ascii=False, indent=1) + "\n")
