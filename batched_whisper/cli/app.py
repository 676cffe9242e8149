"""The program ``batched-whisper`` and its commands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

import batched_whisper
from batched_whisper.cli.bench import bench
from batched_whisper.cli.demo import demo
from batched_whisper.cli.dependencies import Dependencies
from batched_whisper.cli.download import download
from batched_whisper.cli.evaluate import evaluate
from batched_whisper.cli.info import info
from batched_whisper.cli.messages import escape_unencodable_output
from batched_whisper.cli.options import ENVIRONMENT_NOTE
from batched_whisper.cli.transcribe import transcribe

PROGRAM = "batched-whisper"

app = typer.Typer(
    name=PROGRAM,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(is_wanted: bool) -> None:
    if is_wanted:
        print(f"{PROGRAM} {batched_whisper.__version__}")
        raise typer.Exit


@app.callback()
def program(
    ctx: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", metavar="", callback=_show_version, is_eager=True, help="Show the version."
        ),
    ] = False,
) -> None:
    """Self-hosted Whisper that batches the audio of all callers at every decoder step."""
    ctx.obj = ctx.obj or Dependencies()


app.command(epilog=ENVIRONMENT_NOTE)(transcribe)
app.command(epilog=ENVIRONMENT_NOTE)(demo)
app.command(name="eval", epilog=ENVIRONMENT_NOTE)(evaluate)
app.command(epilog=ENVIRONMENT_NOTE)(bench)
app.command(epilog=ENVIRONMENT_NOTE)(info)
app.command()(download)


def run_program(
    arguments: Sequence[str] | None = None, dependencies: Dependencies | None = None
) -> None:
    """Run the program and exit with its exit code.

    Args:
        arguments: the command line; ``sys.argv`` if omitted.
        dependencies: replaces the engine and the downloader, for tests.
    """
    escape_unencodable_output()
    app(args=arguments, prog_name=PROGRAM, obj=dependencies)
