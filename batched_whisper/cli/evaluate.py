"""``batched-whisper eval``: how many words come out wrong, on recordings whose text is known."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from batched_whisper import evaluation
from batched_whisper.cli.inputs import Source, from_manifest
from batched_whisper.cli.job import Failed, Transcribed, outcomes
from batched_whisper.cli.manifest import Row
from batched_whisper.cli.messages import FAILED, Failure, count, explains_errors, report, say
from batched_whisper.cli.options import takes_options
from batched_whisper.cli.progress import Display
from batched_whisper.cli.run import given, loaded
from batched_whisper.cli.services import Info, Services
from batched_whisper.config import DecodingOptions, Settings
from batched_whisper.errors import ManifestError, OptionError
from batched_whisper.evaluation import Scored, Summary, Unit
from batched_whisper.formats import write_whole

if TYPE_CHECKING:
    from rich.table import Table

NO_COLLECTION = "(none)"


@dataclass
class _Results:
    """What was measured, and how long each collection took."""

    scored: list[Scored] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    wall_s: dict[str, float] = field(default_factory=dict)

    def speed(self, collection: str | None = None) -> float | None:
        """Seconds of audio for each second that passed; over all collections if not given."""
        walls_s = [s for name, s in self.wall_s.items() if collection in (None, name)]
        durations_s = [s.duration_s for s in self.scored if collection in (None, s.collection)]
        return sum(durations_s) / sum(walls_s) if sum(walls_s) > 0 else None


@explains_errors
@takes_options
def evaluate(
    ctx: typer.Context,
    manifest: Annotated[
        Path,
        typer.Argument(
            metavar="MANIFEST",
            help="Recordings and their texts, one a line: audio, text, and optionally language "
            "and collection.",
        ),
    ],
    *,
    collection: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="This collection alone; may be given several times."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(metavar="FILE.json", help="Write every figure and text to this file."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", metavar="", help="No bar.")] = False,
    settings: Settings,
    options: DecodingOptions,
) -> None:
    """Measure the word error rate on recordings whose text is known.

    Texts are normalised as in the Whisper paper.
    Languages written without spaces are counted in characters.
    Where --language is not given, its detection is judged too.
    """
    groups = _collections(from_manifest(manifest), collection or [])
    evaluation.require()
    info, results = _measure(ctx.obj, settings, options, groups, Display(quiet=quiet))
    _show(results)
    if output is not None:
        document = _document(info, settings, options, results)
        write_whole(output, json.dumps(document, ensure_ascii=False, indent=2) + "\n")
    report(results.failures)
    raise typer.Exit(FAILED if results.failures else 0)


def _collections(sources: Iterable[Source], wanted: Sequence[str]) -> dict[str, list[Source]]:
    """The recordings with a text, by collection."""
    groups: dict[str, list[Source]] = {}
    n_without_text = 0
    for source in sources:
        row = _row(source)
        if row.text is None:
            n_without_text += 1
        else:
            groups.setdefault(row.collection or NO_COLLECTION, []).append(source)
    for name in wanted:
        if name not in groups:
            raise OptionError(f"--collection {name}: the manifest has {', '.join(groups)}")
    if not groups:
        raise ManifestError("no recording of the manifest has a text to compare with")
    if n_without_text:
        say(f"{count(n_without_text, 'recording')} without a text left out")
    return {name: groups[name] for name in groups if not wanted or name in wanted}


def _row(source: Source) -> Row:
    assert source.row is not None, "a recording of a manifest"
    return source.row


def _measure(
    services: Services,
    settings: Settings,
    options: DecodingOptions,
    groups: dict[str, list[Source]],
    display: Display,
) -> tuple[Info, _Results]:
    """Transcribe one collection after the other, so that each has a time of its own."""
    results = _Results()
    with loaded(services, settings, display) as whisper:
        with display.running(whisper, sum(map(len, groups.values()))):
            for name, sources in groups.items():
                started_s = time.monotonic()
                with closing(outcomes(whisper, sources, options)) as ended:
                    done = [_advance(display, each) for each in ended]
                results.wall_s[name] = time.monotonic() - started_s
                results.failures += [each.failure for each in done if isinstance(each, Failed)]
                results.scored += [
                    _score(each, name, options) for each in done if isinstance(each, Transcribed)
                ]
        return whisper.info, results


def _advance(display: Display, result: Transcribed | Failed) -> Transcribed | Failed:
    display.advance(result.transcript.duration_s if isinstance(result, Transcribed) else 0.0)
    return result


def _score(done: Transcribed, collection: str, options: DecodingOptions) -> Scored:
    row, transcript = _row(done.source), done.transcript
    spoken = row.language or options.language or transcript.language
    return evaluation.score(
        name=done.source.name,
        collection=collection,
        reference=row.text or "",
        hypothesis=transcript.text,
        language="en" if options.task == "translate" else spoken,
        duration_s=transcript.duration_s,
        language_spoken=row.language,
        language_detected=None if options.language else transcript.language,
    )


def _show(results: _Results) -> None:
    """The table, on standard output."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else 110
    Console(width=width, highlight=False).print(_table(results))
    if any(each.unit is Unit.CHARACTER for each in results.scored):
        print("Languages written without spaces are counted in characters, not in words.")
    if any(each.language_detected for each in results.scored):
        print("language: how many were detected right, of those whose language is known.")


def _table(results: _Results) -> Table:
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
    errors, rate = summary.errors, summary.errors.rate
    judged = summary.n_languages_right + summary.n_languages_wrong
    return [
        summary.collection,
        f"{summary.n_recordings:,}",
        count(errors.n_units, "word" if summary.unit is Unit.WORD else "char"),
        "-" if rate is None else f"{rate:.2%}",
        f"{errors.n_substitutions:,}",
        f"{errors.n_deletions:,}",
        f"{errors.n_insertions:,}",
        f"{summary.duration_s:,.0f}",
        "-" if speed is None else f"{speed:,.1f}",
        f"{summary.n_languages_right} of {judged}" if judged else "",
    ]


def _document(
    info: Info, settings: Settings, options: DecodingOptions, results: _Results
) -> dict[str, Any]:
    """Everything that was measured, as JSON's types."""
    return {
        "model": info.model,
        "revision": info.revision,
        "engine": info.engine,
        "precision": info.precision,
        "threads": info.threads,
        "settings": given(settings),
        "options": given(options),
        "collections": [
            {**_figures(each), "times_real_time": results.speed(each.collection)}
            for each in evaluation.summarise(results.scored)
        ],
        "all": [
            {**_figures(each), "times_real_time": results.speed()}
            for each in evaluation.overall(results.scored)
        ],
        "wall_s": results.wall_s,
        "recordings": [
            {**dataclasses.asdict(each), "error_rate": each.errors.rate} for each in results.scored
        ],
        "failures": [dataclasses.asdict(each) for each in results.failures],
    }


def _figures(summary: Summary) -> dict[str, Any]:
    return {**dataclasses.asdict(summary), "error_rate": summary.errors.rate}
