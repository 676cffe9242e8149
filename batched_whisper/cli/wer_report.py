"""Results of ``eval`` as tables and as JSON types.

For one audio context a full table; for several a shorter one that compares them.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from batched_whisper import evaluation
from batched_whisper.cli.messages import Failure, count
from batched_whisper.evaluation import ScoredRecording, Summary, Unit

if TYPE_CHECKING:
    from rich.table import Table


@dataclass
class Results:
    """Scores for one audio context, and the wall time of each collection."""

    scored: list[ScoredRecording] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    wall_s: dict[str, float] = field(default_factory=dict)

    def seconds(self, collection: str | None = None) -> float:
        """Wall time of a collection, or of all."""
        return sum(s for name, s in self.wall_s.items() if collection in (None, name))

    def speed(self, collection: str | None = None) -> float | None:
        """Seconds of audio per second of wall time, of a collection or of all."""
        wall_s = self.seconds(collection)
        durations_s = [s.duration_s for s in self.scored if collection in (None, s.collection)]
        return sum(durations_s) / wall_s if wall_s > 0 else None


def show(results: Mapping[str, Results]) -> None:
    """Print the table of these audio contexts and its notes to standard output."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else 110
    scored = [each for one in results.values() for each in one.scored]
    console = Console(width=width, highlight=False)
    if len(results) > 1:
        console.print(_side_by_side(results))
    else:
        console.print(_table(*results.values()))
        _show_decoded_again(scored)
    if any(each.unit is Unit.CHARACTER for each in scored):
        print("Languages written without spaces are scored in characters, not in words.")
    if len(results) == 1 and any(each.language_detected for each in scored):
        print("language: correct detections, of the recordings with a known language.")


def _show_decoded_again(scored: list[ScoredRecording]) -> None:
    n_windows = sum(each.n_windows for each in scored)
    if n_windows:
        again = sum(each.n_decoded_again for each in scored)
        share = f"{again / n_windows:.1%}"
        print(f"{again:,} of {count(n_windows, 'window')} ({share}) decoded again.")


def _table(results: Results) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD)
    table.add_column("collection")
    for heading in _HEADINGS:
        table.add_column(heading, justify="right", no_wrap=True)
    for summary in evaluation.summarise(results.scored):
        table.add_row(*_cells(summary, results.speed(summary.collection)))
    if len(results.wall_s) > 1:
        table.add_section()
        for summary in evaluation.overall(results.scored):
            table.add_row(*_cells(summary, results.speed()))
    return table


_HEADINGS = (
    *("recordings", "reference", "errors", "subst.", "del.", "ins."),
    *("audio s", "x real time", "language"),
)


def _cells(summary: Summary, speed: float | None) -> list[str]:
    errors = summary.errors
    judged = summary.n_languages_right + summary.n_languages_wrong
    return [
        summary.collection,
        f"{summary.n_recordings:,}",
        _reference(summary),
        _rate(errors.rate),
        f"{errors.n_substitutions:,}",
        f"{errors.n_deletions:,}",
        f"{errors.n_insertions:,}",
        f"{summary.duration_s:,.0f}",
        "-" if speed is None else f"{speed:,.1f}",
        f"{summary.n_languages_right} of {judged}" if judged else "",
    ]


def _reference(summary: Summary) -> str:
    return count(summary.errors.n_units, "word" if summary.unit is Unit.WORD else "char")


def _rate(rate: float | None) -> str:
    return "-" if rate is None else f"{rate:.2%}"


@dataclass(frozen=True)
class _Compared:
    """One collection or all, in one unit, with one audio context."""

    context: str
    summary: Summary
    wall_s: float
    speed: float | None


def _side_by_side(results: Mapping[str, Results]) -> Table:
    """List the audio contexts of each collection below each other."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD)
    table.add_column("collection")
    table.add_column("context")
    for heading in _SHORT_HEADINGS:
        table.add_column(heading, justify="right", no_wrap=True)
    for same in _compared(results):
        table.add_section()
        for each in same:
            table.add_row(*_short_cells(each))
    return table


_SHORT_HEADINGS = (
    *("recordings", "reference", "errors", "windows", "decoded again"),
    *("seconds", "x real time"),
)


def _short_cells(compared: _Compared) -> list[str]:
    summary, speed = compared.summary, compared.speed
    n_windows = summary.n_windows
    return [
        summary.collection,
        compared.context,
        f"{summary.n_recordings:,}",
        _reference(summary),
        _rate(summary.errors.rate),
        f"{n_windows:,}",
        f"{summary.n_decoded_again / n_windows:.1%}" if n_windows else "-",
        f"{compared.wall_s:,.1f}",
        "-" if speed is None else f"{speed:,.1f}",
    ]


def _compared(results: Mapping[str, Results]) -> Iterator[list[_Compared]]:
    """Yield the rows to compare, one group per collection; all collections last."""
    groups: dict[tuple[str, Unit], list[_Compared]] = {}
    everything: dict[Unit, list[_Compared]] = {}
    for context, each in results.items():
        for summary in evaluation.summarise(each.scored):
            name = summary.collection
            row = _Compared(context, summary, each.seconds(name), each.speed(name))
            groups.setdefault((name, summary.unit), []).append(row)
        for summary in evaluation.overall(each.scored):
            row = _Compared(context, summary, each.seconds(), each.speed())
            everything.setdefault(summary.unit, []).append(row)
    yield from groups.values()
    if any(len(each.wall_s) > 1 for each in results.values()):
        yield from everything.values()


def figures(results: Mapping[str, Results]) -> dict[str, Any]:
    """All results and texts as JSON types; by context if there are several."""
    documents = {context: _document(each) for context, each in results.items()}
    if len(documents) == 1:
        return next(iter(documents.values()))
    return {"audio_contexts": documents}


def _document(results: Results) -> dict[str, Any]:
    return {
        "collections": [
            _summary(each, results.speed(each.collection))
            for each in evaluation.summarise(results.scored)
        ],
        "all": [_summary(each, results.speed()) for each in evaluation.overall(results.scored)],
        "wall_s": results.wall_s,
        "recordings": [
            {**dataclasses.asdict(each), "error_rate": each.errors.rate} for each in results.scored
        ],
        "failures": [dataclasses.asdict(each) for each in results.failures],
    }


def _summary(summary: Summary, speed: float | None) -> dict[str, Any]:
    return {
        **dataclasses.asdict(summary),
        "error_rate": summary.errors.rate,
        "times_real_time": speed,
    }
