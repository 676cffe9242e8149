"""``batched-whisper transcribe``: recordings to text, subtitles or JSON."""

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
from batched_whisper.cli.job.job_runner import TranscriptionJob, run_job
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
            help="Files, folders (recursive), quoted globs, manifests (.jsonl), "
            "or - to read a list of paths from standard input.",
            show_default=False,
        ),
    ] = None,
    *,
    manifest: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            rich_help_panel=INPUT,
            help='JSON lines such as {"audio": "a.wav"}; paths are relative to the file.',
        ),
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            rich_help_panel=INPUT,
            help=f"A Hugging Face dataset, such as {EXAMPLE_DATASET}. Needs the extra datasets.",
        ),
    ] = None,
    config: Annotated[
        str | None,
        typer.Option(metavar="NAME", rich_help_panel=INPUT, help="The dataset's configuration."),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(metavar="NAME", rich_help_panel=INPUT, help="The dataset's split."),
    ] = None,
    column: Annotated[
        str,
        typer.Option(metavar="NAME", rich_help_panel=INPUT, help="The dataset's audio column."),
    ] = "audio",
    output_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            rich_help_panel=OUTPUT,
            help="Write one file per recording and format.",
        ),
    ] = None,
    format: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME,...",
            rich_help_panel=OUTPUT,
            help=f"{', '.join(FORMATS)}. Several formats need --output-dir. "
            f"{', '.join(form.name for form in FORMATS.values() if form.is_timed)} turn "
            "--timestamps on. Default: text.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.jsonl",
            rich_help_panel=OUTPUT,
            help="Append one JSON line per recording, in completion order; the field name "
            "identifies the recording.",
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            metavar="",
            rich_help_panel=OUTPUT,
            help="Continue an interrupted job: skip recordings whose results exist.",
        ),
    ] = False,
    quiet: Annotated[
        bool,
        typer.Option(
            "--quiet",
            "-q",
            metavar="",
            rich_help_panel=OUTPUT,
            help="No progress bar, warnings or summary.",
        ),
    ] = False,
    settings: Settings,
    options: DecodingOptions,
    layout: CueLayout,
) -> None:
    """Transcribe recordings.

    Results go to standard output unless --output or --output-dir is given.
    """
    forms = _laid_out(_formats(format or []), layout, ctx)
    sources = _sources(
        paths or [], manifest, DatasetName(dataset, config, split, column) if dataset else None
    )
    if resume and not (output or output_dir):
        raise OptionError("--resume needs the --output or --output-dir of the interrupted job")
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
        code = run_job(job, ctx.obj, display)
    raise typer.Exit(code)


def _formats(given: Sequence[str]) -> list[Format]:
    """Parse ``--format a,b --format c`` into distinct formats."""
    names = [name.strip().lower() for each in given for name in each.split(",")]
    return list(dict.fromkeys(format_named(name) for name in names if name))


def _sources(
    paths: Sequence[str], manifest: Path | None, dataset: DatasetName | None
) -> list[RecordingSource]:
    """Collect the distinct recordings of all inputs."""
    found = find_sources(paths, lambda: sys.stdin.buffer.read())
    if manifest is not None:
        found += from_manifest(manifest)
    if dataset is not None:
        found += from_dataset(dataset)
    if not found and (paths or manifest or dataset):
        raise ManifestError("the given inputs contain no recordings")
    if not found:
        raise OptionError(
            "nothing to transcribe: name files, folders, - or a manifest (see --help)"
        )
    return list({source.name: source for source in found}.values())


def _check_output(output: Path, forms: Sequence[Format], output_dir: Path | None) -> None:
    if output.suffix.lower() != ".jsonl":
        raise OptionError(
            f"--output {output}: the file name must end in .jsonl (JSON lines); "
            "for other formats use --output-dir with --format"
        )
    if forms and output_dir is None and forms != [FORMATS["jsonl"]]:
        raise OptionError("--format needs --output-dir; --output is always JSON lines")


def _standard_output(
    forms: Sequence[Format], sources: Sequence[RecordingSource], display: Display
) -> StandardOutput:
    """Standard output takes one format, and subtitles or JSON of one recording only."""
    form, *others = forms or [FORMATS["text"]]
    is_several = len(sources) > 1
    if others or (is_several and form.name not in ("text", "jsonl")):
        what = "several formats" if others else f"{form.name} for several recordings"
        raise OptionError(f"--format: {what} need --output-dir")
    return StandardOutput(form, named=is_several, write=display.print)


def _laid_out(forms: Sequence[Format], layout: CueLayout, ctx: typer.Context) -> list[Format]:
    """Apply the subtitle layout to the formats."""
    flags = [field.name for field in dataclasses.fields(CueLayout) if ctx.params.get(field.name)]
    if flags and not any(form.has_cues for form in forms):
        subtitles = " or ".join(form.name for form in FORMATS.values() if form.has_cues)
        raise OptionError(
            f"--{flags[0].replace('_', '-')} applies to subtitles only: add --format {subtitles}"
        )
    return [form.laid_out(layout) for form in forms]


def _timed(
    options: DecodingOptions, forms: Sequence[Format], layout: CueLayout, ctx: typer.Context
) -> DecodingOptions:
    """Turn on the timestamps that the formats need, unless the user turned them off."""
    if any(form.is_timed for form in forms) and not is_set(ctx, DecodingOptions, "timestamps"):
        options = options.replace(timestamps=True)
    if layout == CueLayout() or not any(form.has_cues for form in forms):
        return options
    if is_set(ctx, DecodingOptions, "word_timestamps") and not options.word_timestamps:
        raise OptionError("this subtitle layout needs word timestamps: remove --no-word-timestamps")
    return options.replace(word_timestamps=True)
