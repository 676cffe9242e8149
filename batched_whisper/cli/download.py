"""``batched-whisper download``: fetch a model for use without a network."""

from __future__ import annotations

from typing import Annotated

import typer

from batched_whisper.cli.messages import handle_errors


@handle_errors
def download(
    ctx: typer.Context,
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="A short name (base, large-v3) or a repository on the Hub."
        ),
    ],
    revision: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="The model's branch, tag or commit on the Hub."),
    ] = None,
) -> None:
    """Download a model from the Hugging Face Hub, for later use without a network."""
    found = ctx.obj.download(model, revision)
    at = f" at {found.revision}" if found.revision else ""
    print(f"{found.name}{at} is in {found.folder}")
