"""The command line: one module per command."""

from __future__ import annotations


def main() -> None:
    """Run the program on the process's command line."""
    from batched_whisper.cli.app import run_program

    run_program()
