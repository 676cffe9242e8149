"""``batched-whisper transcribe``: recordings to text, files or JSON lines."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from batched_whisper.cli.io.dataset import EXAMPLE_DATASET, DatasetName, from_dataset
from batched_whisper.cli.io.inputs import RecordingSource, find_sources, from_manifest
from batched_whisper.cli.io.output_names import output_names
from batched_whisper.cli.io.outputs import (
    FolderOfFiles,
    Output,
    StandardOutput,
    make_folder,
    open_json_lines,
)
from batched_whisper.cli.job.job_runner import TranscriptionJob, run
from batched_whisper.cli.job.progress import Display
from batched_whisper.cli.messages import handle_errors
from batched_whisper.cli.options import is_set, takes_options
from batched_whisper.config.options import CueLayout, DecodingOptions, Settings
from batched_whisper.errors import ManifestError, OptionError
from batched_whisper.formats import FORMATS, Format, format_named

INPUT, OUTPUT = "Input", "Output"


@handle_errors
@takes_options
def transcribe(
    ctx: typer.Context,
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PATH",
            help="Files, folders (searched to the bottom), quoted globs, manifests (.jsonl), "
            "or - for a list of paths on standard input.",
            show_default=False,
        ),
    ] = None,
    *,
    manifest: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            rich_help_panel=INPUT,
            help='A list of recordings: lines such as {"audio": "a.wav"}, paths from its folder.',
        ),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            rich_help_panel=INPUT,
            help=f"A Hugging Face data set, such as {EXAMPLE_DATASET}. Needs the package datasets.",
        ),
    ] = None,
    config: Annotated[
        str | None,
        typer.Option(metavar="NAME", rich_help_panel=INPUT, help="The data set's configuration."),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(metavar="NAME", rich_help_panel=INPUT, help="The data set's split."),
    ] = None,
    column: Annotated[
        str,
        typer.Option(metavar="NAME", rich_help_panel=INPUT, help="The data set's column of sound."),
    ] = "audio",
    output_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", rich_help_panel=OUTPUT, help="Write a file a recording and format."
        ),
    ] = None,
    format: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME,...",
            rich_help_panel=OUTPUT,
            help=f"{', '.join(FORMATS)}; several go with --output-dir. "
            f"{', '.join(form.name for form in FORMATS.values() if form.is_timed)} turn "
            "--timestamps on. Not given: text.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.jsonl",
            rich_help_panel=OUTPUT,
            help="Append each result as a line of JSON as soon as its recording ends, in whatever "
            "order they do; the name in it tells whose it is.",
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            metavar="",
            rich_help_panel=OUTPUT,
            help="Go on with an interrupted job: leave out what is written already.",
        ),
    ] = False,
    quiet: Annotated[
        bool,
        typer.Option(
            "--quiet", "-q", metavar="", rich_help_panel=OUTPUT, help="No bar, warnings or figures."
        ),
    ] = False,
    settings: Settings,
    options: DecodingOptions,
    layout: CueLayout,
) -> None:
    """Transcribe recordings.

    The text goes to standard output, unless --output or --output-dir says where to keep results.
    """
    forms = _laid_out(_formats(format or []), layout, ctx)
    sources = _sources(
        paths or [], manifest, DatasetName(dataset, config, split, column) if dataset else None
    )
    if resume and not (output or output_dir):
        raise OptionError("--resume needs the --output or --output-dir of the job to go on with")
    display = Display(quiet=quiet)
    with ExitStack() as stack:
        outputs: list[Output] = []
        if output_dir is not None:
            make_folder(output_dir)
            names = output_names(sources)
            outputs.append(FolderOfFiles(output_dir, forms or [FORMATS["text"]], names))
        if output is not None:
            _check_output(output, forms, output_dir)
            outputs.append(stack.enter_context(open_json_lines(output, resume=resume)))
        job = TranscriptionJob(
            sources=sources,
            outputs=outputs or [_standard_output(forms, sources, display)],
            settings=settings,
            options=_timed(options, forms, layout, ctx),
            quiet=quiet,
            resumes=resume,
            kept_in=" and ".join(str(place) for place in (output_dir, output) if place) or None,
        )
        code = run(job, ctx.obj, display)
    raise typer.Exit(code)


def _formats(given: Sequence[str]) -> list[Format]:
    """The formats asked for, each once, from ``--format a,b --format c``."""
    names = [name.strip().lower() for each in given for name in each.split(",")]
    return list(dict.fromkeys(format_named(name) for name in names if name))


def _sources(
    paths: Sequence[str], manifest: Path | None, dataset: DatasetName | None
) -> list[RecordingSource]:
    """The recordings of all kinds of input, each once."""
    found = find_sources(paths, lambda: sys.stdin.buffer.read())
    if manifest is not None:
        found += from_manifest(manifest)
    if dataset is not None:
        found += from_dataset(dataset)
    if not found and (paths or manifest or dataset):
        raise ManifestError("there are no recordings in what was given")
    if not found:
        raise OptionError("say what to transcribe: files, folders, - or a manifest (see --help)")
    return list({source.name: source for source in found}.values())


def _check_output(output: Path, forms: Sequence[Format], output_dir: Path | None) -> None:
    if output.suffix.lower() != ".jsonl":
        raise OptionError(
            f"--output {output}: it is written as JSON lines, so its name must end in .jsonl; "
            "for other formats use --output-dir with --format"
        )
    if forms and output_dir is None and forms != [FORMATS["jsonl"]]:
        raise OptionError("--format goes with --output-dir; --output is always JSON lines")


def _standard_output(
    forms: Sequence[Format], sources: Sequence[RecordingSource], display: Display
) -> StandardOutput:
    """For reading: one format, and of those that are files only one recording."""
    form, *others = forms or [FORMATS["text"]]
    is_several = len(sources) > 1
    if others or (is_several and form.name not in ("text", "jsonl")):
        what = "several formats" if others else f"{form.name} for several recordings"
        raise OptionError(f"--format: {what} need an --output-dir to go to")
    return StandardOutput(form, named=is_several, write=display.print)


def _laid_out(forms: Sequence[Format], layout: CueLayout, ctx: typer.Context) -> list[Format]:
    """The formats, subtitles among them as the user wants them to look."""
    flags = [field.name for field in dataclasses.fields(CueLayout) if ctx.params.get(field.name)]
    if flags and not any(form.has_cues for form in forms):
        subtitles = " or ".join(form.name for form in FORMATS.values() if form.has_cues)
        raise OptionError(
            f"--{flags[0].replace('_', '-')} is about subtitles: add --format {subtitles}"
        )
    return [form.laid_out(layout) for form in forms]


def _timed(
    options: DecodingOptions, forms: Sequence[Format], layout: CueLayout, ctx: typer.Context
) -> DecodingOptions:
    """Turn on the times that the formats live by, unless the user said no."""
    if any(form.is_timed for form in forms) and not is_set(ctx, DecodingOptions, "timestamps"):
        options = options.replace(timestamps=True)
    if layout == CueLayout() or not any(form.has_cues for form in forms):
        return options
    if is_set(ctx, DecodingOptions, "word_timestamps") and not options.word_timestamps:
        raise OptionError(
            "subtitles laid out by words need to know when each was said: "
            "leave out --no-word-timestamps"
        )
    return options.replace(word_timestamps=True)
