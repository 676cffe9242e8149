"""Runs a job of recordings: engine, outputs, progress, summary, exit code.

Shared by the commands that transcribe. Knows nothing of the command line.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from batched_whisper.cli.dependencies import Dependencies
from batched_whisper.cli.io.inputs import RecordingSource
from batched_whisper.cli.io.outputs import Output
from batched_whisper.cli.job.progress import Display
from batched_whisper.cli.job.results import Failed, JobSummary, Transcribed, outcomes
from batched_whisper.cli.messages import (
    FAILED,
    INTERRUPTED,
    Failure,
    about,
    count,
    print_err,
    report,
)
from batched_whisper.config.fields import can_be_disabled
from batched_whisper.config.options import DecodingOptions, Settings

if TYPE_CHECKING:
    from batched_whisper.backends.base import WhisperInfo
    from batched_whisper.whisper import Whisper


@dataclass(frozen=True)
class TranscriptionJob:
    """What to transcribe, with which options, into which outputs."""

    sources: Sequence[RecordingSource]
    outputs: Sequence[Output]
    settings: Settings
    options: DecodingOptions
    quiet: bool = False
    resumes: bool = False
    """Whether to skip results that the outputs have from an earlier run."""
    kept_in: str | None = None
    """Names the files that keep the results; None if they are only printed."""

    @property
    def is_kept(self) -> bool:
        """Whether results go to files. Then they are written in completion order, so that no
        finished result waits in memory; printed ones keep the input order."""
        return self.kept_in is not None

    def is_wanted(self, source: RecordingSource, output: Output) -> bool:
        """Whether this output still needs this recording."""
        return not (self.resumes and output.has(source))


@dataclass
class _Tally:
    """Counts results and failures so far."""

    n_written: int = 0
    duration_s: float = 0.0
    failures: list[Failure] = field(default_factory=list)


def as_json(options: Settings | DecodingOptions) -> dict[str, Any]:
    """The options as JSON types, without unset ones."""
    values = {each: getattr(options, each.name) for each in dataclasses.fields(options)}
    return {
        each.name: list(value) if isinstance(value, tuple) else value
        for each, value in values.items()
        if value is not None or can_be_disabled(each)
    }


def origin(info: WhisperInfo, settings: Settings, options: DecodingOptions) -> dict[str, Any]:
    """Model, engine and options of a measurement, as JSON types."""
    return {
        "model": info.model,
        "revision": info.revision,
        "engine": info.engine,
        "device": info.device,
        "precision": info.precision,
        "threads": info.threads,
        "settings": as_json(settings),
        "options": as_json(options),
    }


@contextmanager
def loaded(dependencies: Dependencies, settings: Settings, display: Display) -> Iterator[Whisper]:
    """Load a model for the duration of the context."""
    with closing(dependencies.open_whisper(settings)) as whisper:
        with display.loading():
            whisper.load()
        yield whisper


def run_job(job: TranscriptionJob, dependencies: Dependencies, display: Display) -> int:
    """Run the job, report to the user, and return the exit code."""
    todo = [s for s in job.sources if any(job.is_wanted(s, output) for output in job.outputs)]
    n_kept = len(job.sources) - len(todo)
    if n_kept and not job.quiet:
        print_err(
            f"{count(n_kept, 'recording')} of {len(job.sources):,} already done in an earlier run"
        )
    if not todo:
        return 0
    if not any(source.is_there() for source in todo):  # do not load a model for nothing
        report(_unopened(source) for source in todo)
        return FAILED
    tally = _Tally()
    with loaded(dependencies, job.settings, display) as whisper:
        try:
            figures = _transcribe(job, todo, whisper, display, tally)
        except KeyboardInterrupt:
            report(tally.failures)
            print_err(_interrupted(job, n_kept + tally.n_written))
            return INTERRUPTED
        except Exception:  # for example: no engine is left
            report(tally.failures)
            raise
    report(tally.failures)
    if tally.n_written and not job.quiet:
        print_err(str(figures))
    return FAILED if tally.failures else 0


def _transcribe(
    job: TranscriptionJob,
    todo: Sequence[RecordingSource],
    whisper: Whisper,
    display: Display,
    tally: _Tally,
) -> JobSummary:
    started_s = time.monotonic()
    with (
        display.running(whisper, len(todo)),
        closing(outcomes(whisper, todo, job.options, in_order=not job.is_kept)) as results,
    ):
        for result in results:
            _deliver(result, job, display, tally)
    stats = whisper.stats
    return JobSummary(
        n_recordings=tally.n_written,
        duration_s=tally.duration_s,
        wall_s=time.monotonic() - started_s,
        n_batches=stats.n_batches,
        mean_batch_size=stats.mean_batch_size,
    )


def _deliver(
    result: Transcribed | Failed, job: TranscriptionJob, display: Display, tally: _Tally
) -> None:
    if isinstance(result, Failed):
        tally.failures.append(result.failure)
        display.advance(0.0)
        return
    for output in job.outputs:
        if job.is_wanted(result.source, output):
            output.write(result.source, result.transcript)
    tally.n_written += 1
    tally.duration_s += result.transcript.duration
    for warning in result.transcript.warnings:
        display.warn(about(result.source.name, warning))
    display.advance(result.transcript.duration)


def _unopened(source: RecordingSource) -> Failure:
    try:
        source.open()
    except Exception as error:
        return Failed(source, error).failure
    raise AssertionError(f"{source.name} exists")


def _interrupted(job: TranscriptionJob, n_written: int) -> str:
    if not job.is_kept:
        return "Interrupted."
    return (
        f"Interrupted: {n_written:,} of {count(len(job.sources), 'recording')} are in "
        f"{job.kept_in}. Run the same command with --resume to continue."
    )
