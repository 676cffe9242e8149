"""``batched-whisper bench``: throughput of this machine, sequential and concurrent."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import sys
from collections.abc import Sequence
from contextlib import closing
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import batched_whisper
from batched_whisper.cli.demo import demo_sources
from batched_whisper.cli.info import PACKAGES, installed_version
from batched_whisper.cli.io.inputs import RecordingSource, find_sources
from batched_whisper.cli.job.job_runner import loaded, origin
from batched_whisper.cli.job.progress import Display
from batched_whisper.cli.job.results import Failed, outcomes
from batched_whisper.cli.load_patterns import (
    BenchClip,
    LoadSummary,
    Pass,
    measure,
    n_differing,
    summarise,
)
from batched_whisper.cli.messages import FAILED, Failure, count, handle_errors, print_err, report
from batched_whisper.cli.options import takes_options
from batched_whisper.config.options import DecodingOptions, Settings
from batched_whisper.formats import write_atomically

if TYPE_CHECKING:
    from rich.table import Table

    from batched_whisper.whisper import Whisper

N_CALLS = 64


@handle_errors
@takes_options
def bench(
    ctx: typer.Context,
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PATH",
            help="Recordings: files, folders or manifests. Default: the three recordings of the "
            "extra demo.",
            show_default=False,
        ),
    ] = None,
    *,
    calls: Annotated[
        int, typer.Option(metavar="N", min=1, max=1024, help="Number of concurrent calls.")
    ] = N_CALLS,
    rounds: Annotated[
        int, typer.Option(metavar="N", min=1, max=100, help="Repetitions; reports medians.")
    ] = 1,
    output: Annotated[
        Path | None,
        typer.Option(metavar="FILE.json", help="Write all measurements to this file."),
    ] = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", metavar="", help="No progress messages.")
    ] = False,
    settings: Settings,
    options: DecodingOptions,
) -> None:
    """Measure throughput on this machine: sequential calls, concurrent calls, and map.

    Repeats the recordings until there are enough calls; the time includes reading the files.
    The sequential pattern makes a quarter of the calls. To compare configurations, run it again
    with another --precision, --max-batch-size or --audio-context.
    """
    sources = find_sources(paths, lambda: sys.stdin.buffer.read()) if paths else demo_sources()
    with loaded(ctx.obj, settings, Display(quiet=quiet)) as whisper:
        clips, failures = _warm_up(whisper, sources, options)
        passes: list[Pass] = []
        for each in measure(whisper, clips, options, n_calls=calls, n_rounds=rounds):
            passes.append(each)
            if not quiet:
                print_err(
                    f"{each.pattern.value}: {count(len(each.texts), 'call')} in {each.wall_s:.1f} s"
                )
        info = whisper.info
    if passes:
        _show(passes, clips)
        if output is not None:
            document = {**origin(info, settings, options), **_document(passes, clips)}
            write_atomically(output, json.dumps(document, ensure_ascii=False, indent=2) + "\n")
    report(failures)
    raise typer.Exit(FAILED if failures else 0)


def _warm_up(
    whisper: Whisper, sources: Sequence[RecordingSource], options: DecodingOptions
) -> tuple[list[BenchClip], list[Failure]]:
    """Transcribe every recording once. Return the readable ones, and the failures."""
    clips, failures = list[BenchClip](), list[Failure]()
    with closing(outcomes(whisper, sources, options)) as ended:
        for each in ended:
            if isinstance(each, Failed):
                failures.append(each.failure)
            else:
                clips.append(BenchClip(each.source.open(), each.transcript.duration))
    return clips, failures


def _show(passes: Sequence[Pass], clips: Sequence[BenchClip]) -> None:
    """Print the table and its notes to standard output."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else 110
    Console(width=width, highlight=False).print(_table(summarise(passes)))
    total_s = sum(clip.duration_s for clip in clips)
    print(f"{count(len(clips), 'recording')}, {total_s:,.1f} s of audio, repeated.")
    n_different = n_differing(passes, len(clips))
    print("All patterns gave the same texts." if not n_different else _differ(n_different))
    peak = _peak_memory_bytes()
    if peak is not None:
        print(f"Peak memory of the process: {peak / 1e6:,.0f} MB.")
    if _is_checkout():
        print("Run make bench to compare with other programs.")


def _differ(n_different: int) -> str:
    return f"{count(n_different, 'recording')} had different texts in different calls."


def _table(figures: Sequence[LoadSummary]) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD)
    table.add_column("pattern")
    for heading in _HEADINGS:
        table.add_column(heading, justify="right", no_wrap=True)
    for each in figures:
        table.add_row(
            each.pattern.value,
            f"{each.n_calls:,}",
            f"{each.wall_s:,.1f}",
            f"{each.calls_per_s:,.2f}",
            f"{each.times_real_time:,.1f}",
            f"{each.mean_batch_size:,.1f}",
            f"{each.speedup:,.2f}",
        )
    return table


_HEADINGS = ("calls", "seconds", "calls/s", "x real time", "mean batch", "speed-up")


def _document(passes: Sequence[Pass], clips: Sequence[BenchClip]) -> dict[str, Any]:
    """All measurements, as JSON types."""
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "system": platform.platform(),
        "processors": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {
            "batched-whisper": batched_whisper.__version__,
            **{package: installed_version(package) for package in PACKAGES},
        },
        "n_recordings": len(clips),
        "audio_s": sum(clip.duration_s for clip in clips),
        "peak_memory_bytes": _peak_memory_bytes(),
        "n_different_texts": n_differing(passes, len(clips)),
        "patterns": [dataclasses.asdict(each) for each in summarise(passes)],
        "passes": [dataclasses.asdict(each) for each in passes],
    }


def _peak_memory_bytes() -> int | None:
    """Peak resident memory of this process; None where the system does not report it (Windows)."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else peak * 1024  # macOS counts bytes


def _is_checkout() -> bool:
    """Whether the package runs from a checkout, which has the other benchmarks."""
    return (Path(batched_whisper.__file__).parents[1] / "benchmarks" / "compare.py").is_file()
