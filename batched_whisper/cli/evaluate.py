"""``batched-whisper eval``: word error rate on recordings with a reference text."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from batched_whisper import evaluation
from batched_whisper.cli import wer_report
from batched_whisper.cli.io.inputs import RecordingSource, from_manifest
from batched_whisper.cli.io.manifest import Row
from batched_whisper.cli.job.job_runner import loaded, origin
from batched_whisper.cli.job.progress import Display
from batched_whisper.cli.job.results import Failed, Transcribed, outcomes
from batched_whisper.cli.messages import FAILED, count, handle_errors, print_err, report
from batched_whisper.cli.options import takes_options
from batched_whisper.cli.wer_report import Results
from batched_whisper.config.options import DecodingOptions, Settings
from batched_whisper.errors import ManifestError, OptionError
from batched_whisper.evaluation import ScoredRecording
from batched_whisper.formats import write_atomically
from batched_whisper.tokens.languages import language_code_or_none

if TYPE_CHECKING:
    from batched_whisper.whisper import Whisper

NO_COLLECTION = "(none)"


@handle_errors
@takes_options
def evaluate(
    ctx: typer.Context,
    manifest: Annotated[
        Path,
        typer.Argument(
            metavar="MANIFEST",
            help="Recordings and reference texts, one JSON object per line: audio, text, and "
            "optionally language and collection.",
        ),
    ],
    *,
    collection: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Only this collection; may be repeated."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(metavar="FILE.json", help="Write all results and texts to this file."),
    ] = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", metavar="", help="No progress bar.")
    ] = False,
    settings: Settings,
    options: DecodingOptions,
) -> None:
    """Measure the word error rate on recordings with a reference text.

    Texts are normalised as in the Whisper paper. Languages written without spaces get a character
    error rate. Without --language, language detection is scored too. Several audio contexts
    (--audio-context fit,full) are compared side by side.
    """
    groups = _collections(from_manifest(manifest), collection or [])
    evaluation.require()
    contexts = _by_context(options)
    language_code_or_none(
        options.language
    )  # rejects an unknown language before the model is loaded
    display = Display(quiet=quiet)
    with loaded(ctx.obj, settings, display) as whisper:
        results = _measure(whisper, contexts, groups, display)
        info = whisper.info
    wer_report.show(results)
    if output is not None:
        document = {
            **origin(info, settings, options),
            **wer_report.figures(results),
        }
        write_atomically(output, json.dumps(document, ensure_ascii=False, indent=2) + "\n")
    failures = list(dict.fromkeys(each for one in results.values() for each in one.failures))
    report(failures)
    raise typer.Exit(FAILED if failures else 0)


def _collections(
    sources: Iterable[RecordingSource], wanted: Sequence[str]
) -> dict[str, list[RecordingSource]]:
    """Group the recordings that have a text by collection."""
    groups: dict[str, list[RecordingSource]] = {}
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
        raise ManifestError(
            'no recording in the manifest has a reference text: add the field "text"'
        )
    if n_without_text:
        print_err(f"{count(n_without_text, 'recording')} without a text skipped")
    return {name: groups[name] for name in groups if not wanted or name in wanted}


def _row(source: RecordingSource) -> Row:
    assert source.row is not None, "a recording of a manifest"
    return source.row


def _by_context(options: DecodingOptions) -> dict[str, DecodingOptions]:
    """Options per audio context in a list such as ``fit,full``, by name."""
    names = [name.strip() for name in str(options.audio_context).split(",")]
    contexts = {name: options.replace(audio_context=name) for name in names if name}
    if not contexts:
        raise OptionError(f"--audio-context {options.audio_context}: name at least one")
    return contexts


def _measure(
    whisper: Whisper,
    contexts: dict[str, DecodingOptions],
    groups: dict[str, list[RecordingSource]],
    display: Display,
) -> dict[str, Results]:
    """Transcribe one collection at a time, so that each is timed by itself.

    Several contexts alternate at each collection, after one warm-up recording.
    """
    results = {context: Results() for context in contexts}
    if len(contexts) > 1:
        first = next(iter(groups.values()))[:1]
        for options in contexts.values():
            list(outcomes(whisper, first, options))
    with display.running(whisper, len(contexts) * sum(map(len, groups.values()))):
        for name, sources in groups.items():
            for context, options in contexts.items():
                _measure_one(whisper, name, sources, options, results[context], display)
    return results


def _measure_one(
    whisper: Whisper,
    collection: str,
    sources: Sequence[RecordingSource],
    options: DecodingOptions,
    results: Results,
    display: Display,
) -> None:
    """Add one collection with one audio context to the results."""
    started_s = time.monotonic()
    with closing(outcomes(whisper, sources, options)) as ended:
        done = [_advance(display, each) for each in ended]
    results.wall_s[collection] = time.monotonic() - started_s
    results.failures += [each.failure for each in done if isinstance(each, Failed)]
    results.scored += [
        _score(each, collection, options) for each in done if isinstance(each, Transcribed)
    ]


def _advance(display: Display, result: Transcribed | Failed) -> Transcribed | Failed:
    display.advance(result.transcript.duration if isinstance(result, Transcribed) else 0.0)
    return result


def _score(done: Transcribed, collection: str, options: DecodingOptions) -> ScoredRecording:
    row, transcript = _row(done.source), done.transcript
    given = language_code_or_none(options.language)
    spoken = row.language or given or transcript.language or None
    return evaluation.score(
        name=done.source.name,
        collection=collection,
        reference=row.text or "",
        hypothesis=transcript.text,
        language="en" if options.task == "translate" else spoken,
        duration_s=transcript.duration,
        language_spoken=row.language,
        language_detected=None if given else transcript.language,
        n_windows=len(transcript.windows),
        n_decoded_again=sum(window.decodes > 1 for window in transcript.windows),
    )
