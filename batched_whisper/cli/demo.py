"""``batched-whisper demo``: a first run on the recordings of the extra ``demo``."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from batched_whisper.cli.io.inputs import RecordingSource, find_sources
from batched_whisper.cli.io.outputs import StandardOutput
from batched_whisper.cli.job.job_runner import TranscriptionJob, run_job
from batched_whisper.cli.job.progress import Display
from batched_whisper.cli.messages import handle_errors
from batched_whisper.cli.options import takes_options
from batched_whisper.config.options import DecodingOptions, Settings
from batched_whisper.errors import MissingExtra
from batched_whisper.formats import FORMATS

PACKAGE = "moonshine_voice"
RECORDINGS = ("two_cities.wav", "beckett.wav", "endgame_nagg_nell.wav")


@handle_errors
@takes_options
def demo(
    ctx: typer.Context,
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="AUDIO",
            help="Your recordings. Default: the three recordings of the extra demo.",
            show_default=False,
        ),
    ] = None,
    *,
    settings: Settings,
    options: DecodingOptions,
) -> None:
    """Transcribe the demo recordings, or yours, and show the speed."""
    sources = find_sources(paths, lambda: b"") if paths else demo_sources()
    display = Display(quiet=False)
    output = StandardOutput(FORMATS["text"], named=True, write=display.print)
    job = TranscriptionJob(sources=sources, outputs=[output], settings=settings, options=options)
    raise typer.Exit(run_job(job, ctx.obj, display))


def demo_sources(folder_of: Callable[[str], Path | None] | None = None) -> list[RecordingSource]:
    """Find the recordings of the extra; raise `MissingExtra` if it is not installed."""
    folder = (folder_of or _folder_of)(PACKAGE)
    files = [folder / "assets" / name for name in RECORDINGS] if folder else []
    if not files or not all(file.is_file() for file in files):
        raise MissingExtra(
            "the demo recordings are not installed: "
            "run pip install 'batched-whisper[demo]', or name a recording"
        )
    return [RecordingSource(name=file.name, place=Path(file.name), audio=file) for file in files]


def _folder_of(package: str) -> Path | None:
    """Find the folder of a package without importing it."""
    spec = find_spec(package)
    places = spec.submodule_search_locations if spec else None
    return Path(next(iter(places))) if places else None
